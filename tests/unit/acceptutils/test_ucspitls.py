"""UCSPI-TLS, the application's side."""

import os
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptutils import ucspitls
from acceptutils.ucspitls import Availability, Descriptors, HandshakeError


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server behind this process."""
    monkeypatch.setattr(ucspitls, "provider", None)
    monkeypatch.setattr(ucspitls, "withdraw", None)


@pytest.mark.parametrize(
    ("env", "availability"),
    [
        ({}, Availability.UNAVAILABLE),
        ({"UCSPITLS": "-"}, Availability.UNAVAILABLE),
        ({"UCSPITLS": ""}, Availability.OPTIONAL),
        ({"UCSPITLS": "1"}, Availability.OPTIONAL),
        ({"UCSPITLS": "!!"}, Availability.OPTIONAL),
        ({"UCSPITLS": "!"}, Availability.REQUIRED),
        ({"UCSPITLS": "!", "DISABLETLS": ""}, Availability.UNAVAILABLE),
        ({"UCSPITLS": "", "DISABLETLS": "1"}, Availability.UNAVAILABLE),
        ({"DISABLETLS": "1"}, Availability.UNAVAILABLE),
    ],
)
def test_availability_is_read_and_removed(env: dict[str, str], availability: Availability) -> None:
    env = {"OTHER": "x", **env}
    assert ucspitls.take_availability(env) is availability
    assert env == {"OTHER": "x"}


@pytest.mark.parametrize(
    ("blob", "variables"),
    [
        (b"\0", []),
        (b"SSL_A=b\0\0", [("SSL_A", "b")]),
        (b"SSL_A=\0SSL_B=c=d\0\0", [("SSL_A", ""), ("SSL_B", "c=d")]),
        (b"SSL_A=b\0nothing\0=x\0SSL_C=d\0\0", [("SSL_A", "b"), ("SSL_C", "d")]),
        (b"SSL_A=b\0\0SSL_C=d\0\0", [("SSL_A", "b")]),
        (b"SSL_A=\xff\0\0", [("SSL_A", "\udcff")]),
    ],
)
def test_blob(blob: bytes, variables: list[tuple[str, str]]) -> None:
    assert ucspitls.parse_blob(blob) == variables


@pytest.mark.parametrize(
    "name",
    [
        *(b"PATH", b"LD_PRELOAD", b"CHECKPASSWORD_SOCKET", b"CHECKPASSWORD_STORE", b"QMAILQUEUE"),
        *(b"RELAYCLIENT", b"TCPREMOTEIP", b"AUTHUP_UID", b"UCSPITLS", b"SSLCTLFD"),
        *(b"SSL_CERT_FILE", b"SSL_CERT_DIR", b"SSL_", b"SSL_a", b"SSL_A B", b"SSL_\xc4", b"SSL"),
    ],
)
def test_an_engine_sets_no_variable_that_is_not_about_tls(name: bytes) -> None:
    # The one who asks may be root, with a checkpassword or an LD_PRELOAD still to come.
    assert ucspitls.parse_blob(name + b"=x\0SSL_A=b\0\0") == [("SSL_A", "b")]


@pytest.mark.parametrize("blob", [b"", b"A", b"A=b", b"A=b\0", b"A=b\0C=d\0"])
def test_unfinished_blob(blob: bytes) -> None:
    assert ucspitls.parse_blob(blob) is None


def test_blob_without_an_end_is_bounded() -> None:
    with pytest.raises(HandshakeError):
        ucspitls.parse_blob(b"A=" + b"x" * ucspitls.BLOB_LIMIT)


@given(
    st.dictionaries(
        st.text("ABC", min_size=1, max_size=5).map("SSL_".__add__),
        st.text("abc=", max_size=5),
        max_size=5,
    )
)
def test_variables_come_whole_in_any_order(variables: dict[str, str]) -> None:
    blob = "".join(f"{name}={value}\0" for name, value in variables.items()).encode() + b"\0"
    assert dict(ucspitls.parse_blob(blob) or []) == variables
    for cut in range(len(blob)):
        assert ucspitls.parse_blob(blob[:cut]) in (None, []) or not variables


class Engine:
    """A TLS engine's three descriptors, from outside."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair()
        in_read, self.write = os.pipe()
        self.read, out_write = os.pipe()
        self.application = Descriptors(theirs.detach(), in_read, out_write)

    def close(self) -> None:
        self.control.close()
        os.close(self.write)
        os.close(self.read)


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine, and the test's own 0 and 1 back when it is over."""
    saved = os.dup(0), os.dup(1)
    made = Engine()
    yield made
    made.close()
    for number, descriptor in enumerate(saved):
        os.dup2(descriptor, number)
        os.close(descriptor)


