"""Address lists in header fields (RFC 5322, 3.4, with the older forms that are in use).

The reader never changes what it reads: it says where each address stands, and a rewriter
replaces host names in place. Phrases, comments, quoting, groups, source routes, folding
and 8-bit bytes stay as they are.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

TOKEN = re.compile(
    rb"""
    (?P<space> [ \t\r\n]+ )
  | (?P<comment> \( )
  | (?P<quoted> " (?: [^"\\] | \\ . )* " )
  | (?P<literal> \[ (?: [^\]\\] | \\ . )* \] )
  | (?P<special> [<>,;:@.] )
  | (?P<atom> (?: [^\x00-\x20\x7f()<>,;:@."\[\]\\] | \\ . )+ )
    """,
    re.VERBOSE | re.DOTALL,
)
COMMENT_PART = re.compile(rb"[^()\\]+|\\.|[()]", re.DOTALL)
NEAR = 500  # words and dots beside an @; with more it is nobody's address
ESCAPE = re.compile(rb"\\(.)", re.DOTALL)

# The form that nearly every address has, for reading it in one step: a phrase of plain
# words or one quoted string, then box@host, in angle brackets if there was a phrase.
_DOTTED = rb"[A-Za-z0-9_+-]++(?:\.[A-Za-z0-9_+-]++)*+"
_SPACE = rb"[ \t\n]*+"
COMMON = re.compile(
    _SPACE
    + rb"(?:(?:\"[^\"\\\x00-\x1f\x7f]*+\""
    + _SPACE
    + rb"|[A-Za-z0-9_+.='?*/& \t\n\x80-\xff-]*+)<"
    + rb"(?P<box>%s)@(?P<host>%s)>" % (_DOTTED, _DOTTED)
    + rb"|(?P<bare_box>%s)@(?P<bare_host>%s))" % (_DOTTED, _DOTTED)
    + _SPACE
)


class ListError(Exception):
    """The field is not an address list: an open quote or comment, or a control character."""


class Token(NamedTuple):
    """A piece of the field's value, without white space and comments."""

    kind: str  # quoted, literal, special, atom
    text: bytes
    start: int
    end: int

    @property
    def is_word(self) -> bool:
        """True for what can be a part of a name."""
        return self.kind != "special"

    @property
    def plain(self) -> bytes:
        """The text without quoting."""
        if self.kind == "quoted":
            return ESCAPE.sub(rb"\1", self.text[1:-1])
        return ESCAPE.sub(rb"\1", self.text) if self.kind == "atom" else self.text


class Mailbox(NamedTuple):
    """One address of a list."""

    box: bytes  # unquoted; empty for <>
    host: bytes | None  # None when it has none
    start: int  # where the host stands in the value; where one would be put
    end: int
    before: int | None  # where a comma is missing in front of the address

    @property
    def address(self) -> bytes:
        """The address as it is in an envelope."""
        return self.box if self.host is None else self.box + b"@" + self.host


def tokens(value: bytes) -> list[Token]:
    """Return the tokens of a field's value.

    Raises:
        ListError: see there.
    """
    found = []
    position = 0
    while position < len(value):
        match = TOKEN.match(value, position)
        if match is None:
            raise ListError
        kind = match.lastgroup or ""
        start = position
        position = _comment_end(value, start) if kind == "comment" else match.end()
        if kind not in ("space", "comment"):
            found.append(Token(kind, value[start:position], start, position))
    return found


def _comment_end(value: bytes, start: int) -> int:
    depth = 0
    for match in COMMENT_PART.finditer(value, start):
        if match.group() == b"(":
            depth += 1
        elif match.group() == b")":
            depth -= 1
            if not depth:
                return match.end()
    raise ListError


class _Reader:
    """The state between two tokens."""

    def __init__(self) -> None:
        self.found: list[Mailbox] = []
        self.words: list[Token] = []  # of an address, or of the phrase before one
        self.angle: list[Token] | None = None  # what < has opened
        self.behind: Token | None = None  # the > that has just ended an address

    def take(self, token: Token) -> None:
        """Go on by one token."""
        if self.angle is not None:
            self._inside(token)
        elif token.text == b"<":
            self.angle = []
        elif token.text in (b",", b";"):
            self.end()
        elif token.text == b":":
            self.words = []  # the name of a group
        elif token.text == b">":
            raise ListError
        else:
            self.words.append(token)

    def _inside(self, token: Token) -> None:
        assert self.angle is not None
        if token.text == b"<":
            raise ListError
        if token.text != b">":
            self.angle.append(token)
            return
        inside = self.angle
        if inside and inside[0].text == b"@":
            route = next((i for i, part in enumerate(inside) if part.text == b":"), None)
            inside = [] if route is None else inside[route + 1 :]
        self.found.append(_mailbox(inside, token.start, self._missing()))
        self.angle = None
        self.words = []
        self.behind = token

    def _missing(self) -> int | None:
        return None if self.behind is None else self.behind.end

    def end(self) -> None:
        """An element of the list ends here."""
        if self.angle is not None:
            raise ListError
        self._bare()
        self.words = []
        self.behind = None

    def _bare(self) -> None:
        """Read words without angle brackets; where two stand side by side a comma is missing."""
        missing = self._missing()
        address: list[Token] = []
        for token in self.words:
            if address and token.is_word and address[-1].is_word:
                self.found.append(_mailbox(address, address[-1].end, missing))
                missing = address[-1].end
                address = []
            address.append(token)
        if address:
            self.found.append(_mailbox(address, address[-1].end, missing))


def _mailbox(parts: list[Token], end: int, before: int | None) -> Mailbox:
    at = max((i for i, part in enumerate(parts) if part.text == b"@"), default=None)
    if at is None:
        where = parts[-1].end if parts else end
        return Mailbox(b"".join(part.plain for part in parts), None, where, where, before)
    box = b"".join(part.plain for part in parts[:at])
    domain = parts[at + 1 :]
    if not domain:
        return Mailbox(box, b"", parts[at].end, parts[at].end, before)
    # Quotes have no place in a host name; without them it would become something else.
    host = b"".join(part.text for part in domain)
    return Mailbox(box, host, domain[0].start, domain[-1].end, before)


def _common(value: bytes) -> list[Mailbox] | None:
    """Return the addresses of a list that has only common ones, None for any other."""
    found = []
    position = 0
    while match := COMMON.match(value, position):
        end = match.end()
        if value[end : end + 1] not in (b"", b","):
            return None
        group = "" if match["box"] is not None else "bare_"
        start, stop = match.span(group + "host")
        found.append(Mailbox(match[group + "box"], match[group + "host"], start, stop, None))
        if end == len(value):
            return found
        position = end + 1
    return None


def mailboxes(value: bytes) -> list[Mailbox]:
    """Return the addresses of a list, those in groups included, in order.

    Raises:
        ListError: the value is not an address list; do not guess what it means.
    """
    found = _common(value)
    if found is not None:
        return found
    reader = _Reader()
    for token in tokens(value):
        reader.take(token)
    reader.end()
    return reader.found


def every_address(value: bytes) -> list[bytes]:
    """Return each address that somebody might find in a list, and some more than once.

    Programs differ on what a source route, a second ``@``, or one in a phrase or in a
    group's name mean. Who asks whose a list is has to ask for what any of them could show.

    Raises:
        ListError: there is a control character in it; or see `mailboxes`.
    """
    common = _common(value)
    if common is not None:
        return [one.address for one in common]
    if any(code < 32 and code not in b"\t\n" for code in value):
        raise ListError
    found = [one.address for one in mailboxes(value)]
    parts = tokens(value)
    for position, token in enumerate(parts):
        if token.kind == "special" and token.text == b"@":
            box = _dotted(reversed(parts[max(0, position - NEAR) : position]))
            host = _dotted(parts[position + 1 : position + 1 + NEAR])
            found.append(b"".join(reversed(box)) + b"@" + b"".join(host))
    return found


def _dotted(parts: Iterable[Token]) -> list[bytes]:
    """Return words with dots between them, from the first on, as far as they go."""
    found: list[bytes] = []
    wants_word = True
    for part in parts:
        if part.is_word is not wants_word or not (part.is_word or part.text == b"."):
            break
        found.append(part.plain)
        wants_word = not wants_word
    return found


def rewrite(value: bytes, host: Callable[[bytes], bytes]) -> bytes:
    """Return the value with every host name rewritten and missing ones and commas added.

    A value that is not an address list is returned as it is.

    Args:
        value: of the field.
        host: from a host name, empty where there is none, to the one to be there.
    """
    try:
        found = mailboxes(value)
    except ListError:
        return value
    pieces: list[bytes] = []
    position = 0
    for one in found:
        if one.before is not None:
            pieces += [value[position : one.before], b","]
            position = one.before
        new = host(one.host or b"")
        if (one.box or one.host) and new != (one.host or b""):
            pieces += [value[position : one.start], b"" if one.host is not None else b"@", new]
            pieces += _comments(value[one.start : one.end])
            position = one.end
    return b"".join([*pieces, value[position:]])


def _comments(span: bytes) -> list[bytes]:
    """Return the comments that a replaced host name had inside it, to be kept behind it."""
    kept = []
    position = 0
    while position < len(span):
        match = TOKEN.match(span, position)
        assert match is not None
        end = _comment_end(span, position) if match.lastgroup == "comment" else match.end()
        if match.lastgroup == "comment":
            kept += [b" ", span[position:end]]
        position = end
    return kept


def quote_phrase(name: bytes) -> bytes:
    """Return a personal name as a phrase: quoted, without control characters."""
    clean = bytes(32 if code < 32 or code == 127 else code for code in name)
    return b'"' + clean.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
