"""Split a header into fields and put it together again (qmail-header(5))."""

from collections.abc import Iterable
from typing import NamedTuple

NAME_BYTES = frozenset(range(33, 127)) - {ord(":")}

# Who says a message, or says it again: what a mail program shows as coming from somebody.
SPEAKERS = frozenset({b"from", b"sender", b"resent-from", b"resent-sender"})


MBOX_LINE = b"MBOX-Line"  # the field that keeps the From line of an mbox file


class Field(NamedTuple):
    """One header field: its name in lower case, and all its bytes with the line end."""

    name: bytes
    raw: bytes

    @property
    def value(self) -> bytes:
        """What follows the colon, line ends and all."""
        return self.raw[self.raw.index(b":") + 1 :]

    def with_value(self, value: bytes) -> "Field":
        """Return the field with another value and its name as it was written."""
        return Field(self.name, self.raw[: self.raw.index(b":") + 1] + value)


def field_name(line: bytes) -> bytes | None:
    """Return the lower-case name of the field that line begins, None if it begins none."""
    name, colon, _ = line.partition(b":")
    name = name.rstrip(b" \t")  # RFC 5322, 4.5: once allowed, still understood by readers
    if not colon or not name or not NAME_BYTES.issuperset(name):
        return None
    return name.lower()


class HeaderReader:
    """Take a message in parts, and keep its header back until it is whole."""

    __slots__ = ("_buffer", "_mbox", "_next", "_searched", "_starts", "fields", "whole")

    def __init__(self, *, mbox: bool = False) -> None:
        """Begin a message.

        Args:
            mbox: the message may come out of an mbox file: a line ``From joe Thu Jan  1 ...``
                becomes a field MBOX-Line instead of the first line of the body.
        """
        self._mbox = mbox
        self._buffer = bytearray()
        self._next = 0  # where the next line starts; all before it is header
        self._searched = 0  # no line end between there and here: long lines cost no more
        self._starts: list[tuple[bytes, int]] = []  # name and offset of each field
        self.fields: list[Field] = []
        self.whole = False

    @property
    def size(self) -> int:
        """How many bytes are kept."""
        return len(self._buffer)

    def feed(self, text: bytes) -> bytes:
        """Return the part of text that belongs to the body, once the header is whole.

        The header ends at the first line that is neither a field nor the continuation of
        one. An empty line there is the separator and is dropped; any other begins the body.
        """
        if self.whole:
            return text
        self._buffer += text
        while (end := self._buffer.find(b"\n", self._searched) + 1) > 0:
            line = bytes(self._buffer[self._next : end])
            if not self._belongs(line):
                return self._end(end if line == b"\n" else self._next)
            self._next = self._searched = end
        self._searched = len(self._buffer)
        return b""

    def finish(self) -> bytes:
        """End a message that may have no body; return the part of it that is no header."""
        if self.whole:
            return b""
        line = bytes(self._buffer[self._next :])
        if line and self._belongs(line):  # a last line without its end
            self._buffer += b"\n"
            self._next = len(self._buffer)
        return self._end(self._next)

    def _belongs(self, line: bytes) -> bool:
        if line[:1] in (b" ", b"\t"):
            return bool(self._starts)
        name = field_name(line)
        if name is None and self._mbox and line.startswith(b"From "):
            name = MBOX_LINE.lower()
        if name is None:
            return False
        self._starts.append((name, self._next))
        return True

    def _end(self, body: int) -> bytes:
        bounds = [start for _, start in self._starts] + [self._next]
        self.fields = [
            _field(name, bytes(self._buffer[start:end]))
            for (name, start), end in zip(self._starts, bounds[1:], strict=True)
        ]
        rest = bytes(self._buffer[body:])
        self._buffer = bytearray()
        self.whole = True
        return rest


def _field(name: bytes, raw: bytes) -> Field:
    """Return the field, with its name in front of a line that came without one."""
    if name == MBOX_LINE.lower() and raw.startswith(b"From "):
        raw = MBOX_LINE + b": " + raw
    return Field(name, raw)


def join(fields: Iterable[Field]) -> bytes:
    """Return the bytes of a header, with the empty line that ends it."""
    return b"".join([field.raw for field in fields] + [b"\n"])


def make(name: bytes, value: bytes) -> Field:
    """Return a new field."""
    return Field(name.lower(), name + b": " + value + b"\n")