def named(descriptors: Descriptors) -> dict[str, str]:
    return {
        name: str(number)
        for name, number in zip(ucspitls.DESCRIPTOR_VARIABLES, descriptors, strict=True)
    }


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("lazily", [False, True])
def test_start(engine: Engine, lazily: bool) -> None:
    env = {"SSL_PROTOCOL": "stale", "OTHER": "x"}
    if lazily:
        ucspitls.provider = lambda: engine.application
    else:
        env |= named(engine.application)
    engine.control.sendall(b"SSL_PROTOCOL=TLSv1.3\0SSL_EMPTY=\0\0")
    ucspitls.start(env)
    assert env == {"SSL_PROTOCOL": "TLSv1.3", "SSL_EMPTY": "", "OTHER": "x"}
    assert engine.control.recv(9) == b"Y"
    os.write(engine.write, b"from the client")
    assert os.read(0, 99) == b"from the client"
    os.write(1, b"to the client")
    assert os.read(engine.read, 99) == b"to the client"
    assert not any(map(is_open, engine.application))
    assert ucspitls.provider is None


def test_variables_may_come_in_pieces(engine: Engine) -> None:
    env = named(engine.application)

    def dribble() -> None:
        for byte in b"SSL_A=b\0SSL_C=\0\0":
            engine.control.send(bytes([byte]))

    thread = threading.Thread(target=dribble)
    thread.start()
    ucspitls.start(env)
    thread.join()
    assert env == {"SSL_A": "b", "SSL_C": ""}


@pytest.mark.parametrize("sent", [b"", b"A=b\0"])
def test_end_of_file_is_a_failed_handshake(engine: Engine, sent: bytes) -> None:
    engine.control.sendall(sent)
    engine.control.shutdown(socket.SHUT_WR)
    env = named(engine.application)
    with pytest.raises(HandshakeError, match="failed"):
        ucspitls.start(env)
    assert env == {}
    assert not is_open(engine.application.control)


def test_handshake_that_takes_too_long(engine: Engine) -> None:
    engine.control.sendall(b"A=b\0")
    with pytest.raises(HandshakeError, match="too long"):
        ucspitls.start(named(engine.application), seconds=0.01)


@pytest.mark.parametrize(
    "env", [{}, {"SSLCTLFD": "5"}, {"SSLCTLFD": "5", "SSLREADFD": "x", "SSLWRITEFD": "7"}]
)
def test_no_engine(env: dict[str, str]) -> None:
    with pytest.raises(HandshakeError):
        ucspitls.start(env)


def refuse() -> Descriptors:
    raise OSError(11, "no zygote")


def test_engine_that_cannot_be_made() -> None:
    ucspitls.provider = refuse
    with pytest.raises(HandshakeError, match="no zygote"):
        ucspitls.start({})


def test_foreign_program_gets_real_descriptors(engine: Engine) -> None:
    ucspitls.provider = lambda: engine.application
    env = {"UCSPITLS": ""}
    ucspitls.materialise(env)
    assert env == {"UCSPITLS": "", **named(engine.application)}
    assert all(map(os.get_inheritable, engine.application))
    assert ucspitls.provider is None
    for descriptor in engine.application:
        os.close(descriptor)


def test_foreign_program_that_may_not_start_tls_gets_none() -> None:
    ucspitls.provider = refuse
    env: dict[str, str] = {}
    ucspitls.materialise(env)
    assert env == {}


def test_foreign_program_is_not_promised_what_cannot_be_made() -> None:
    ucspitls.provider = refuse
    env = {"UCSPITLS": "!"}
    ucspitls.materialise(env)
    assert env == {"UCSPITLS": "-"}


def test_discard_closes_what_was_promised(engine: Engine) -> None:
    withdrawn: list[bool] = []

    def withdraw() -> None:
        withdrawn.append(True)

    ucspitls.provider = refuse
    ucspitls.withdraw = withdraw
    env = {"OTHER": "x", **named(engine.application)}
    ucspitls.discard(env)
    assert env == {"OTHER": "x"}
    assert not any(map(is_open, engine.application))
    assert withdrawn == [True]
    ucspitls.discard(env)
    assert withdrawn == [True]
    with pytest.raises(HandshakeError):
        ucspitls.start(env)
