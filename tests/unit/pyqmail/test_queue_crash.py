"""Kill the queue server at each system call that touches the queue, and look what is left.

strace attaches to the running server and sends KILL as the Nth call of one kind begins.
Whatever the moment: a message that was acknowledged is there, whole; what was not
acknowledged is there whole or not at all; and a new server goes on.
"""

import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pyqmail.queue import client, layout

Queue = Any  # conftest.py
DEADLINE = 20  # seconds
MESSAGE = b"Subject: precious\n\n" + b"0123456789abcdef" * 100 + b"\n"
SENDER, RECIPIENT = b"joe@example.org", b"ann@example.net"

LOOP, COMMITTER = 0, 1  # the server's threads, in the order of their start

# (thread, system call, which one of the thread after attaching, what the kill comes before)
POINTS = [
    (LOOP, "accept4", 1, "the connection is taken"),
    (LOOP, "recvfrom", 1, "anything is read"),
    (LOOP, "openat", 1, "pid/X is made"),
    (LOOP, "link", 1, "mess/N is linked"),
    (LOOP, "unlink", 1, "pid/X is removed"),
    (LOOP, "write", 1, "the message is written"),
    (LOOP, "openat", 2, "intd/N is made"),
    (LOOP, "write", 2, "the envelope is written"),
    (COMMITTER, "sync_file_range", 1, "the disk has been started"),
    (COMMITTER, "fsync", 1, "the message is on disk"),
    (COMMITTER, "fsync", 2, "the envelope is on disk"),
    (COMMITTER, "fsync", 3, "the name mess/N is on disk"),
    (COMMITTER, "link", 1, "todo/N is linked"),
    (COMMITTER, "fsync", 4, "the name todo/N is on disk"),
    (COMMITTER, "write", 1, "the loop is told"),
    (LOOP, "sendto", 1, "the answer is sent"),
]
QUEUED = [(COMMITTER, "fsync", 4), (COMMITTER, "write", 1), (LOOP, "sendto", 1)]


def strace_works() -> bool:
    program = shutil.which("strace")
    if program is None:
        return False
    done = subprocess.run([program, "-qq", "-o", os.devnull, "true"], check=False)
    return done.returncode == 0


needs_strace = pytest.mark.skipif(not strace_works(), reason="needs strace and ptrace")


@contextmanager
def injected(pid: int, thread: int, call: str, when: int, what: str) -> Iterator[None]:
    """While the body runs, have the when-th call of a thread of pid disturbed."""
    tid = sorted(map(int, os.listdir(f"/proc/{pid}/task")))[thread]
    tracer = subprocess.Popen(
        ["strace", "-o", os.devnull, "-p", str(tid), "-e", f"trace={call}"]
        + ["-e", f"inject={call}:{what}:when={when}"],
        stderr=subprocess.PIPE,
    )
    assert tracer.stderr is not None
    try:
        readable, _, _ = select.select([tracer.stderr], [], [], DEADLINE)
        assert readable and b"attached" in tracer.stderr.readline()
        yield
    finally:
        tracer.terminate()
        tracer.wait()
        tracer.stderr.close()


def check(queue: Queue, acknowledged: int) -> None:
    """Every message in todo is whole, and there are at least those acknowledged."""
    queued = queue.queued()
    assert len(queued) >= acknowledged
    for number, (message, envelope) in queued.items():
        assert message.partition(b"\n")[2] == MESSAGE
        assert envelope.split(b"\0")[2:] == [b"F" + SENDER, b"T" + RECIPIENT, b""]
        assert os.stat(queue.directory / layout.mess(number)).st_ino == number
    known = {str(number) for number in queued}
    names = [Path(name) for name in queue.files()]
    mess = {name.name for name in names if name.parts[0] == "mess"}
    assert known <= mess
    # S1 to S4 of INTERNALS: no envelope without its message, nothing else at all.
    assert {name.name for name in names if name.parts[0] == "intd"} <= mess
    assert {name.parts[0] for name in names} <= {"pid", "mess", "intd", "todo"}


def inject(queue: Queue) -> client.Result:
    injection = client.open_queue(queue.env)
    injection.write(MESSAGE)
    return injection.finish(SENDER, [RECIPIENT])


@needs_strace
@pytest.mark.parametrize(("thread", "call", "when", "before"), POINTS)
def test_server_killed_before(queue: Queue, thread: int, call: str, when: int, before: str) -> None:
    pid = queue.start_server()
    with injected(pid, thread, call, when, "signal=KILL"):
        result = inject(queue)
        assert queue.wait(pid) == -signal.SIGKILL
    assert result.status in (73, 74), before  # temporary, so the client tries again
    queued = (thread, call, when) in QUEUED
    check(queue, 0)
    assert len(queue.queued()) == queued
    queue.start_server()
    assert inject(queue).status == 0
    check(queue, 1 + queued)


def test_acknowledged_when_killed_after_the_answer(queue: Queue) -> None:
    pid = queue.start_server()
    assert inject(queue).status == 0
    queue.stop(pid, signal.SIGKILL)
    check(queue, 1)


@needs_strace
@pytest.mark.parametrize(
    ("thread", "call", "when", "error", "status"),
    [
        (LOOP, "openat", 1, "ENOSPC", 63),
        (LOOP, "link", 1, "ENOSPC", 64),
        (LOOP, "write", 1, "ENOSPC", 53),
        (LOOP, "openat", 2, "ENOSPC", 65),
        (LOOP, "write", 2, "ENOSPC", 53),
        (COMMITTER, "fsync", 1, "EIO", 53),
        (COMMITTER, "fsync", 2, "ENOSPC", 53),
        (COMMITTER, "fsync", 3, "EIO", 53),
        (COMMITTER, "link", 1, "ENOSPC", 66),
    ],
)
def test_a_step_that_fails_is_reported_and_leaves_nothing(
    queue: Queue, thread: int, call: str, when: int, error: str, status: int
) -> None:
    pid = queue.start_server()
    with injected(pid, thread, call, when, f"error={error}"):
        assert inject(queue).status == status
        assert queue.files() == []
        assert inject(queue).status == 0
    check(queue, 1)


@needs_strace
def test_a_todo_that_may_not_be_on_disk_is_not_acknowledged_nor_taken_back(queue: Queue) -> None:
    pid = queue.start_server()
    with injected(pid, COMMITTER, "fsync", 4, "error=EIO"):
        assert inject(queue).status == 66
    check(queue, 1)
