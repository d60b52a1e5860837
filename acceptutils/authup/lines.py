"""Cut what the client sends into command lines of bounded length."""

from collections.abc import Callable

COMMAND_LIMIT = 4096  # bytes of one command line, its CR LF included (RFC 5321: 512)
AUTH_LIMIT = 16384  # the same for AUTH: RFC 4954 (4) wants 12,288 bytes of base64
PREFIX = 5  # bytes of a line that decide its limit: "AUTH "


class LineTooLong(Exception):
    """A line is longer than allowed or holds a NUL: the connection ends."""


class LineReader:
    """A buffer that gives out whole lines.

    It never holds more than one longest line and one read: the caller takes every line
    that is there before it feeds more.
    """

    __slots__ = ("_buffer", "_searched")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0  # no line feed before this offset: long lines cost no more

    def feed(self, data: bytes) -> None:
        """Append what the client sent."""
        self._buffer += data

    def take(self, limit_of: Callable[[bytes], int]) -> bytes | None:
        """Return the next line without its LF or CR LF; None when it is not complete.

        Args:
            limit_of: the limit in bytes, LF included, of a line that begins so.

        Raises:
            LineTooLong: more bytes than that, or a NUL among them, line feed or not.
        """
        buffer = self._buffer
        end = buffer.find(b"\n", self._searched)
        length = end + 1 if end >= 0 else len(buffer)
        if length > limit_of(bytes(buffer[:PREFIX])):
            raise LineTooLong
        if buffer.find(b"\0", self._searched, length) >= 0:
            raise LineTooLong
        if end < 0:
            self._searched = length
            return None
        line = bytes(buffer[:end])
        del buffer[:length]
        self._searched = 0
        return line.removesuffix(b"\r")

    def __len__(self) -> int:
        return len(self._buffer)

    def forget(self) -> None:
        """Drop everything that was fed, overwriting it."""
        self._buffer[:] = bytes(len(self._buffer))
        self._buffer.clear()
        self._searched = 0
