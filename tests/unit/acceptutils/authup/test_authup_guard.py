"""The broker asks the guard before each attempt, and tells it what came of it."""

import base64
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from acceptutils.authup import broker, record
from acceptutils.guard import client as guard_client
from acceptutils.guard import wire
from acceptutils.guard.wire import Answer, Outcome, Question

GREETING = b"220 mail.example.org ESMTP\r\n"
BAD_AUTH = b"535 authup authorization failed (#5.7.0)\r\n"
PATIENCE = 20.0

Start = Any  # the fixture authup: see conftest

root_only = pytest.mark.skipif(os.getuid() != 0, reason="changes its uid")


def plain(password: bytes, user: bytes = b"alice") -> bytes:
    return b"AUTH PLAIN " + base64.b64encode(b"\0" + user + b"\0" + password)


class FakeGuard:
    """A guard that the test answers for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        path.chmod(0o666)
        self._listener.listen()
        self._listener.settimeout(PATIENCE)
        self._broker: socket.socket | None = None

    @property
    def env(self) -> dict[str, str]:
        return {
            "AUTHGUARD_SOCKET": str(self.path),
            "TCPREMOTEIP": "192.0.2.1",
            "CHECKPASSWORD_SERVICE": "submission",
        }

    def asked(self) -> Question:
        """Wait for the next question and return it."""
        self.forget()
        self._broker, _ = self._listener.accept()
        self._broker.settimeout(PATIENCE)
        return wire.parse_question(self._broker.recv(wire.QUESTION_LIMIT + 1))

    def answer(self, *, refused: bool = False, milliseconds: int = 0) -> None:
        assert self._broker
        self._broker.send(wire.pack_answer(Answer(refused, milliseconds)))

    def told(self) -> bytes:
        """Return what the broker says of the outcome; nothing when it hung up without."""
        assert self._broker
        return self._broker.recv(99)

    def is_silent(self) -> bool:
        return not select.select([self._broker], [], [], 0)[0]

    def forget(self) -> None:
        if self._broker:
            self._broker.close()
            self._broker = None

    def close(self) -> None:
        self.forget()
        self._listener.close()


@pytest.fixture
def guard(home: Path) -> Iterator[FakeGuard]:
    made = FakeGuard(home / "guard.sock")
    yield made
    made.close()


def test_question_names_service_address_and_account(authup: Start, guard: FakeGuard) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0", **guard.env)
    client.send(plain(b"wrong", b"Al ice\xff") + b"\r\n")
    assert guard.asked() == Question(b"submission", b"192.0.2.1", b"Al ice\xff")
    guard.answer()
    client.expect(GREETING + BAD_AUTH)


@pytest.mark.parametrize(
    ("password", "told"),
    [
        (b"wrong", Outcome.FAILED.value),
        (b"exit 2", Outcome.FAILED.value),
        (b"exit 111", b""),
        (b"exit 127", b""),
        (b"kill", b""),
        (b"raise", b""),
    ],
)
def test_outcome_of_a_password_that_is_not_right(
    authup: Start, guard: FakeGuard, password: bytes, told: bytes
) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0", **guard.env)
    client.send(plain(password) + b"\r\n")
    guard.asked()
    guard.answer()
    assert guard.told() == told


@root_only
def test_right_password_is_told_before_the_session_ends(authup: Start, guard: FakeGuard) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0", **guard.env)
    client.send(plain(b"right") + b"\r\n")
    guard.asked()
    guard.answer()
    client.expect(GREETING + b"ready\r\n")
    assert guard.told() == Outcome.PASSED.value
    # And the session has no way to it any more.
    assert guard.told() == b""
    client.says(b"hello", b"<hello\r\n>")


@pytest.mark.parametrize(("status", "told"), [(1, b"-"), (111, b""), (0, b"+"), (7, b"+")])
def test_outcome_of_a_foreign_checkpassword(
    authup: Start, guard: FakeGuard, status: int, told: bytes
) -> None:
    client = authup("smtp", "sh", "-c", f"exit {status}", **guard.env)
    client.send(plain(b"x") + b"\r\n")
    guard.asked()
    guard.answer()
    assert guard.told() == told


def test_refused_attempt_runs_nothing_and_looks_like_a_wrong_password(
    authup: Start, guard: FakeGuard
) -> None:
    client = authup("-t", "2", "smtp", "checkpw", "session", "echo", "0", **guard.env)
    client.expect(GREETING)
    for _ in range(2):
        client.send(plain(b"right") + b"\r\n")
        guard.asked()
        guard.answer(refused=True)
        client.expect(BAD_AUTH)
    client.expect_end()
    assert client.status() == 1
    assert "blob" not in client.log()
    assert client.log().count("too many failures: this attempt is refused") == 2
    assert [line.split(" ip=")[0] for line in client.log_lines()][-1].endswith("0 remaining")


def test_attempt_is_made_when_the_wait_is_over(authup: Start, guard: FakeGuard) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0", **guard.env)
    client.send(plain(b"wrong") + b"\r\n")
    guard.asked()
    guard.answer(milliseconds=50)
    assert guard.told() == Outcome.FAILED.value
    client.expect(GREETING + BAD_AUTH)


@root_only
def test_end_of_the_parser_ends_the_wait(authup: Start, guard: FakeGuard) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0", **guard.env)
    broker_pid = client.broker()
    client.send(plain(b"right") + b"\r\n")
    guard.asked()
    guard.answer(milliseconds=60000)
    os.kill(client.pid, 9)
    assert guard.told() == b""
    client.wait_until(lambda: not Path(f"/proc/{broker_pid}/fd/0").exists())
    assert "blob" not in client.log()


def test_parser_that_goes_on_asking_does_not_shorten_the_wait(guard: FakeGuard) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        broker.serve(theirs, ["sh", "-c", "exit 1"], dict(guard.env), 3)
    theirs.close()
    asked = bytearray(record.REQUEST_SIZE)
    asked[0:1] = asked[record.WORD : record.WORD + 1] = b"x"
    for _ in range(2):
        socket.send_fds(ours, [asked], [0, 1])
    guard.asked()
    guard.answer(milliseconds=60000)
    ours.settimeout(0.3)
    with pytest.raises(TimeoutError):
        ours.recv(99)
    assert guard.is_silent()
    ours.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("answer", [b"", b"nonsense", b"+99999"])
def test_guard_that_makes_no_sense_keeps_nobody_out(
    authup: Start, guard: FakeGuard, answer: bytes
) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0", **guard.env)
    client.send(plain(b"right") + b"\r\n")
    guard.asked()
    assert guard._broker
    if answer:
        guard._broker.send(answer)
    else:
        guard.forget()
    client.expect(GREETING + b"ready\r\n")
    assert client.log().count("authup: this attempt is not guarded: ") == 1


def test_guard_that_does_not_answer_keeps_nobody_out(authup: Start, guard: FakeGuard) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0", **guard.env)
    client.send(plain(b"right") + b"\r\n")
    client.expect(GREETING + b"ready\r\n")
    assert "this attempt is not guarded" in client.log()


def test_guard_that_is_not_there_keeps_nobody_out(authup: Start, home: Path) -> None:
    path = str(home / "nobody.sock")
    client = authup("smtp", "checkpw", "session", "echo", "0", AUTHGUARD_SOCKET=path)
    client.send(plain(b"right") + b"\r\n")
    client.expect(GREETING + b"ready\r\n")
    assert f"not guarded: {path}: No such file or directory" in client.log()


def test_without_a_guard_nothing_is_said(authup: Start) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0")
    client.send(plain(b"right") + b"\r\n")
    client.expect(GREETING + b"ready\r\n")
    assert "guard" not in client.log()


def test_connection_is_never_the_descriptor_of_the_password(guard: FakeGuard) -> None:
    first = socket.socket()
    avoid = first.fileno()
    first.close()
    connection = guard_client._connection(avoid)
    assert connection.fileno() != avoid
    connection.close()
