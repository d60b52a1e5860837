"""Queue a message from inside a program: what netqmail's qmail_open to qmail_close are.

With ``QMAILQUEUE`` set, that program is run with qmail-queue's interface: message on its
descriptor 0, envelope on 1. It may explain a refusal: exit 82 after writing a line that
begins with D (for good) or Z (for now) to descriptor 4 or 6, which are the two that
programs written for netqmail's "custom error" patches use. Otherwise the message goes to
the queue server over its Unix socket, without another process.

Nothing here raises for trouble in the queue: as in netqmail the caller writes on, and
learns at the end.
"""

import os
import socket
import struct
from collections.abc import Iterable

from pyqmail.queue import envelope, errors, wire
from pyqmail.queue.errors import Result
from ucspi import chain, warm

__all__ = ["Injection", "Result", "open_queue"]

SOCKET = "/run/qmail/queue.sock"
BUFFER = 65536  # bytes collected before they are sent; a small message is sent at once

# A full disk or a dying machine may keep the server busy, but a mail client does not
# wait for more than ten minutes after its last dot (RFC 5321, 4.5.3.2.6).
TIMEOUT = 600  # seconds for one wait on the server

CUSTOM_ERROR_DESCRIPTORS = (4, 6)
CUSTOM_ERROR_LIMIT = 1000  # bytes of the text that are kept

# Set for a program run as $QMAILQUEUE: the number that its parent reports is its pid.
PROGRAM_MARK = "QMAIL_QUEUE_PROGRAM"


class Injection:
    """A message on its way into the queue. Exactly one of finish and abort ends it."""

    def write(self, data: bytes) -> None:
        """Add data to the message. Trouble is remembered for finish."""
        raise NotImplementedError

    def finish(self, sender: bytes, recipients: Iterable[bytes]) -> Result:
        """End the message, hand over its envelope, and wait until it is safe on disk."""
        raise NotImplementedError

    def abort(self) -> None:
        """Think better of it: nothing is queued."""
        raise NotImplementedError


def open_queue(env: dict[str, str]) -> Injection:
    """Begin to queue a message.

    Args:
        env: the program's environment: ``QMAILQUEUE``, or ``QMAIL_QUEUE_SOCKET`` when the
            server is not at /run/qmail/queue.sock. The whole of it is passed to $QMAILQUEUE.
    """
    program = env.get("QMAILQUEUE")
    if not program:
        return server_injection(env)
    name = chain.program_name(program)
    if name is not None:
        # A program of ours may need no process: see pyqmail.qfilter.program.
        make = getattr(chain.module_of(name), "injection", None)
        if make is not None:
            injection: Injection = make(env)
            return injection
    return ProgramInjection(program, env)


def server_injection(env: dict[str, str]) -> "ServerInjection":
    """Begin a message for the queue server."""
    kind = wire.KIND_PROGRAM if PROGRAM_MARK in env else wire.KIND_IN_PROCESS
    return ServerInjection(env.get("QMAIL_QUEUE_SOCKET", SOCKET), kind)


def preload(env: dict[str, str]) -> None:
    """Load what `open_queue` would load, before processes are forked for connections."""
    if program := env.get("QMAILQUEUE"):
        chain.load([program], env)


class ServerInjection(Injection):
    """A message for the queue server.

    The connection is made when the first full buffer has to go, so that a sender who
    dribbles a small message occupies no place in the server.
    """

    def __init__(self, path: str, kind: bytes = wire.KIND_IN_PROCESS) -> None:
        """Begin a message for the server at path."""
        self._path = path
        self._kind = kind
        self._buffer: list[bytes] = []
        self._size = 0
        self._socket: socket.socket | None = None
        self._status = 0

    def write(self, data: bytes) -> None:
        """Add data to the message."""
        self._buffer.append(data)
        self._size += len(data)
        if self._size >= BUFFER:
            self._send(self._message())

    def finish(self, sender: bytes, recipients: Iterable[bytes]) -> Result:
        """End the message, hand over its envelope, and wait for the server's word."""
        return self.finish_raw(envelope.encode(sender, recipients))

    def finish_raw(self, pieces: Iterable[bytes]) -> Result:
        """Like finish, with the envelope in qmail-queue's form."""
        try:
            content = b"".join(pieces)
        except envelope.EnvelopeError as error:
            self.abort()
            return Result(error.status, 0)
        self._send(self._message() + wire.END + wire.chunk(content) + wire.END)
        result = self._reply()
        self.abort()
        return result

    def abort(self) -> None:
        """Close the connection; the server forgets what has no end."""
        self._buffer = []
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _message(self) -> bytes:
        data = wire.chunk(b"".join(self._buffer))
        self._buffer = []
        self._size = 0
        return data

    def _send(self, data: bytes) -> None:
        if self._status:
            return
        try:
            if self._socket is None:
                self._socket = _connect(self._path)
                data = self._kind + data
            self._socket.sendall(data)
        except BlockingIOError:
            self._status = errors.CONNECTION_TIMEOUT
        except ConnectionRefusedError:
            self._status = errors.CONNECTION_REFUSED
        except (BrokenPipeError, ConnectionResetError):
            # The server has answered early, and closed; its answer can still be read.
            self._status = errors.CONNECTION_LOST
        except OSError:
            self._status = errors.NO_NETWORK

    def _reply(self) -> Result:
        if self._socket is None or self._status not in (0, errors.CONNECTION_LOST):
            return Result(self._status or errors.NO_NETWORK, 0)
        data = b""
        try:
            while len(data) < wire.REPLY_SIZE and (more := self._socket.recv(64)):
                data += more
            result = wire.decode_reply(data)
        except BlockingIOError:
            return Result(errors.CONNECTION_TIMEOUT, 0)
        except (OSError, wire.ProtocolError):
            return Result(errors.CONNECTION_LOST, 0)
        if self._status and not result.status:
            return Result(self._status, 0)  # it cannot have queued what was not sent
        return result


