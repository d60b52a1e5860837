"""Netstrings (cr.yp.to/proto/netstrings.txt): ``LENGTH:BYTES,`` with a decimal length."""

from collections.abc import Callable

LENGTH_LIMIT = 200_000_000  # bytes; as in qmail-qmqpd, so that no length overflows anything
LENGTH_DIGITS = 9


class NetstringError(Exception):
    """The bytes are not in the form."""


def encode(content: bytes) -> bytes:
    """Return content as one netstring."""
    return b"%d:%b," % (len(content), content)


class Reader:
    """Takes netstrings, also nested ones, off a stream of bytes.

    Args:
        receive: returns the next bytes of the stream, at least one; it raises at its end.
    """

    def __init__(self, receive: Callable[[], bytes]) -> None:
        self._receive = receive
        self._buffer = b""
        self._start = 0  # what lies before it in the buffer is used up
        self.taken = 0  # bytes of the stream used up so far

    def length(self) -> int:
        """Take a length and its colon.

        Raises:
            NetstringError: no digits, too many, a leading zero, or over the limit.
        """
        digits = b""
        while (byte := self.take(1)) != b":":
            if not byte.isdigit() or digits == b"0" or len(digits) == LENGTH_DIGITS:
                raise NetstringError("not a length")
            digits += byte
        if not digits or int(digits) > LENGTH_LIMIT:
            raise NetstringError("not a length that can be")
        return int(digits)

    def comma(self) -> None:
        """Take the comma that ends a netstring.

        Raises:
            NetstringError: another byte is there.
        """
        if self.take(1) != b",":
            raise NetstringError("no comma")

    def string(self, limit: int) -> bytes:
        """Take one whole netstring of at most limit bytes.

        Raises:
            NetstringError: it is longer, or not a netstring.
        """
        size = self.length()
        if size > limit:
            raise NetstringError("too long")
        content = b""
        while len(content) < size:
            content += self.some(size - len(content))
        self.comma()
        return content

    def take(self, size: int) -> bytes:
        """Take exactly size bytes, a few."""
        content = b""
        while len(content) < size:
            content += self.some(size - len(content))
        return content

    def some(self, most: int) -> bytes:
        """Take at least one and at most most bytes."""
        if self._start == len(self._buffer):
            self._buffer = self._receive()
            self._start = 0
        piece = self._buffer[self._start : self._start + most]
        self._start += len(piece)
        self.taken += len(piece)
        return piece
