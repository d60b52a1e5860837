"""Read and write the client, in time.

Two layers of time limit. Each single read or write may take as long as the control file
says (timeoutsmtpd, timeoutpop3d). Beside that there are absolute deadlines, which a
client that sends a byte now and then does not push on: one for a command line from its
first byte, one for everything before the session.
"""

import os
import select
import socket
import time
from typing import NamedTuple

READ_SIZE = 8192
WRITE_SIZE = 4096  # PIPE_BUF: a descriptor that poll calls writable takes it at once

LINE_SECONDS = 120  # AUTHUP_LINE_SECONDS: one command line, from its first byte to its last
PREAUTH_SECONDS = 600  # AUTHUP_PREAUTH_SECONDS: all attempts together, TLS start included

SEE_OFF_SECONDS = 1.0
SEE_OFF_READS = 1024

LONGEST = 10**6  # seconds; poll takes milliseconds in 31 bits


class ClientTimeout(Exception):
    """A time limit has passed."""


class ClientGone(Exception):
    """Nothing can be written to the client any more."""


class Limits(NamedTuple):
    """Time limits, in seconds."""

    single: int  # each read and each write
    line: int = LINE_SECONDS
    preauth: int = PREAUTH_SECONDS


class Client:
    """The client on descriptors 0 and 1, whatever they are: a socket or two pipes.

    Descriptors stay in blocking mode: O_NONBLOCK would be seen by every process that
    shares them.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._end = time.monotonic() + limits.preauth
        self._line_end: float | None = None

    def line_begun(self, begun: bool) -> None:
        """Say whether part of a line has arrived; its deadline runs from the first time."""
        if not begun:
            self._line_end = None
        elif self._line_end is None:
            self._line_end = time.monotonic() + self._limits.line

    def line_ended(self) -> None:
        """Say that a line is complete: what follows is another."""
        self._line_end = None

    def seconds_left(self) -> float:
        """Return how long the next read or write may take.

        Raises:
            ClientTimeout: no time is left.
        """
        now = time.monotonic()
        ends = [now + self._limits.single, self._end]
        if self._line_end is not None:
            ends.append(self._line_end)
        left = min(ends) - now
        if left <= 0:
            raise ClientTimeout
        return left

    def read(self) -> bytes:
        """Return what the client sent, nothing at its end of file.

        Raises:
            ClientTimeout: it sent nothing in time.
            OSError: the descriptor cannot be read at all.
        """
        while True:
            self._wait(0, select.POLLIN)
            try:
                return os.read(0, READ_SIZE)
            except BlockingIOError:  # set to non-blocking by whoever started us
                continue
            except ConnectionError:
                return b""

    def write(self, data: bytes | bytearray) -> None:
        """Write all of data.

        Raises:
            ClientTimeout: the client did not take it in time.
            ClientGone: it never will.
        """
        left = bytes(data)
        while left:
            self._wait(1, select.POLLOUT)
            try:
                left = left[os.write(1, left[:WRITE_SIZE]) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise ClientGone(error.strerror) from error

    def last_words(self, data: bytes) -> None:
        """Write data if that is possible at once, whatever time it is."""
        poll = select.poll()
        poll.register(1, select.POLLOUT)
        if poll.poll(0):
            try:
                os.write(1, data)
            except OSError:
                pass

    def see_off(self) -> None:
        """Let a client that is still sending see the last reply.

        A socket that is closed with bytes unread is reset, and the reply is lost. So the
        end of file goes out first, and what comes in is thrown away for a moment.
        """
        try:
            with socket.socket(fileno=os.dup(1)) as connection:
                connection.shutdown(socket.SHUT_WR)
        except OSError:  # a pipe, or gone
            pass
        poll = select.poll()
        poll.register(0, select.POLLIN)
        end = time.monotonic() + SEE_OFF_SECONDS
        for _ in range(SEE_OFF_READS):
            left = end - time.monotonic()
            try:
                if left <= 0 or not poll.poll(left * 1000) or not os.read(0, READ_SIZE):
                    break
            except OSError:
                break

    def _wait(self, descriptor: int, event: int) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        if not poll.poll(min(self.seconds_left(), LONGEST) * 1000):
            raise ClientTimeout
