"""authguardd as a process: what it answers, to whom, and what it survives."""

import os
import select
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acceptutils.guard import daemon, events
from acceptutils.guard.policy import REFUSE_AT
from acceptutils.guard.wire import Answer, Outcome

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="answers root only")

Start = Callable[..., Any]  # the fixture start_guard

FREE = Answer(False, 0)


def fail_until_refused(guard: Any) -> None:
    for number in range(int(REFUSE_AT)):
        assert not guard.attempt(Outcome.FAILED, account=b"user%d" % number).refused


def test_failures_are_waited_for(start_guard: Start) -> None:
    guard = start_guard()
    answers = [guard.attempt(Outcome.FAILED) for _ in range(5)]
    assert [a.milliseconds // 1000 for a in answers] == [0, 0, 1, 2, 4]
    assert guard.attempt(Outcome.PASSED).milliseconds == 8000
    assert guard.attempt(None) == FREE


def test_address_is_refused_at_last_and_the_log_says_so_once(start_guard: Start) -> None:
    guard = start_guard()
    fail_until_refused(guard)
    assert guard.attempt(None).refused
    assert guard.attempt(Outcome.PASSED).refused
    assert guard.attempt(None).refused
    assert not guard.attempt(None, b"192.0.2.2").refused
    assert guard.log().count("authguardd: 192.0.2.1: too many failures") == 1


def test_allowed_networks(start_guard: Start) -> None:
    guard = start_guard("-a", "192.0.2.0/24,2001:db8::/32")
    fail_until_refused(guard)
    assert guard.attempt(None) == FREE


def test_restart_forgets(start_guard: Start) -> None:
    guard = start_guard()
    fail_until_refused(guard)
    os.kill(guard.pid, 9)
    os.waitid(os.P_PID, guard.pid, os.WEXITED | os.WNOWAIT)
    assert start_guard().attempt(None) == FREE


def test_broker_that_vanishes_counts_nothing(start_guard: Start) -> None:
    guard = start_guard()
    for _ in range(10):
        with guard.connect() as connection:
            guard.ask(connection)
    assert guard.attempt(None) == FREE


def test_attempts_at_the_same_time_wait(start_guard: Start) -> None:
    guard = start_guard()
    connections = [guard.connect() for _ in range(8)]
    waits = [guard.ask(connection).milliseconds for connection in connections]
    assert waits[:5] == [0] * 5
    assert waits[-1] > 0
    for connection in connections:
        connection.close()


def test_a_long_session_is_no_longer_an_attempt(start_guard: Start) -> None:
    def impatient() -> None:
        daemon.AWAITED_SECONDS = 0.01

    guard = start_guard(prepare=impatient)
    connections = [guard.connect() for _ in range(8)]
    # The last of them is asked when the one before is settled: its deadline is over first.
    for connection in connections:
        guard.ask(connection)
        while guard.attempt(None) != FREE:
            pass
    connections[0].send(Outcome.PASSED.value)
    assert connections[0].recv(1) == b""
    assert guard.attempt(None) == FREE
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("record", [b"x", b"\0" * 9000, b"a\0b\0c\0d\0"])
def test_what_is_no_question_ends_the_connection(start_guard: Start, record: bytes) -> None:
    guard = start_guard()
    with guard.connect() as connection:
        connection.send(record)
        assert connection.recv(9) == b""
    assert guard.attempt(None) == FREE
    assert "not what a broker says" in guard.log()


def test_what_is_no_outcome_counts_nothing(start_guard: Start) -> None:
    guard = start_guard()
    for _ in range(5):
        with guard.connect() as connection:
            guard.ask(connection)
            connection.send(b"?")
            assert connection.recv(9) == b""
    assert guard.attempt(None) == FREE


def test_who_connects_and_is_silent_is_let_go(start_guard: Start) -> None:
    def impatient() -> None:
        daemon.QUESTION_SECONDS = 0.01

    guard = start_guard(prepare=impatient)
    with guard.connect() as connection:
        assert connection.recv(9) == b""


def test_connections_are_bounded(start_guard: Start) -> None:
    def narrow() -> None:
        daemon.CONNECTION_LIMIT = 3

    guard = start_guard(prepare=narrow)
    kept = [guard.connect() for _ in range(3)]
    for connection in kept:
        guard.ask(connection)
    with guard.connect() as one_more:
        assert one_more.recv(9) == b""
    for connection in kept:
        connection.close()
    assert "one connection too many" in guard.log()


def test_a_crowd_comes_slowly(start_guard: Start) -> None:
    def narrow() -> None:
        daemon.CROWD = 2

    guard = start_guard("-a", "192.0.2.0/24", prepare=narrow)
    connections = [guard.connect() for _ in range(3)]
    waits = [guard.ask(connection).milliseconds for connection in connections]
    assert waits[0] in (0, 16000)  # whether the others were taken by then, or not
    assert waits[-1] == 16000
    for connection in connections:
        connection.close()


# Who may speak with it


def test_runs_as_its_own_user(start_guard: Start) -> None:
    status = Path(f"/proc/{start_guard().pid}/status").read_text()
    assert "Uid:\t7792\t7792\t7792\t7792\n" in status
    assert "Gid:\t2108\t2108\t2108\t2108\n" in status
    assert "Groups:\t2108 \n" in status


@pytest.mark.parametrize(("name", "mode"), [("guard.sock", 0o600), ("events.sock", 0o660)])
def test_sockets_are_root_s(start_guard: Start, name: str, mode: int) -> None:
    found = (start_guard().path.parent / name).stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, 0, mode)


