"""qmail-clean: its commands, and what it leaves alone."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pyqmail.send import clean
from pyqmail.send.clean import Action

Queue = Any  # conftest.py


def run(queue: Queue, commands: bytes) -> bytes:
    """Run qmail-clean with commands and return its answers."""
    command_read, command_write = os.pipe()
    answer_read, answer_write = os.pipe()
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "ucspi", "qmail-clean"],
        queue.env,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, command_read, 0),
            (os.POSIX_SPAWN_DUP2, answer_write, 1),
        ],
    )
    os.close(command_read)
    os.close(answer_write)
    os.write(command_write, commands)
    os.close(command_write)
    answers = b""
    while more := os.read(answer_read, 100):
        answers += more
    os.close(answer_read)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return answers


def fill(queue: Queue, *names: str) -> None:
    for name in names:
        (queue.directory / name).write_bytes(b"x")


def test_foop_and_todo_remove_their_two_files(queue: Queue) -> None:
    fill(queue, "mess/1/24", "intd/24", "todo/24", "info/1/24", "mess/2/25", "intd/25", "todo/25")
    assert run(queue, b"foop/24\0todo/25\0") == b"++"
    assert queue.files() == ["info/1/24", "mess/2/25", "todo/24"]


def test_the_space_of_small_files_is_given_back_when_there_is_time(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(queue.directory)
    monkeypatch.setattr(clean, "MOST_HELD", 2)
    fill(queue, "mess/1/24", "mess/2/25", "mess/3/26", "mess/4/27", "mess/0/23")
    os.truncate("mess/0/23", clean.LARGE + 1)
    removed = clean.Removed()
    for number in (23, 24, 25, 26, 27, 28):
        assert clean.answer(b"foop/%d" % number, removed) == b"+"
    assert queue.files() == []
    opened = [_name(n) for n in os.listdir("/proc/self/fd")]
    ours = [name for name in opened if name.startswith(str(queue.directory / "mess"))]
    names = sorted(name.removesuffix(" (deleted)")[-9:] for name in ours)
    assert names == ["mess/3/26", "mess/4/27"]
    removed.give_back()
    removed.give_back()
    assert not removed


def _name(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def test_it_gives_the_space_back_by_itself(queue: Queue) -> None:
    fill(queue, "mess/1/24", "mess/2/25")
    commands, ours = os.pipe()
    answers, theirs = os.pipe()
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "ucspi", "qmail-clean"],
        queue.env,
        file_actions=[(os.POSIX_SPAWN_DUP2, commands, 0), (os.POSIX_SPAWN_DUP2, theirs, 1)],
    )
    os.write(ours, b"foop/24\0foop/25\0")
    assert os.read(answers, 2) == b"++"
    until = time.monotonic() + 20
    while any("/mess/" in os.readlink(f) for f in Path(f"/proc/{pid}/fd").iterdir()):
        assert time.monotonic() < until
        time.sleep(0.01)
    for descriptor in (commands, ours, answers, theirs):
        os.close(descriptor)
    assert os.waitpid(pid, 0)[1] == 0


def test_what_is_gone_already_is_done(queue: Queue) -> None:
    assert run(queue, b"foop/24\0") == b"+"


def test_what_cannot_be_removed_is_said(queue: Queue) -> None:
    (queue.directory / "mess/1/24").mkdir()
    fill(queue, "intd/25")
    assert run(queue, b"foop/24\0todo/25\0") == b"!+"


@pytest.mark.parametrize(
    "command",
    [
        b"",
        b"foop/",
        b"foop/1x",
        b"foop/-1",
        b"foop/+1",
        b"foop//1",
        b"foop/../mess/1/24",
        b"mess/24",
        b"foop/" + b"1" * 21,
        b"foop/" + b"1" * 300,
    ],
)
def test_anything_else_is_no_command_and_touches_nothing(queue: Queue, command: bytes) -> None:
    fill(queue, "mess/1/24", "intd/24", "todo/24")
    assert run(queue, command + b"\0") == b"x"
    assert queue.files() == ["intd/24", "mess/1/24", "todo/24"]


def test_a_command_without_end_is_not_carried_out(queue: Queue) -> None:
    fill(queue, "mess/1/24")
    assert run(queue, b"foop/24") == b""
    assert queue.files() == ["mess/1/24"]


def test_abandoned_files_in_pid_go_with_the_first_command(queue: Queue) -> None:
    fill(queue, "pid/old", "pid/young")
    old = time.time() - clean.ABANDONED - 60
    os.utime(queue.directory / "pid/old", (old, old))
    assert run(queue, b"foop/1\0") == b"+"
    assert queue.files() == ["pid/young"]


def test_encoding_is_what_netqmail_sends() -> None:
    assert clean.encode(Action.TODO, 457) == b"todo/457\0"
    assert clean.decode(b"foop/457") == (Action.FOOP, 457)
