"""The loop of qmail-lspawn and qmail-rspawn: requests in, one fork each, reports out.

Both are zygotes: everything a delivery needs is loaded before the first fork, and the
delivery runs in the forked child. The child never comes back into this loop, whatever
happens to it; the loop does nothing that could take long, and looks at nothing that a
delivery wrote but to pass it on.
"""

import gc
import os
import select
import signal
import stat
from collections.abc import Callable
from typing import NamedTuple

from pyqmail.send import spawnprotocol as protocol
from pyqmail.send.spawnprotocol import Report, Request
from ucspi import log

REQUESTS = 0  # descriptors
REPORTS = 1

READ_SIZE = 65536
CHILD_FAILED = 111  # exit status of a child that stumbled over a mistake of ours
LOG_COPY = 3  # where a child keeps the service's own descriptor 2
DESCRIPTORS = 1024  # above all that a spawner has open: one per delivery, and a few

_log = log.STDERR  # the service's log, as this process has it


class Program(NamedTuple):
    """What makes a spawner qmail-lspawn or qmail-rspawn."""

    name: str
    # Runs in the child, with the message on descriptor 0, 1 and 2 the pipe for what it
    # has to say; returns the exit status.
    deliver: Callable[[Request], int]
    # (wait status, output) -> the report's text.
    report: Callable[[int, bytes], bytes]
    output_limit: int  # bytes of output that are kept
    report_limit: int  # bytes of the report, for encode_report


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

    __slots__ = ("number", "output", "pipe", "wait_status")

    def __init__(self, number: int, pipe: int) -> None:
        """Remember where its output comes from."""
        self.number = number
        self.pipe = pipe
        self.output = b""
        self.wait_status = 0


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
        self.by_pid: dict[int, Delivery] = {}
        self.by_pipe: dict[int, Delivery] = {}
        self.numbers: set[int] = set()
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
        gc.freeze()
        self._write(protocol.encode_limit(protocol.SPAWN_LIMIT))
        while self.reading or self.by_pid:
            self._step()
        return 0

    def _step(self) -> None:
        due = self.companion.due()
        if due is not None and due <= 0:
            self.companion.start()
            due = self.companion.due()
        for descriptor, _ in self.poller.poll(None if due is None else due * 1000):
            if descriptor == REQUESTS:
                self._read_requests()
            elif descriptor == self.wake_read:
                self._reap()
            elif descriptor in self.by_pipe:
                self._read_output(self.by_pipe[descriptor])

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
        """Fork a child for a delivery; return the report if it did not come to that."""
        try:
            message = os.open(request.message, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return protocol.CANNOT_OPEN
        try:
            refusal = self._message_refusal(message)
            if refusal:
                return refusal
            try:
                pipe, end = os.pipe()
            except OSError:
                return protocol.CANNOT_PIPE
            try:
                pid = os.fork()
                if not pid:
                    self._become_delivery(request, message, end)
            except OSError:
                os.close(pipe)
                return protocol.CANNOT_FORK
            finally:
                os.close(end)
        finally:
            os.close(message)
        os.set_blocking(pipe, False)
        delivery = Delivery(request.delivery, pipe)
        self.by_pid[pid] = self.by_pipe[pipe] = delivery
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

    def _become_delivery(self, request: Request, message: int, output: int) -> None:
        """Run the delivery in this process, which was just forked, and end it."""
        status = CHILD_FAILED
        try:
            plumb(message, output)
            status = self.program.deliver(request)
        except BaseException as error:
            complain(self.env, f"{self.program.name}: {type(error).__name__}: {error}")
        finally:
            os._exit(status & 255)

    def _read_output(self, delivery: Delivery) -> bool:
        """Take what the delivery wrote; return whether there may be more now."""
        try:
            data = os.read(delivery.pipe, READ_SIZE)
        except BlockingIOError:
            return False
        if not data:
            # End of file: whether it has ended, only wait can say. It is not polled until then.
            self.poller.unregister(delivery.pipe)
            del self.by_pipe[delivery.pipe]
            return False
        room = self.program.output_limit - len(delivery.output)
        delivery.output += data[:room] if room > 0 else b""
        return True

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
            delivery = self.by_pid.pop(pid, None)
            if delivery is None:
                self.companion.ended(pid)
            else:
                self._finish(delivery, wait_status)

    def _finish(self, delivery: Delivery, wait_status: int) -> None:
        # Its own output is in the pipe already. What processes it left behind may write
        # later is not waited for.
        while delivery.pipe in self.by_pipe and self._read_output(delivery):
            pass
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


def plumb(message: int, output: int) -> None:
    """Give a forked child its descriptors and signals, and close all that is not its own."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    gc.disable()
    lowest = LOG_COPY + 1
    message, output = _lift(message, lowest), _lift(output, lowest)
    global _log
    os.dup2(log.STDERR, LOG_COPY, inheritable=False)
    _log = LOG_COPY
    os.dup2(message, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(lowest, DESCRIPTORS)


def _lift(descriptor: int, lowest: int) -> int:
    """Return the descriptor, or a copy of it that is not below lowest."""
    if descriptor >= lowest:
        return descriptor
    import fcntl

    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, lowest)


def complain(env: dict[str, str], text: str) -> None:
    """Write a line to the service's log from a child, whose descriptor 2 is the report."""
    if _log != log.STDERR:
        os.dup2(_log, log.STDERR)
    log.event(env, text)