def test_only_root_is_answered(start_guard: Start) -> None:
    guard = start_guard()
    guard.path.chmod(0o666)
    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(7800, 7800, 7800)
            with guard.connect() as connection:
                os._exit(len(connection.recv(9)))
        except BaseException:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert "turned away a process of uid 7800" in guard.log()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["socket"],
        ["-u", "1", "s", "e"],
        ["-u", "0", "-g", "0", "s", "e"],
        ["-a", "nonsense", "s", "e"],
        ["-n", "x", "s", "e"],
        ["s", "e"],  # as root
    ],
)
def test_misuse(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert daemon.main(["authguardd", *words], {}) == 100
    assert capfd.readouterr().err.startswith("authguardd: ")


def test_socket_that_cannot_be_made(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["-u", "7792", "-g", "2108", str(tmp_path / "no" / "s"), str(tmp_path / "e")]
    assert daemon.main(["authguardd", *words], {}) == 111
    assert "No such file or directory" in capfd.readouterr().err


# The event stream


def fields(line: bytes) -> dict[str, str]:
    pairs = (word.split("=") for word in line.decode().split())
    return dict(pairs)


def test_each_outcome_is_one_line_to_every_reader(start_guard: Start) -> None:
    guard = start_guard()
    readers = [guard.read_along() for _ in range(2)]
    guard.attempt(Outcome.FAILED, account=b"al ice\n")
    guard.attempt(Outcome.PASSED, b"2001:db8::1")
    for reader in readers:
        with reader, reader.makefile("rb") as lines:
            first, second = fields(lines.readline()), fields(lines.readline())
            assert first.pop("time").endswith("Z")
            assert first == {
                "service": "pop3",
                "ip": "192.0.2.1",
                "account": "al\\x20ice\\x0a",
                "outcome": "failed",
            }
            assert (second["ip"], second["outcome"]) == ("2001:db8::1", "passed")


def test_refusals_are_events(start_guard: Start) -> None:
    guard = start_guard()
    fail_until_refused(guard)
    with guard.read_along() as reader, reader.makefile("rb") as lines:
        guard.attempt(Outcome.FAILED)
        seen = {fields(lines.readline())["outcome"] for _ in range(3)}
        assert seen == {"refused"}


def test_reader_that_does_not_read_is_dropped_and_holds_up_nobody(start_guard: Start) -> None:
    guard = start_guard("-a", "192.0.2.0/24")
    with guard.read_along() as idle:
        for _ in range(5000):  # far more than a socket's buffer takes
            guard.attempt(Outcome.FAILED, account=b"\xff" * 300)
            if is_hung_up(idle):
                break
        assert is_hung_up(idle)
    assert guard.attempt(None) == FREE


def is_hung_up(connection: Any) -> bool:
    poll = select.poll()
    poll.register(connection, 0)
    return bool(poll.poll(0))


def test_reader_that_speaks_is_dropped(start_guard: Start) -> None:
    guard = start_guard()
    with guard.read_along() as reader:
        reader.send(b"hello")
        try:
            assert reader.recv(9) == b""
        except ConnectionResetError:
            pass  # what it said was never read
    assert guard.attempt(None) == FREE


def test_readers_are_bounded(start_guard: Start) -> None:
    guard = start_guard()
    readers = [guard.read_along() for _ in range(events.READER_LIMIT)]
    with guard.read_along() as one_more:
        assert one_more.recv(9) == b""
    for reader in readers:
        reader.close()
