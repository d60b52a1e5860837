"""What is on descriptor 3, and what checkpassword and the verifier say to each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptutils.checkpassword import wire
from acceptutils.checkpassword.wire import Identity, Inquiry, Question, WireError

field = st.binary(max_size=50).filter(lambda raw: b"\0" not in raw)

ALICE = Identity("alice@example.org", 20000, 20001, "/home/example.org/alice", "/bin/false")


@pytest.mark.parametrize(
    ("blob", "expected"),
    [
        (b"alice\0secret\0\0", (b"alice", b"secret")),
        (b"alice\0secret\0<1.2@h>\0", (b"alice", b"secret")),
        (b"alice\0secret\0\0more\0and more", (b"alice", b"secret")),
        (b"\0\0\0", (b"", b"")),
        (b"a\0" + b"x" * (wire.BLOB_LIMIT - 4) + b"\0\0", (b"a", b"x" * (wire.BLOB_LIMIT - 4))),
    ],
)
def test_blob(blob: bytes, expected: tuple[bytes, bytes]) -> None:
    assert wire.parse_blob(blob) == expected


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"alice",
        b"alice\0",
        b"alice\0secret",
        b"alice\0secret\0",
        b"alice\0secret\0stamp",
        b"a\0b\0\0" + b"x" * wire.BLOB_LIMIT,
    ],
)
def test_blob_that_is_misuse(blob: bytes) -> None:
    with pytest.raises(WireError):
        wire.parse_blob(blob)


@given(field, field, field)
def test_question_survives(service: bytes, user: bytes, password: bytes) -> None:
    question = Question(service, user, password)
    assert wire.parse_question(wire.pack_question(question)) == question


@given(field, field)
def test_inquiry_survives(service: bytes, user: bytes) -> None:
    inquiry = Inquiry(service, user)
    assert wire.parse_question(wire.pack_inquiry(inquiry)) == inquiry


@given(field, field, field)
def test_no_part_of_a_question_is_an_inquiry(service: bytes, user: bytes, password: bytes) -> None:
    record = wire.pack_question(Question(service, user, password))
    for length in range(len(record)):
        with pytest.raises(WireError):
            wire.parse_question(record[:length])


@pytest.mark.parametrize(
    "record",
    [b"whose\0a\0b\0c\0", b"whose\0a\0b\0\0\0", b"whose\0a\0b\0", b"who\0a\0b\0\0"],
)
def test_what_is_almost_an_inquiry_is_none(record: bytes) -> None:
    try:
        assert isinstance(wire.parse_question(record), Question)
    except WireError:
        pass


@pytest.mark.parametrize(
    "record",
    [b"", b"a\0b\0c", b"a\0b\0", b"a\0b\0c\0d\0", b"a\0b\0c\0d", b"x" * 3000 + b"\0b\0c\0"],
)
def test_hostile_question(record: bytes) -> None:
    with pytest.raises(WireError):
        wire.parse_question(record)


def test_question_s_repr_hides_the_password() -> None:
    assert "swordfish" not in repr(Question(b"pop3", b"alice", b"swordfish"))


def test_answers() -> None:
    assert wire.parse_answer(wire.pack_right(ALICE)) == ALICE
    assert wire.parse_answer(wire.REFUSED) is None
    with pytest.raises(WireError, match="for now"):
        wire.parse_answer(wire.TEMPORARY)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"0",
        b"2",
        b"1x",
        b"0a\x0020000\x0020000\0/home\0/bin/sh",
        b"0a\x0020000\x0020000\0/home\0/bin/sh\0x",
        b"0a\x0020000\x0020000\0/home\0",
        b"0\x0020000\x0020000\0/home\0/bin/sh\0",
        b"0a\x0020000\x0020000\0home\0/bin/sh\0",
        b"0a\x00-1\x0020000\0/home\0/bin/sh\0",
        b"0a\x002e4\x0020000\0/home\0/bin/sh\0",
        b"0a\x00\xc2\xb2\x0020000\0/home\0/bin/sh\0",  # a superscript two
        b"0\xff\x0020000\x0020000\0/home\0/bin/sh\0",
        b"0a\x0099999999999\x0020000\0/home\0/bin/sh\0",
    ],
)
def test_hostile_answer(record: bytes) -> None:
    with pytest.raises(WireError):
        wire.parse_answer(record)


@pytest.mark.parametrize(
    ("uid", "gid"),
    [
        *[(0, 20000), (20000, 0), (999, 20000), (20000, 999)],
        # The mail system's own, by their numbers in the image: qmails, checkpw, group qmail.
        *[(7796, 20000), (7802, 7802), (20000, 2107)],
    ],
)
def test_verifier_cannot_make_a_system_user_of_anybody(uid: int, gid: int) -> None:
    with pytest.raises(WireError, match="refusing"):
        wire.parse_answer(wire.pack_right(ALICE._replace(uid=uid, gid=gid)))
