"""qmail-send at the head of a very long queue."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from pyqmail.queue import layout

MESSAGES = 100_000
MEMORY = 150 << 10  # KiB, at most, at any time; Python itself has some 25
IN_MEMORY = "/dev/shm"  # or the making of so many files would take longer than the test
FIRST = 10_000_000  # number of a message; above those that the file system gives

pytestmark = pytest.mark.skipif(not os.access(IN_MEMORY, os.W_OK), reason="needs /dev/shm")


def fill(directory: Path) -> None:
    """Put messages into the queue that are due in an hour; all have the same three files."""
    contents = {"mess": b"Subject: x\n\n", "info": b"Fs@x\0", "remote": b"Ta@far.example\0"}
    due = time.time() + 3600
    for name, content in contents.items():
        first = f"{directory}/{name}/one"
        Path(first).write_bytes(content)
        os.utime(first, (due, due))
        for number in range(FIRST, FIRST + MESSAGES):
            os.link(first, f"{directory}/{layout.split(name, number)}")
        os.unlink(first)


def peak(pid: int) -> int:
    """Return the most memory a process has had, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def test_a_hundred_thousand_messages_do_not_hold_up_a_new_one(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", IN_MEMORY)
    queue: Any = request.getfixturevalue("queue")
    fill(queue.directory)
    number = queue.put(b"s@x", b"ann@mx.example.org")
    send = request.getfixturevalue("start")()
    request_for_ann = send.local.request()
    assert request_for_ann.message.endswith(b"/%d" % number)
    assert peak(send.pid) < MEMORY
    send.local.report(request_for_ann, b"K\n")
    send.wait_log(rb"^end msg %d$" % number)
    assert send.remote.quiet()
    send.signal(signal.SIGTERM)
    assert send.wait() == 0
    # The times that they are due at are still there.
    last = queue.directory / layout.split("remote", FIRST + MESSAGES - 1)
    assert last.stat().st_mtime > time.time() + 1800
