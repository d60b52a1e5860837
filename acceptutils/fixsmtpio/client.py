"""The client's two descriptors, 0 and 1.

They are shared with the processes this one comes from (the same open file description),
so O_NONBLOCK is not ours to set. A socket is written to with MSG_DONTWAIT instead. For a
pipe, POLLOUT promises room for PIPE_BUF bytes and no more, so no more is written at once.
"""

import os
import select
import socket
import stat
import time

CHUNK = 65536
LINGER_SECONDS = 1.0
LINGER_IDLE_SECONDS = 0.2
LINGER_BYTES = 1 << 20

# A plain number: the | of socket's own flags is Python code, run for every reply.
_SEND_FLAGS = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


class Client:
    """The client as it is on descriptors 0 and 1 now."""

    def __init__(self) -> None:
        self._socket: socket.SocketType | None = None
        if stat.S_ISSOCK(os.fstat(1).st_mode):
            # Naming a family saves the system calls that find it out; sending needs none.
            self._socket = socket.SocketType(socket.AF_UNIX, socket.SOCK_STREAM, 0, 1)
        self.writes_without_asking = self._socket is not None

    def release(self) -> None:
        """Let go of the descriptors without closing them."""
        if self._socket:
            self._socket.detach()

    def read(self) -> bytes | None:
        """Return what is there, b"" at the end of file or when the client is gone.

        None: nothing is there after all (somebody has made the descriptor non-blocking).
        """
        try:
            return os.read(0, CHUNK)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def write(self, data: bytes | memoryview) -> int:
        """Write what can be written now and return how much that was.

        For a pipe only after POLLOUT.

        Raises:
            OSError: the client is gone.
        """
        try:
            if self._socket:
                return self._socket.send(data, _SEND_FLAGS)
            return os.write(1, data[: select.PIPE_BUF])
        except BlockingIOError:
            return 0

    def linger(self) -> None:
        """Read a little more before the end, and drop it.

        Closing a connection with unread bytes in it resets it, and the client might lose
        our last reply, which says what was wrong.
        """
        until = time.monotonic() + LINGER_SECONDS
        waiter = select.poll()
        waiter.register(0, select.POLLIN)
        left = LINGER_BYTES
        while left > 0 and time.monotonic() < until and waiter.poll(LINGER_IDLE_SECONDS * 1000):
            data = self.read()
            if data == b"":
                return
            left -= len(data or b"")
