"""Rehearsals: run before the forks, for nobody, and nothing of them is left."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from ucspi import chain, rehearsal
from ucspi.rehearsal import ROUNDS, Stage


def identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def test_stage_has_a_client_that_has_hung_up() -> None:
    with Stage(b"QUIT\r\n"):
        heard = os.read(0, 100), os.read(0, 100)
        os.write(1, b"221\r\n")
    assert heard == (b"QUIT\r\n", b"")


def test_stage_leaves_nothing_behind(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = [identity(standard) for standard in (0, 1, 2)]
    opened = set(os.listdir("/proc/self/fd"))
    here = os.getcwd()
    with pytest.raises(ZeroDivisionError), Stage(b""):
        os.chdir(tmp_path)
        os.write(1, b"reply\n")
        os.write(2, b"log line\n")
        raise ZeroDivisionError
    assert [identity(standard) for standard in (0, 1, 2)] == before
    assert set(os.listdir("/proc/self/fd")) == opened
    assert os.getcwd() == here
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> dict[str, SimpleNamespace]:
    """Return the modules of the programs that are registered, to be filled."""
    modules: dict[str, SimpleNamespace] = {}
    monkeypatch.setattr(chain, "program_name", lambda word: word if word in modules else None)
    monkeypatch.setattr(chain, "module_of", modules.__getitem__)
    return modules


def test_each_program_rehearses_its_own_part(programs: dict[str, SimpleNamespace]) -> None:
    seen: list[tuple[list[str], dict[str, str]]] = []

    def rehearse(argv: list[str], env: dict[str, str]) -> None:
        seen.append((argv, dict(env)))
        env["TRACE"] = "of a rehearsal"

    programs["one"] = programs["two"] = SimpleNamespace(rehearse=rehearse)
    programs["three"] = SimpleNamespace()
    env = {"A": "b"}
    rehearsal.run(["one", "-x", "foreign", "three", "two", "y"], env)
    assert seen[:ROUNDS] == [(["one", "-x", "foreign", "three", "two", "y"], {"A": "b"})] * ROUNDS
    assert seen[ROUNDS:] == [(["two", "y"], {"A": "b"})] * ROUNDS
    assert env == {"A": "b"}


def test_failed_rehearsal_is_one_line_and_the_next_takes_place(
    programs: dict[str, SimpleNamespace], capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[list[str]] = []

    def fail(argv: list[str], env: dict[str, str]) -> None:
        raise OSError(2, "no such thing")

    programs["bad"] = SimpleNamespace(rehearse=fail)
    programs["good"] = SimpleNamespace(rehearse=lambda argv, env: seen.append(argv))
    rehearsal.run(["bad", "good"], {})
    assert seen == [["good"]] * ROUNDS
    assert capfd.readouterr().err == "bad: rehearsal: FileNotFoundError: [Errno 2] no such thing\n"
