"""Kill qmail-send at system calls that touch the queue; a new one must finish the work.

One message: ann's delivery succeeds, bob's fails, so joe gets a bounce. Whatever the
moment of the kill: ann is delivered to, joe is told, only deliveries that were under way
(ann's and bob's are, together) happen twice, and in the end the queue is empty.
"""

import os
import select
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

Queue = Any  # these two are in conftest.py
Send = Any
DEADLINE = 30  # seconds

ANN, BOB, JOE = b"ann@mx.example.org", b"bob@mx.example.org", b"joe@example.net"
REPORTS = {ANN: b"Kok\n", BOB: b"Dno such box\n", JOE: b"Kok\n"}

# (system call, which one after the message is put, what the kill comes before)
POINTS = [
    ("openat", 3, "todo/N is read"),
    ("openat", 4, "info/N is made"),
    ("openat", 5, "local/N is made"),
    ("write", 4, "local/N is written"),
    ("fsync", 1, "info/N is on disk"),
    ("fsync", 4, "the name local/N is on disk"),
    ("write", 5, "qmail-clean is asked to remove todo/N"),
    ("pwrite64", 1, "ann is marked, or bob's failure is kept"),
    ("pwrite64", 2, "bob is marked, or the failure is kept"),
    ("pwrite64", 3, "the last of these"),
    ("fsync", 6, "the name bounce/N is on disk"),
    ("unlink", 1, "local/N is removed"),
    ("sendto", 1, "the bounce is sent"),
    ("recvfrom", 1, "the bounce is acknowledged"),
    ("unlink", 2, "bounce/N is removed"),
    ("unlink", 3, "info/N is removed"),
]

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


def drive(queue: Queue, send: Send, delivered: Counter[bytes]) -> bool:
    """Answer requests until the queue is empty (True) or qmail-send is gone (False)."""
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        descriptors = [send.local.read, send.remote.read, send.log_read]
        readable, _, _ = select.select(descriptors, [], [], 0.05)
        for fake in send.fakes:
            if fake.read in readable:
                data = os.read(fake.read, 65536)
                if not data:
                    return False
                for request in fake.reader.feed(data):
                    delivered[request.recipient] += 1
                    try:
                        fake.report(request, REPORTS[request.recipient])
                    except BrokenPipeError:
                        return False
        if send.log_read in readable:
            data = os.read(send.log_read, 65536)
            if not data:
                return False
            send.log += data
        elif not readable and not queue.files():
            return True
    raise AssertionError(f"not done: {queue.files()}\n{send.log.decode()}")


@needs_strace
@pytest.mark.parametrize(("call", "when", "before"), POINTS)
def test_qmail_send_killed_before(
    queue: Queue, start: Callable[..., Send], call: str, when: int, before: str
) -> None:
    queue.start_server()
    send = start()
    send.wait_log(rb"^status: local")
    first = queue.put(JOE, JOE)  # its pass through the queue shows that the start is over
    queue.pull()
    send.remote.report(send.remote.request(), b"Kok\n")
    send.wait_log(rb"^end msg %d$" % first)
    tracer = subprocess.Popen(
        ["strace", "-o", os.devnull, "-p", str(send.pid), "-e", f"trace={call}"]
        + ["-e", f"inject={call}:signal=KILL:when={when}"],
        stderr=subprocess.PIPE,
    )
    assert tracer.stderr is not None
    assert b"attached" in tracer.stderr.readline()
    delivered: Counter[bytes] = Counter()
    try:
        queue.put(JOE, ANN, BOB)
        queue.pull()
        assert not drive(queue, send, delivered), f"it was not killed before {before}"
        assert queue.wait(send.pid) == -signal.SIGKILL
    finally:
        tracer.terminate()
        tracer.wait()
        tracer.stderr.close()
    again = start()
    again.wait_log(rb"^status: local")
    again.signal(signal.SIGALRM)
    assert drive(queue, again, delivered)
    assert set(delivered) == {ANN, BOB, JOE}
    # A delivery that had not been marked when the kill came is done once more, no other.
    assert max(delivered.values()) <= 2, f"{delivered} after a kill before {before}"
    if delivered[JOE] == 2:
        assert delivered.total() == 4, f"{delivered} after a kill before {before}"