def _connect(path: str) -> socket.socket:
    """Connect to the queue server, waiting for a place in its queue of connections.

    The time limits are the kernel's (an expired one is EAGAIN): with Python's, a connect
    to a busy server would fail at once instead of waiting.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    limit = struct.pack("ll", TIMEOUT, 0)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


class ProgramInjection(Injection):
    """A message for the program in $QMAILQUEUE."""

    def __init__(self, program: str, env: dict[str, str]) -> None:
        """Start the program; when that fails, finish will say so."""
        self._child: warm.Child | None = None
        self._failed = False
        self._ours: list[int] = []  # our ends: message, envelope, the program's own text
        theirs: list[int] = []
        try:
            for reading_end_is_ours in (False, False, True):
                ends = os.pipe()
                self._ours.append(ends[0 if reading_end_is_ours else 1])
                theirs.append(ends[1 if reading_end_is_ours else 0])
            theirs.append(os.dup(theirs[2]))
            # Our own ends are not named: or the program would wait for its own end of file.
            wanted = dict(zip((0, 1, *CUSTOM_ERROR_DESCRIPTORS), theirs, strict=True))
            self._child = warm.spawn([program], {**env, PROGRAM_MARK: "1"}, wanted)
        except OSError:
            self._failed = True
        for descriptor in theirs:
            os.close(descriptor)

    def write(self, data: bytes) -> None:
        """Add data to the message."""
        self._write(0, data)

    def _write(self, end: int, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view and not self._failed:
                view = view[os.write(self._ours[end], view) :]
        except OSError:  # it has closed the pipe or died: its exit status tells why
            self._failed = True

    def finish(self, sender: bytes, recipients: Iterable[bytes]) -> Result:
        """End the message, write the envelope, and wait for the program to exit."""
        if self._child is None:
            self.abort()
            return Result(errors.NOT_EXECUTED, 0)
        pid = self._child.pid
        os.close(self._ours[0])
        self._ours[0] = -1
        try:
            self._write(1, b"".join(envelope.encode(sender, recipients)))
        except envelope.EnvelopeError as error:
            self.abort()
            return Result(error.status, pid)
        os.close(self._ours[1])
        self._ours[1] = -1
        status = self._wait()
        text = self._custom_text() if status == errors.CUSTOM else b""
        self.abort()
        if not status and self._failed:
            return Result(errors.READ_ERROR, pid)  # it cannot have queued what it did not read
        return Result(status, pid, text)

    def abort(self) -> None:
        """Close the pipes; without the end of the envelope the program queues nothing."""
        for descriptor in self._ours:
            if descriptor >= 0:
                os.close(descriptor)
        self._ours = []
        if self._child is not None:
            self._wait()

    def _wait(self) -> int:
        child, self._child = self._child, None
        assert child is not None
        try:
            code = child.wait()
        except ChildProcessError:  # somebody else has reaped it
            return errors.BUG
        if code in (chain.EXIT_NOT_FOUND, chain.EXIT_NOT_EXECUTABLE):
            return errors.NOT_EXECUTED
        return code if code is not None and code >= 0 else errors.CRASHED

    def _custom_text(self) -> bytes:
        # Not up to end of file: the program may have left children that hold the pipe.
        os.set_blocking(self._ours[2], False)
        try:
            return os.read(self._ours[2], CUSTOM_ERROR_LIMIT)
        except BlockingIOError:
            return b""
