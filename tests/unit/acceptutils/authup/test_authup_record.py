"""What P and the broker say to each other; the broker believes none of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptutils.authup import record
from acceptutils.authup.credentials import Credentials, Secret
from acceptutils.authup.record import BadRecord, Ended, Request, Started
from acceptutils.ucspitls import is_tls_variable

word = st.binary(min_size=1, max_size=200).filter(lambda raw: b"\0" not in raw)


def request(
    user: bytes = b"alice", password: bytes = b"secret", variables: dict[str, str] | None = None
) -> Request:
    return Request(Credentials(user, Secret(password), b"<1.2@h>"), variables or {})


@given(word, word, st.binary(max_size=100).filter(lambda raw: b"\0" not in raw))
def test_request_survives_the_record(user: bytes, password: bytes, timestamp: bytes) -> None:
    variables = {"SSL_PROTOCOL": "TLSv1.3", "SSL_TLS_SNI_SERVERNAME": "", "SSL_X": "a=b\udcff"}
    sent = Request(Credentials(user, Secret(password), timestamp), variables)
    packed = record.pack(sent)
    assert len(packed) == record.REQUEST_SIZE
    got = record.unpack(packed)
    assert got.credentials.user == user
    assert got.credentials.password.reveal() == password
    assert got.credentials.timestamp == timestamp
    assert got.variables == variables


def test_longest_words_fit() -> None:
    longest = b"x" * record.WORD
    got = record.unpack(record.pack(request(longest, longest)))
    assert got.credentials.user == longest
    with pytest.raises(ValueError, match="do not fit"):
        record.pack(request(longest + b"x"))


def test_variables_that_do_not_fit_are_left_out() -> None:
    variables = {"SSL_A": "x" * 10000, "SSL_B": "y" * 10000, "SSL_C": "z"}
    got = record.unpack(record.pack(request(variables=variables)))
    assert set(got.variables) == {"SSL_A", "SSL_C"}


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "LD_PRELOAD",
        "AUTHUP_USER",
        "SSLCTLFD",
        "SSL_",
        "SSL_lower",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "SSL_A B",
        "SSL_É",
        "SSL",
        "",
    ],
)
def test_only_tls_variables_reach_a_root_process(name: str) -> None:
    hostile = request(variables={name: "x", "SSL_CIPHER": "y"})
    assert record.unpack(record.pack(hostile)).variables == {"SSL_CIPHER": "y"}


def raw_record(user: bytes, password: bytes, timestamp: bytes = b"") -> bytes:
    return (
        user.ljust(record.WORD, b"\0")
        + password.ljust(record.WORD, b"\0")
        + timestamp.ljust(record.TIMESTAMP, b"\0")
        + bytes(record.VARIABLES)
    )


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"x",
        bytes(record.REQUEST_SIZE),
        bytes(record.REQUEST_SIZE + 1),
        raw_record(b"", b"secret"),
        raw_record(b"alice", b""),
        raw_record(b"a\0b", b"secret"),
        raw_record(b"alice", b"a\0b"),
        raw_record(b"alice", b"secret", b"a\0b"),
    ],
)
def test_hostile_record_is_refused(hostile: bytes) -> None:
    with pytest.raises(BadRecord):
        record.unpack(hostile)


@given(st.binary(max_size=64))
def test_any_tail_of_variables_is_harmless(tail: bytes) -> None:
    hostile = bytearray(raw_record(b"alice", b"secret"))
    hostile[-record.VARIABLES : -record.VARIABLES + len(tail)] = tail
    assert all(
        is_tls_variable(name) for name in record.unpack(hostile[: record.REQUEST_SIZE]).variables
    )


def test_blob_is_bernstein_s() -> None:
    assert record.blob(request().credentials) == b"alice\0secret\0<1.2@h>\0"


@pytest.mark.parametrize(
    "reply", [Started(4711), Ended(0, False), Ended(111, True), Ended(-9, True), Ended(255, False)]
)
def test_reply_survives_the_record(reply: Started | Ended) -> None:
    assert record.unpack_reply(record.pack_reply(reply)) == reply


@pytest.mark.parametrize("hostile", [b"", b"S", bytes(12), b"X" + bytes(11), b"S" + bytes(12)])
def test_hostile_reply_is_refused(hostile: bytes) -> None:
    with pytest.raises(BadRecord):
        record.unpack_reply(hostile)
