"""The loop of qmail-lspawn and qmail-rspawn: requests in, deliveries, reports out.

Both are zygotes: everything a delivery needs is loaded before the first fork, and a
delivery runs in a forked child (`pyqmail.spawnchild`). The child never comes back into this
loop, whatever happens to it; the loop does nothing that could take long, and looks at
nothing that a delivery wrote but to pass it on.

A child stays for a moment, and takes the next delivery of its kind: one to the same user
in qmail-lspawn, to the same destination in qmail-rspawn. A fork and the pages it copies,
or a connection and its TLS, are most of what a delivery costs.
"""

import os
import select
import signal
import socket
import stat
import time
from collections.abc import Callable, Hashable
from typing import NamedTuple

from pyqmail import spawnchild
from pyqmail.send import spawnprotocol as protocol
from pyqmail.send.spawnprotocol import Report, Request
from pyqmail.spawnchild import NOTHING, Keep
from ucspi import immortal, log

REQUESTS = 0  # descriptors
REPORTS = 1

READ_SIZE = 65536
IDLE_SECONDS = 2.0  # a child waits for another delivery
IDLE_LIMIT = 30  # children that wait; each has some 2 MB of its own
IDLE_SPARE = 10  # so many that wait for deliveries of their kind are enough
CHILD_DELIVERIES = 100  # of one child; then a new one, with fresh memory


class Plan(NamedTuple):
    """How a delivery is to be made."""

    # Deliveries with equal keys may be made by one child, one after the other; None: by a
    # child of its own.
    key: Hashable | None
    payload: bytes  # what the child has to know


class Program(NamedTuple):
    """What makes a spawner qmail-lspawn or qmail-rspawn."""

    name: str
    # Quick, and raises nothing.
    plan: Callable[[Request], Plan]
    # Runs in the child, with the message on descriptor 0, 1 and 2 the pipe for what it
    # has to say; takes the plan's payload and returns the exit status.
    deliver: Callable[[bytes], int]
    # (wait status, output) -> the report's text.
    report: Callable[[int, bytes], bytes]
    output_limit: int  # bytes of output that are kept
    report_limit: int  # bytes of the report, for encode_report
    keep: Keep = NOTHING  # what a child keeps between two deliveries
    any_kind: bool = False  # a child may also go on to a delivery of another kind


class Companion:
    """A process of the spawner's own that is to run as long as the spawner does."""

    def due(self) -> float | None:
        """Return in how many seconds it has to be started; None: it runs."""
        return None

    def start(self) -> None:
        """Start it."""

    def ended(self, pid: int) -> None:
        """Take notice of the end of a process that is no delivery."""


class Delivery:
    """One delivery that is running."""

    __slots__ = ("number", "output", "pipe")

    def __init__(self, number: int, pipe: int) -> None:
        """Remember where its output comes from."""
        self.number = number
        self.pipe = pipe
        self.output = b""


class Child:
    """A child, and the delivery it is at."""

    __slots__ = ("channel", "delivery", "idle_since", "key", "left", "pid")

    def __init__(self, pid: int, key: Hashable | None, channel: socket.socket | None) -> None:
        """Remember a child that was just forked."""
        self.pid = pid
        self.key = key
        self.channel = channel  # None for a child of one delivery
        self.delivery: Delivery | None = None
        self.idle_since = 0.0
        self.left = CHILD_DELIVERIES


