"""Replies of an SMTP server (RFC 5321, 4.2), read by a client that trusts nothing."""

from typing import NamedTuple

TEXT_LIMIT = 5000  # bytes of a reply that are kept for the report
LINE_LIMIT = 4096  # bytes; the protocol allows 512, real servers now and then more
LINES_LIMIT = 1000  # lines of one reply


class ReplyError(Exception):
    """What the server sent is no reply."""


class Reply(NamedTuple):
    """A whole reply."""

    code: int
    lines: tuple[bytes, ...]  # without the code and what separates it

    @property
    def text(self) -> bytes:
        """The reply for a report: printable, one line per line, each with its code."""
        last = len(self.lines) - 1
        said = b""
        for number, line in enumerate(self.lines):
            said += b"%03d%s" % (self.code, b" " if number == last else b"-")
            said += printable(line) + b"\n"
        return said if len(said) <= TEXT_LIMIT else said[: TEXT_LIMIT - 1] + b"\n"


def printable(text: bytes) -> bytes:
    """Return text with ``?`` for each control character; 8-bit text is left as it is."""
    return bytes(c if 32 <= c != 127 else 63 for c in text)


class ReplyReader:
    """Turns bytes, split anyhow, into replies.

    A line's end is LF, with or without CR: a server that sends a bare LF harms nobody
    here. Bytes that come after a reply wait for the next one; `pending` tells of them.
    """

    __slots__ = ("_buffer", "_code", "_lines")

    def __init__(self) -> None:
        """Begin before a reply."""
        self._buffer = b""
        self._code = 0
        self._lines: list[bytes] = []

    @property
    def pending(self) -> bool:
        """Whether there are bytes that belong to no reply yet taken."""
        return bool(self._buffer or self._lines)

    def feed(self, data: bytes) -> None:
        """Take bytes from the server."""
        self._buffer += data

    def take(self) -> Reply | None:
        """Return the next reply, None while it is not complete.

        Raises:
            ReplyError: not a reply: no code, changing codes, or without an end.
        """
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if len(line) > LINE_LIMIT:
                raise ReplyError("a line that is too long")
            if not newline:
                return None
            self._buffer = rest
            line = line.removesuffix(b"\r")
            last = self._add(line)
            if last:
                reply = Reply(self._code, tuple(self._lines))
                self._lines = []
                return reply

    def _add(self, line: bytes) -> bool:
        code, separator = line[:3], line[3:4]
        if len(code) < 3 or not code.isdigit() or separator not in (b"", b" ", b"-"):
            raise ReplyError("a line without a code")
        if self._lines and int(code) != self._code:
            raise ReplyError("a reply with two codes")
        if not 200 <= int(code) <= 599:
            raise ReplyError("a code that means nothing")
        if len(self._lines) >= LINES_LIMIT:
            raise ReplyError("a reply without an end")
        self._code = int(code)
        self._lines.append(line[4:])
        return separator != b"-"
