"""Replies (RFC 5321, 4.2): read them from the server, change them by rule, write them.

A reply is a list of lines, each with the place it had in the server's reply, so that a
fixup for "the first line" still knows it when an earlier rule has removed or added some.
"""

from collections.abc import Iterator
from typing import NamedTuple

from acceptutils.fixsmtpio.rules import FIXUP, GREETING, NOOP, Rule, Selection

# RFC 5321, 4.5.3.1.5 allows a server 512 bytes a line; real ones send more.
LINE_LIMIT = 4096
REPLY_LIMIT = 65536

HOME_PAGE = b"214 fixsmtpio home page: https://schmonz.com/qmail/acceptutils"
ADDED = -1  # the place of a line that the server did not send

# Extensions whose dialogue this proxy does not follow: BDAT's octets (RFC 3030) are neither
# commands nor DATA, and with PRDR (Exim's) there are several replies to one message.
WITHHELD_EXTENSIONS = frozenset((b"CHUNKING", b"BINARYMIME", b"PRDR"))

# A bare CR or a NUL inside a reply line could end it early for some reader.
_HARMLESS = bytes.maketrans(b"\r\0", b"??")


class MalformedReply(Exception):
    """The server sent something that is no reply, or one beyond the limits."""


class Line(NamedTuple):
    """One line of a reply without its line end, and its place (0 is the first)."""

    place: int
    text: bytes


class Fixups(NamedTuple):
    """What the computed responses need to know."""

    greeting: bytes
    offer_starttls: bool


class Change(NamedTuple):
    """What one rule did to a reply: for people who try rules."""

    rule: Rule
    before: tuple[bytes, ...]
    after: tuple[bytes, ...]


class Changed(NamedTuple):
    """A reply after the rules, and the last exit code of those that matched."""

    lines: list[Line]
    exitcode: int | None


def has_code(text: bytes) -> bool:
    """Tell whether text starts with a reply code: 2 to 5 and two more digits."""
    return text[:3].isdigit() and len(text) >= 3 and text[0] in b"2345"


def is_reply_line(text: bytes) -> bool:
    """Tell whether text can stand in a reply: a code, then nothing, a blank or a dash."""
    return has_code(text) and text[3:4] in (b"", b" ", b"-")


def is_last(text: bytes) -> bool:
    """Tell whether this reply line is the last: no dash behind its code."""
    return text[3:4] != b"-"


class Reader:
    """Cuts the server's bytes into replies, with a bound on what it keeps."""

    __slots__ = ("_lines", "_rest", "_size")

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[list[bytes]]:
        """Yield the replies completed by data, each as lines without line ends.

        Raises:
            MalformedReply: a line without a code, or a line or reply beyond its limit.
        """
        window = self._rest + data if self._rest else data
        start = 0
        while (end := window.find(b"\n", start)) >= 0:
            text = window[start:end]
            start = end + 1
            if reply := self._line(text[:-1] if text.endswith(b"\r") else text):
                yield reply
        self._rest = window[start:]
        if len(self._rest) > LINE_LIMIT + len(b"\r"):
            raise MalformedReply("a line without an end")

    def end(self) -> list[bytes] | None:
        """Return the reply that a missing last line end kept back, at the end of file."""
        text, self._rest = self._rest.rstrip(b"\r"), b""
        return self._line(text) if is_reply_line(text) and is_last(text) else None

    def _line(self, text: bytes) -> list[bytes] | None:
        if not is_reply_line(text):
            shown = text[:80].decode("ascii", "backslashreplace")
            raise MalformedReply(f"not a reply line: {shown}")
        if b"\r" in text or b"\0" in text:
            text = text.translate(_HARMLESS)
        self._size += len(text) + 2
        if len(text) > LINE_LIMIT or self._size > REPLY_LIMIT:
            raise MalformedReply("reply too long")
        self._lines.append(text)
        if not is_last(text):
            return None
        reply, self._lines, self._size = self._lines, [], 0
        return reply


def change(
    reply: list[bytes],
    event: bytes,
    selection: Selection,
    fixups: Fixups,
    changes: list[Change] | None = None,
) -> Changed:
    """Apply the rules for event to a reply, each to what the ones before it made.

    Args:
        reply: the server's lines, without line ends.
        event: in lower case.
        selection: the rules that hold.
        fixups: what the computed responses say.
        changes: when given, what each matching rule did is appended.
    """
    lines = [Line(place, text) for place, text in enumerate(reply)]
    exitcode = None
    for rule in selection.replies.get(event, ()):
        matching = {line for line in lines if rule.glob.match(line.text)}
        if not matching:
            continue
        if rule.exitcode is not None:
            exitcode = rule.exitcode
        after = _respond(rule, lines, matching, fixups)
        if changes is not None:
            changes.append(
                Change(rule, tuple(line.text for line in lines), tuple(line.text for line in after))
            )
        lines = after
    return Changed(lines, exitcode)


def _respond(rule: Rule, lines: list[Line], matching: set[Line], fixups: Fixups) -> list[Line]:
    if rule.response == NOOP:
        return lines
    if rule.response == FIXUP:
        if rule.event == b"help":
            # In front of the reply, once, however many of its lines the rule matches.
            return [Line(ADDED, HOME_PAGE), *lines]
        if rule.event == b"ehlo":
            return _fix_ehlo(lines, matching, fixups)
        first = _FIRST_LINES[rule.event] % fixups.greeting
        return [Line(0, first) if line.place == 0 and line in matching else line for line in lines]
    if not rule.response:
        return [line for line in lines if line not in matching]
    response = rule.response
    return [
        Line(line.place, response if has_code(response) else line.text[:3] + b" " + response)
        if line in matching
        else line
        for line in lines
    ]


_FIRST_LINES = {
    GREETING: b"220 %b ESMTP",
    b"helo": b"250 %b",
    b"ehlo": b"250 %b",
    b"quit": b"221 %b",
}


def _fix_ehlo(lines: list[Line], matching: set[Line], fixups: Fixups) -> list[Line]:
    fixed = []
    for line in lines:
        if line.place == 0:
            text = _FIRST_LINES[b"ehlo"] % fixups.greeting
            fixed.append(Line(0, text) if line in matching else line)
            if fixups.offer_starttls:
                fixed.append(Line(ADDED, b"250-STARTTLS"))
        elif line not in matching or extension(line.text) != b"STARTTLS":
            fixed.append(line)
    return fixed


def extension(text: bytes) -> bytes:
    """Return the keyword of a line of EHLO's reply, in upper case (RFC 5321, 4.1.1.1)."""
    return text[4:].replace(b"=", b" ").partition(b" ")[0].upper()


def withhold(lines: list[Line], keywords: frozenset[bytes]) -> list[Line]:
    """Return EHLO's reply without the lines that announce these extensions."""
    return [line for line in lines if line.place == 0 or extension(line.text) not in keywords]


def render(lines: list[Line]) -> bytes:
    """Return a well-formed reply: a dash behind every code but the last one's."""
    if not lines:
        return b""
    texts = [line.text for line in lines]
    last = texts.pop()
    dashed = [b"%b-%b\r\n" % (text[:3], _words(text)) for text in texts]
    return b"".join(dashed) + b"%b %b\r\n" % (last[:3], _words(last))


def _words(text: bytes) -> bytes:
    return text[4:] if text[3:4] in (b" ", b"-") else text[3:]