class Spawner:
    """The loop's state. Works in queue/mess, which must be the current directory."""

    def __init__(self, program: Program, env: dict[str, str], companion: Companion) -> None:
        """Nothing is started yet."""
        self.program = program
        self.env = env
        self.companion = companion
        # Who owns the directory is qmailq: nobody else can have put messages there.
        self.queue_owner = os.stat(".").st_uid
        self.reader = protocol.RequestReader()
        self.reading = True
        self.writing = True
        self.children: dict[int, Child] = {}  # by process id
        self.by_channel: dict[int, Child] = {}
        self.by_pipe: dict[int, Delivery] = {}
        self.numbers: set[int] = set()
        self.idle: list[Child] = []  # the longest idle first
        self.poller = select.poll()
        self.wake_read, self.wake_write = os.pipe()
        os.set_blocking(self.wake_read, False)
        os.set_blocking(self.wake_write, False)

    def run(self) -> int:
        """Serve until qmail-send closes descriptor 0 and all deliveries have ended."""
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        self.poller.register(REQUESTS, select.POLLIN)
        self.poller.register(self.wake_read, select.POLLIN)
        immortal.freeze(immortal.open_memory())
        self._write(protocol.encode_limit(protocol.SPAWN_LIMIT))
        while self.reading or self.numbers:
            self._step()
        return 0

    def _step(self) -> None:
        for descriptor, _ in self.poller.poll(self._timeout()):
            if descriptor == REQUESTS:
                self._read_requests()
            elif descriptor == self.wake_read:
                self._reap()
            elif descriptor in self.by_pipe:
                self._read_output(self.by_pipe[descriptor])
            elif descriptor in self.by_channel:
                self._read_channel(self.by_channel[descriptor])

    def _timeout(self) -> float | None:
        """Do what is due, and return after how many milliseconds something will be."""
        due = self.companion.due()
        if due is not None and due <= 0:
            self.companion.start()
            due = self.companion.due()
        waits = [] if due is None else [due]
        now = time.monotonic()
        while self.idle and self.idle[0].idle_since + IDLE_SECONDS <= now:
            self._dismiss(self.idle[0])
        if self.idle:
            waits.append(self.idle[0].idle_since + IDLE_SECONDS - now)
        return max(0.0, min(waits)) * 1000 + 1 if waits else None

    # --- requests ----------------------------------------------------------------

    def _read_requests(self) -> None:
        try:
            data = os.read(REQUESTS, READ_SIZE)
            requests = self.reader.feed(data)
        except (OSError, ValueError) as error:
            log.event(self.env, f"{self.program.name}: {error}")
            data, requests = b"", []
        if not data:
            self.reading = False
            self.poller.unregister(REQUESTS)
        for request in requests:
            refusal = self._refusal(request) or self._start(request)
            if refusal:
                self._report(request.delivery, refusal)

    def _refusal(self, request: Request) -> bytes | None:
        if request.delivery >= protocol.SPAWN_LIMIT:
            return protocol.DELIVERY_TOO_BIG
        if request.delivery in self.numbers:
            return protocol.DELIVERY_IN_USE
        return protocol.refusal(request)

    def _start(self, request: Request) -> bytes | None:
        """Start a delivery; return the report if it did not come to that."""
        try:
            message = os.open(request.message, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return protocol.CANNOT_OPEN
        try:
            refusal = self._message_refusal(message)
            if refusal:
                return refusal
            try:
                pipe, output = os.pipe()
            except OSError:
                return protocol.CANNOT_PIPE
            try:
                plan = self.program.plan(request)
                child = self._reuse(plan, message, output) or self._fork(plan, message, output)
            except OSError:
                os.close(pipe)
                return protocol.CANNOT_FORK
            finally:
                os.close(output)
        finally:
            os.close(message)
        os.set_blocking(pipe, False)
        child.delivery = self.by_pipe[pipe] = Delivery(request.delivery, pipe)
        self.numbers.add(request.delivery)
        self.poller.register(pipe, select.POLLIN)
        return None

    def _message_refusal(self, message: int) -> bytes | None:
        try:
            status = os.fstat(message)
        except OSError:
            return protocol.CANNOT_STAT
        if not stat.S_ISREG(status.st_mode):
            return protocol.WRONG_TYPE
        if status.st_uid != self.queue_owner:
            return protocol.WRONG_OWNER
        return None

    # --- children ----------------------------------------------------------------

    def _fork(self, plan: Plan, message: int, output: int) -> Child:
        """Start a child with a delivery.

        Raises:
            OSError: no process, or no socket, can be made.
        """
        ours = theirs = None
        if plan.key is not None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = os.fork()
            if not pid:
                what = self.program
                work = spawnchild.Work(what.name, what.deliver, self.env, what.keep)
                channel = None if theirs is None else theirs.detach()
                spawnchild.run(work, plan.payload, message, output, channel)
        except OSError:
            if ours is not None:
                ours.close()
            raise
        finally:
            if theirs is not None:
                theirs.close()
        child = self.children[pid] = Child(pid, plan.key, ours)
        if ours is not None:
            ours.setblocking(False)
            self.by_channel[ours.fileno()] = child
            self.poller.register(ours, select.POLLIN)
        return child

    def _reuse(self, plan: Plan, message: int, output: int) -> Child | None:
        """Give a delivery to a child that waits; None: there is none for it."""
        if plan.key is None:
            return None
        for child in list(reversed(self.idle)):
            if child.key == plan.key and self._give(child, plan, message, output):
                return child
        if self.program.any_kind and len(self.idle) > IDLE_SPARE:
            child = self.idle[0]
            if self._give(child, plan, message, output):
                return child
        return None

    def _give(self, child: Child, plan: Plan, message: int, output: int) -> bool:
        """Give a delivery to a waiting child; return whether it can have taken it."""
        assert child.channel is not None
        try:
            spawnchild.send(child.channel, plan.payload, message, output)
        except OSError:
            self._dismiss(child)
            return False
        child.key = plan.key
        self.idle.remove(child)
        return True

    def _read_channel(self, child: Child) -> None:
        """Take a child's word that it has made its delivery."""
        assert child.channel is not None
        try:
            answer = child.channel.recv(16)
        except BlockingIOError:
            return
        except OSError:
            answer = b""
        if not answer or child.delivery is None:
            self._dismiss(child)
            return
        delivery, child.delivery = child.delivery, None
        self._finish(delivery, answer[0] << 8)
        child.left -= 1
        child.idle_since = time.monotonic()
        self.idle.append(child)
        if not child.left or len(self.idle) > IDLE_LIMIT:
            self._dismiss(child if not child.left else self.idle[0])

    def _dismiss(self, child: Child) -> None:
        """Close the channel: the child ends, unless it has ended already."""
        if child.channel is not None:
            del self.by_channel[child.channel.fileno()]
            self.poller.unregister(child.channel)
            child.channel.close()
            child.channel = None
        if child in self.idle:
            self.idle.remove(child)

    def _reap(self) -> None:
        try:
            while os.read(self.wake_read, READ_SIZE):
                pass
        except BlockingIOError:
            pass
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            child = self.children.pop(pid, None)
            if child is None:
                self.companion.ended(pid)
                continue
            if child.channel is not None:
                self._read_channel(child)  # its last word may still be there
            self._dismiss(child)
            if child.delivery is not None:
                self._finish(child.delivery, wait_status)

    # --- output and reports ------------------------------------------------------

    def _read_output(self, delivery: Delivery) -> bool:
        """Take what the delivery wrote; return whether there may be more now."""
        try:
            data = os.read(delivery.pipe, READ_SIZE)
        except BlockingIOError:
            return False
        if not data:
            # End of file; whether the delivery has ended is another question.
            self.poller.unregister(delivery.pipe)
            del self.by_pipe[delivery.pipe]
            return False
        room = self.program.output_limit - len(delivery.output)
        delivery.output += data[:room] if room > 0 else b""
        return True

    def _finish(self, delivery: Delivery, wait_status: int) -> None:
        # Its own output is in the pipe already. What processes it left behind write later
        # is not waited for, and if they write without end, not read to its end.
        while delivery.pipe in self.by_pipe and len(delivery.output) < self.program.output_limit:
            if not self._read_output(delivery):
                break
        if self.by_pipe.pop(delivery.pipe, None):
            self.poller.unregister(delivery.pipe)
        os.close(delivery.pipe)
        self.numbers.discard(delivery.number)
        self._report(delivery.number, self.program.report(wait_status, delivery.output))

    def _report(self, number: int, text: bytes) -> None:
        self._write(protocol.encode_report(Report(number, text), self.program.report_limit))

    def _write(self, data: bytes) -> None:
        """Write to qmail-send; without one, the deliveries that run are still seen to."""
        try:
            while data and self.writing:
                data = data[os.write(REPORTS, data) :]
        except OSError:
            self.writing = False
