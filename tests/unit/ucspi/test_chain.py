"""The rest of a command line: called when it is ours, executed when it is not."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ucspi import chain


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Know only the program ``ours``, and no hooks."""
    monkeypatch.setattr(chain, "_targets", {"ours": "unused:main"})
    monkeypatch.setattr(chain, "_loaded", {"ours": ours})
    monkeypatch.setattr(chain, "before_execute", [])


def ours(argv: list[str], env: dict[str, str]) -> int:
    os.write(1, repr((argv, env.get("X"))).encode())
    return int(argv[-1])


def in_child(work: Callable[[], int]) -> tuple[int, bytes, str]:
    """Run work in a child: its exit status, output and log."""
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            os.dup2(out_write, 1)
            os.dup2(err_write, 2)
            status = work()
        finally:
            os._exit(status)
    os.close(out_write)
    os.close(err_write)
    with open(out_read, "rb") as out, open(err_read) as err:
        output, log = out.read(), err.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output, log


def run(*argv: str, **env: str) -> tuple[int, bytes, str]:
    return in_child(lambda: chain.run(list(argv), {"PATH": "/usr/bin:/bin", **env}))


# Whose program it is


def test_bare_name_is_ours_when_it_is_registered() -> None:
    assert chain.program_name("ours") == "ours"
    assert chain.program_name("theirs") is None
    assert chain.program_name("") is None


def test_path_is_ours_only_when_it_leads_to_the_launcher(tmp_path: Path) -> None:
    launcher = tmp_path / "launch"
    launcher.touch()
    link = tmp_path / "ours"
    link.symlink_to("launch")
    foreign = tmp_path / "local" / "ours"
    foreign.parent.mkdir()
    foreign.touch()
    unregistered = tmp_path / "theirs"
    unregistered.symlink_to("launch")
    assert chain.program_name(str(link)) == "ours"
    assert chain.program_name(str(foreign)) is None
    assert chain.program_name(str(unregistered)) is None
    assert chain.program_name("./ours") is None


def test_load_imports_the_registered_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "_targets", {"gcd": "math:gcd"})
    monkeypatch.setattr(chain, "_loaded", {})
    chain.load(["theirs", "gcd", "-x"])
    assert set(chain._loaded) == {"gcd"}


# run


def test_own_program_is_called_in_this_process() -> None:
    assert run("ours", "a", "7", X="y") == (7, b"(['ours', 'a', '7'], 'y')", "")


def test_foreign_program_is_executed_with_this_environment() -> None:
    assert run("sh", "-c", "echo $X $0 $1; exit 9", "zero", "one", X="y") == (
        9,
        b"y zero one\n",
        "",
    )


def test_nothing_to_run_is_misuse() -> None:
    assert run() == (100, b"", "usage: no program to run\n")


def test_program_that_is_not_there() -> None:
    assert run("no-such-program") == (127, b"", "no-such-program: not found\n")
    assert run("/no/such") == (127, b"", "/no/such: not found\n")


def test_program_that_cannot_be_executed(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("x")
    assert run(str(plain))[0] == 126
    assert run("plain", PATH=f"/nonexistent:{tmp_path}:/etc/passwd")[0] == 126


def test_program_of_a_format_that_nothing_runs(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("x")
    plain.chmod(0o755)
    status, _, log = run(str(plain))
    assert status == 111
    assert log.startswith(f"{plain}: ")


def test_path_is_searched_in_order(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        script = tmp_path / name / "prog"
        script.write_text(f"#!/bin/sh\necho {name}\n")
        script.chmod(0o755)
    assert run("prog", PATH=f"{tmp_path}/one:{tmp_path}/two")[1] == b"one\n"
    (tmp_path / "one" / "prog").chmod(0o644)
    assert run("prog", PATH=f"{tmp_path}/one:{tmp_path}/two")[1] == b"two\n"


def test_foreign_program_finds_the_signals_as_they_were() -> None:
    show = (
        "import signal as s; print([s.getsignal(n) is s.SIG_DFL for n in (s.SIGXFSZ, s.SIGCHLD)])"
    )

    def work() -> int:
        for number in chain.RESTORED_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        script = f"kill -PIPE $$; echo survived | {sys.executable} -c '{show}'"
        return chain.run(["sh", "-c", script], {"PATH": "/usr/bin:/bin"})

    assert in_child(work)[:2] == (-signal.SIGPIPE, b"")


def test_hooks_run_before_execution_only() -> None:
    def hook(env: dict[str, str]) -> None:
        env["X"] = "hooked"

    chain.before_execute.append(hook)
    assert run("sh", "-c", "echo $X")[1] == b"hooked\n"
    assert run("ours", "0", X="y")[1] == b"(['ours', '0'], 'y')"


# spawn


def spawn(argv: list[str], descriptors: dict[int, int]) -> int:
    pid = chain.spawn(argv, {"PATH": "/usr/bin:/bin"}, descriptors)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("argv", [["ours", "5"], ["sh", "-c", "exit 5"]])
def test_spawned_program_s_status(argv: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert spawn(argv, {}) == 5


def test_spawned_program_s_exception_is_a_line_and_a_failure_for_now(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(argv: list[str], env: dict[str, str]) -> int:
        raise ZeroDivisionError("no")

    monkeypatch.setattr(chain, "_loaded", {"ours": broken})
    assert spawn(["ours"], {}) == 111
    assert capfd.readouterr().err == "ours: ZeroDivisionError: no\n"


def test_spawned_program_gets_its_descriptors_and_none_of_ours() -> None:
    def work() -> int:
        chain.close_all_but({0, 1, 2})
        ours, theirs = os.pipe()
        looks = f"test -e /proc/$$/fd/50 -a ! -e /proc/$$/fd/{ours} -a ! -e /proc/$$/fd/{theirs}"
        return spawn(["sh", "-c", looks], {50: theirs})

    assert in_child(work) == (0, b"", "")


# place


def number_of(descriptor: int) -> bytes:
    return os.pread(descriptor, 9, 0)


def test_descriptors_can_change_places(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)

    def work() -> int:
        chain.close_all_but({0, 1, 2})
        three, four, five = (os.open(tmp_path / name, os.O_RDONLY) for name in ("a", "b", "c"))
        chain.place({three: four, four: five, five: three})
        found = b"".join(map(number_of, (three, four, five)))
        inheritable = all(map(os.get_inheritable, (three, four, five)))
        return 0 if (found, inheritable) == (b"bca", True) else 1

    assert in_child(work)[0] == 0


def test_descriptor_that_is_in_its_place_stays_and_becomes_inheritable() -> None:
    def work() -> int:
        reading, _ = os.pipe()
        chain.place({reading: reading})
        return 0 if os.get_inheritable(reading) else 1

    assert in_child(work)[0] == 0


def test_placed_descriptor_is_not_left_in_its_old_place() -> None:
    def work() -> int:
        reading, _ = os.pipe()
        chain.place({60: reading})
        try:
            os.fstat(reading)
        except OSError:
            return 0 if os.get_inheritable(60) else 2
        return 1

    assert in_child(work)[0] == 0


def test_one_descriptor_in_two_places() -> None:
    def work() -> int:
        reading, _ = os.pipe()
        chain.place({60: reading, 61: reading})
        return 0 if os.path.sameopenfile(60, 61) else 1

    assert in_child(work)[0] == 0
