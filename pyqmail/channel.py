"""The client's side of a server's two descriptors.

Every wait has a deadline. The descriptors may be a socket or pipes, and stay in blocking
mode: other processes share their open file descriptions.
"""

import os
import select
import stat
import time
from socket import MSG_DONTWAIT, socket

from ucspi.dialogue import ConnectionEnded, Dialogue, DialogueError, TimedOut, Wait

CHUNK = 65536  # bytes asked of one read
SMALL_WRITE = 4096  # what polls writable takes this many at once: a pipe's PIPE_BUF
LINGER_QUIET_MS = 100
LINGER_SECONDS = 2.0


class Channel:
    """Reading and writing with a time limit, for a dialogue or without one.

    Args:
        read_fd: where the client's bytes come from.
        write_fd: where the replies go.
        timeout: seconds that one wait may take.
    """

    __slots__ = ("_read_fd", "_socket", "_write_fd", "timeout")

    def __init__(self, read_fd: int, write_fd: int, timeout: float) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self.timeout = timeout
        self._socket: socket | None = None  # made for the first large write, if it is one

    def read_chunk(self) -> bytes:
        """Return what comes next.

        Raises:
            ConnectionEnded, TimedOut: nothing does.
        """
        return self._receive(time.monotonic() + self.timeout)

    def send(self, data: bytes) -> None:
        """Write data.

        Raises:
            ConnectionEnded: the client is gone.
            TimedOut: it does not read.
        """
        view = memoryview(data)
        try:
            while view:
                if len(view) > SMALL_WRITE and self._is_socket():
                    view = view[self._send_some(view) :]
                else:
                    self._wait(self._write_fd, select.POLLOUT)
                    view = view[os.write(self._write_fd, view[:SMALL_WRITE]) :]
        except OSError as error:
            raise ConnectionEnded(error.strerror) from error

    def _is_socket(self) -> bool:
        # Not found out before it matters: most sessions write little, and in a process
        # just forked every object that is touched costs a page.
        if self._socket is None and stat.S_ISSOCK(os.fstat(self._write_fd).st_mode):
            self._socket = socket(fileno=os.dup(self._write_fd))
        return self._socket is not None

    def _send_some(self, view: memoryview) -> int:
        assert self._socket is not None
        while True:
            try:
                return self._socket.send(view, MSG_DONTWAIT)
            except BlockingIOError:
                self._wait(self._write_fd, select.POLLOUT)

    def farewell(self, data: bytes) -> None:
        """Send last words to a client that may still be sending.

        What it has in flight is read and dropped for a moment: a socket closed with unread
        bytes is reset, and a reset takes the reply away from the client. Never raises.
        """
        try:
            self.send(data)
            end = time.monotonic() + LINGER_SECONDS
            poller = select.poll()
            poller.register(self._read_fd, select.POLLIN)
            while time.monotonic() < end and poller.poll(LINGER_QUIET_MS):
                if not os.read(self._read_fd, CHUNK):
                    break
        except (DialogueError, OSError):
            pass

    def hold(self, dialogue: Dialogue) -> int:
        """Hold a conversation to its end; return the exit status of the program."""
        try:
            wait = next(dialogue)
            while True:
                wait = self._go_on(dialogue, wait)
        except StopIteration as end:
            ending = end.value
        if ending.client_sends_on:
            self.farewell(ending.last_words)
        elif ending.last_words:
            try:
                self.send(ending.last_words)
            except DialogueError:
                pass
        status: int = ending.status
        return status

    def _go_on(self, dialogue: Dialogue, wait: Wait) -> Wait:
        try:
            if wait.output:
                self.send(wait.output)
            data = b"" if wait.deadline is None else self._receive(wait.deadline)
        except DialogueError as error:
            return dialogue.throw(error)
        return dialogue.send(data)

    def release(self) -> None:
        """Give up what was opened beside the two descriptors, which stay as they are.

        Not left to the object's end, which may come when its number is somebody else's.
        """
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _receive(self, deadline: float) -> bytes:
        self._wait(self._read_fd, select.POLLIN, deadline)
        try:
            data = os.read(self._read_fd, CHUNK)
        except OSError as error:
            raise ConnectionEnded(error.strerror) from error
        if not data:
            raise ConnectionEnded
        return data

    def _wait(self, fd: int, event: int, deadline: float | None = None) -> None:
        seconds = self.timeout if deadline is None else deadline - time.monotonic()
        poller = select.poll()
        poller.register(fd, event)
        if seconds <= 0 or not poller.poll(seconds * 1000):
            raise TimedOut
