"""The process that asks: what it can say, what it cannot do, and that it ends in time."""

import os
import signal
import socket
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptutils import identity
from acceptutils.checkpassword import apart, wire
from acceptutils.checkpassword.apart import Found, Refused
from acceptutils.checkpassword.program import Unavailable
from acceptutils.checkpassword.wire import Identity

ALICE = Identity("alice@example.org", 20000, 20001, "/home/alice", "/bin/false")
PATIENCE = 20.0


def ask(
    check: Callable[[], Found | None],
    seconds: float = PATIENCE,
    ids: tuple[int, int] | None = None,
    kept: frozenset[int] = frozenset({2}),
) -> Found | None:
    return apart.ask(check, {}, "program", seconds=seconds, ids=ids, kept=kept)


def failing(error: BaseException) -> Callable[[], Found | None]:
    def check() -> Found | None:
        raise error

    return check


@pytest.mark.parametrize("found", [None, Found("alice"), Found("alice@example.org", ALICE)])
def test_what_the_check_says_arrives(found: Found | None) -> None:
    assert ask(lambda: found) == found


def test_the_check_runs_elsewhere() -> None:
    assert ask(lambda: Found(str(os.getpid()))) != Found(str(os.getpid()))


def test_a_check_that_cannot_say_has_logged_it(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Unavailable) as raised:
        ask(failing(Unavailable("no server")))
    assert (str(raised.value), capfd.readouterr().err) == ("", "program: no server\n")


def test_a_refusal_with_a_reason_is_logged(capfd: pytest.CaptureFixture[str]) -> None:
    assert ask(failing(Refused("alice: refusing uid 0"))) is None
    assert capfd.readouterr().err == "program: alice: refusing uid 0\n"


def test_a_crash_is_no_refusal_and_quotes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Unavailable):
        ask(failing(RuntimeError("swordfish")))
    assert capfd.readouterr().err == "program: RuntimeError\n"


def test_a_killed_process_is_no_refusal() -> None:
    with pytest.raises(Unavailable, match="without an answer"):
        ask(lambda: os.kill(os.getpid(), signal.SIGKILL))  # type: ignore[func-returns-value]


def test_what_hangs_is_killed_and_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    forked: list[int] = []
    fork = os.fork
    monkeypatch.setattr(os, "fork", lambda: forked.append(fork()) or forked[-1])
    with pytest.raises(Unavailable, match=r"within 0.05 seconds"):
        ask(signal.pause, seconds=0.05)  # type: ignore[arg-type]
    with pytest.raises(ChildProcessError):
        os.waitpid(forked[0], os.WNOHANG)


@pytest.mark.parametrize(
    "found",
    [Found(""), Found("x" * 9000), Found("a\0b"), Found("x", ALICE._replace(uid=0))],
)
def test_an_answer_that_cannot_be_one(found: Found) -> None:
    with pytest.raises(Unavailable):
        ask(lambda: found)


@pytest.mark.parametrize(
    "record", [b"x", b"n", b"nalice", b"na\0b\0", b"n\xff\0", b"0root\x000\x000\0/\0/bin/sh\0"]
)
def test_a_hostile_process(record: bytes) -> None:
    def check() -> Found | None:
        (channel,) = (n for n in range(3, 64) if _is_socket(n))
        with socket.socket(fileno=channel) as answer:
            answer.send(record)
        os._exit(0)

    with pytest.raises(Unavailable):
        ask(check)


@given(
    st.binary(max_size=60).flatmap(lambda rest: st.sampled_from([rest, b"n" + rest, b"0" + rest]))
)
def test_no_record_does_more_than_fail(record: bytes) -> None:
    try:
        found = apart._read(record)
    except Unavailable:
        return
    assert (found is None) == (record == wire.REFUSED)
    assert found is None or found.identity is None or found.identity.uid >= wire.FIRST_ID


def _is_socket(descriptor: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
    except OSError:
        return False


def test_it_has_no_descriptor_of_the_session() -> None:
    ours = [*os.pipe(), *socket.socketpair()]

    def check() -> Found:
        left = {os.readlink(f"/proc/self/fd/{n}") for n in range(2000) if _is_open(n) and n != 2}
        return Found(" ".join(sorted(name.partition(":")[0] for name in left)))

    assert ask(check) == Found("/dev/null socket")
    for one in ours:
        os.close(one if isinstance(one, int) else one.detach())


def test_it_has_no_variables_that_a_library_could_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "disable")
    path = "/usr/bin:/bin:/var/qmail/bin"
    assert ask(lambda: Found(str(dict(os.environ)))) == Found(str({"HOME": "/", "PATH": path}))
    assert os.environ["PGSSLMODE"] == "disable"


def test_it_keeps_what_it_is_told_to() -> None:
    reading, writing = os.pipe()
    assert ask(lambda: Found(str(_is_open(writing))), kept=frozenset({2, writing})) == Found("True")
    os.close(reading)
    os.close(writing)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
def test_it_is_somebody_else_and_nobody_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr(identity, "afterwards", [lambda: os.write(writing, b"passed")])
    who = ask(lambda: Found(f"{os.getuid()} {os.getgid()} {os.getgroups()}"), ids=(7802, 7803))
    assert who == Found("7802 7803 [7803]")
    os.close(writing)
    assert os.read(reading, 99) == b""
    os.close(reading)
    assert len(identity.afterwards) == 1
    assert os.getuid() == 0


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
def test_it_does_not_stay_root_by_mistake(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Unavailable):
        ask(lambda: Found("alice"), ids=(0, 7802))
    assert "refusing to become uid 0" in capfd.readouterr().err


def test_records_of_the_wire_do_not_collide() -> None:
    assert {wire.REFUSED, wire.TEMPORARY, b"0"}.isdisjoint({apart._NAMED})
