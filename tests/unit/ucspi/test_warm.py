"""Children that run a program more than once: nothing of one run is left for the next."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator

import pytest

from ucspi import chain, warm

Program = Callable[[list[str], dict[str, str]], int]


def tell(argv: list[str], env: dict[str, str]) -> int:
    """Write what a run can see of itself; exit with the number in argv."""
    mask = os.umask(0)
    os.umask(mask)
    seen = [str(os.getpid()), os.getcwd(), f"{mask:03o}", " ".join(argv), str(sorted(env.items()))]
    with os.fdopen(os.dup(1), "w") as out:
        out.write("\n".join(seen))
    return int(argv[1]) if len(argv) > 1 else 0


def litter(argv: list[str], env: dict[str, str]) -> int:
    """Leave behind all that a program can leave behind."""
    os.chdir("/tmp")
    os.umask(0o777)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    for _ in range(20):
        os.open("/dev/null", os.O_RDWR)
    env["LEFT"] = "behind"
    return 3


def descriptors(argv: list[str], env: dict[str, str]) -> int:
    """Write which descriptors are open."""
    os.write(1, " ".join(sorted(os.listdir("/proc/self/fd"), key=int)).encode())
    return 0


def explode(argv: list[str], env: dict[str, str]) -> int:
    raise RuntimeError("boom")


def die(argv: list[str], env: dict[str, str]) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def leave(argv: list[str], env: dict[str, str]) -> int:
    os._exit(7)


def copy(argv: list[str], env: dict[str, str]) -> int:
    while data := os.read(0, 65536):
        os.write(1, data)
    return 0


def become(argv: list[str], env: dict[str, str]) -> int:
    return chain.execute(["sh", "-c", "exit 9"], {"PATH": "/bin:/usr/bin"})


def nest(argv: list[str], env: dict[str, str]) -> int:
    """Use a child of one's own."""
    child = warm.spawn(["tell"], env, {0: 0, 1: 1})
    return child.wait() or 0


PROGRAMS: dict[str, Program] = {
    function.__name__: function
    for function in (tell, litter, descriptors, explode, die, leave, copy, become, nest)
}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(chain, "_targets", dict.fromkeys(PROGRAMS, "none:none"))
    monkeypatch.setattr(chain, "_loaded", dict(PROGRAMS))
    monkeypatch.setattr(chain, "_names", {})
    monkeypatch.setattr(warm, "uses", 3)
    yield
    for siblings in warm._idle.values():
        for pid, channel, _ in siblings:
            channel.close()
            os.waitpid(pid, 0)
    warm._idle.clear()


def run(argv: list[str], data: bytes = b"", env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a program in a child; return its status and what it wrote."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    child = warm.spawn(argv, {} if env is None else env, {0: theirs_in, 1: theirs_out})
    os.close(theirs_in)
    os.close(theirs_out)
    os.write(ours_out, data)
    os.close(ours_out)
    said = b""
    while more := os.read(ours_in, 65536):
        said += more
    os.close(ours_in)
    status = child.wait()
    assert status is not None
    return status, said.decode()


def pid_of(said: str) -> int:
    return int(said.partition("\n")[0])


def test_a_child_runs_its_program_so_often_and_no_more() -> None:
    pids = [pid_of(run(["tell"])[1]) for _ in range(4)]
    assert pids[0] == pids[1] == pids[2] != pids[3]
    assert pids[0] != os.getpid()


def test_without_uses_every_run_has_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "uses", 1)
    assert pid_of(run(["tell"])[1]) != pid_of(run(["tell"])[1])
    assert not warm.kept()


def test_each_run_has_its_arguments_environment_directory_and_mask(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(["tell", "5", "", "a b"], env={"A": "1", "B": "x=y\n"})
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o027)
    try:
        second = run(["tell", "6"], env={"C": "\udcff"})
    finally:
        os.umask(before)
    assert first[0] == 5
    assert first[1].split("\n")[3:] == ["tell 5  a b", "[('A', '1'), ('B', 'x=y\\n')]"]
    assert second[0] == 6
    assert second[1].split("\n")[1:4] == [str(tmp_path), "027", "tell 6"]
    assert second[1].endswith("[('C', '\\udcff')]")
    assert pid_of(first[1]) == pid_of(second[1])


def test_what_a_run_leaves_behind_is_gone() -> None:
    assert run(["litter"])[0] == 3
    warm._idle["descriptors"] = warm._idle.pop("litter")  # the same process, another program
    time.sleep(0.1)  # an alarm of the first run would go off now
    status, said = run(["descriptors"])
    assert status == 0
    fresh = run(["descriptors"])[1]
    assert said.split()[:3] == ["0", "1", "2"]
    assert len(said.split()) == len(fresh.split()) == 5  # the channel, and the listing itself


def test_a_run_sees_the_end_of_its_input_though_others_wait() -> None:
    assert run(["copy"], b"one") == (0, "one")
    first = warm._idle["copy"][0][0]
    assert run(["copy"], b"two") == (0, "two")
    assert warm._idle["copy"][0][0] == first


@pytest.mark.parametrize(
    ("program", "status"),
    [("explode", chain.EXIT_TEMPORARY), ("die", -signal.SIGKILL), ("leave", 7), ("become", 9)],
)
def test_what_is_no_ordinary_return_ends_the_child(program: str, status: int) -> None:
    assert run([program])[0] == status
    assert not warm.kept()
    assert run([program])[0] == status


def test_a_child_that_died_while_it_waited_is_replaced() -> None:
    run(["tell"])
    pid = warm._idle["tell"][0][0]
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    status, said = run(["tell"])
    assert status == 0
    assert pid_of(said) != pid


def test_more_than_a_packet_holds_gets_a_fresh_child() -> None:
    run(["tell"])
    status, said = run(["tell", "0"], env={"LONG": "x" * warm.PACKET_LIMIT})
    assert status == 0
    assert len(said) > warm.PACKET_LIMIT


def test_waiting_has_a_limit_and_a_late_run_can_be_killed() -> None:
    theirs, ours = os.pipe()
    child = warm.spawn(["copy"], {}, {0: theirs, 1: 2})
    os.close(theirs)
    assert child.wait(0.05) is None
    child.kill(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    os.close(ours)
    assert not warm.kept()


def test_a_child_may_have_children_of_its_own() -> None:
    first, second = run(["nest"])[1], run(["nest"])[1]
    assert pid_of(first) == pid_of(second)
    assert pid_of(first) != warm._idle["nest"][0][0]


def test_a_forked_process_leaves_its_parents_children_alone() -> None:
    run(["tell"])
    pid = os.fork()
    if not pid:
        status = 1
        try:
            status = 0 if not warm.kept() else 2
        except BaseException:
            traceback.print_exc(file=sys.stderr)
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert run(["tell"])[0] == 0
