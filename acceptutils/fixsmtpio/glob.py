"""fnmatch(3) without flags, on bytes, in the C locale.

``?`` is any byte, ``*`` any run of bytes (``/`` and a leading ``.`` included), ``[...]`` a
set with ``!`` or ``^`` for its complement, ranges and ``[:class:]``; a backslash takes the
next byte literally. Where POSIX leaves the meaning of a pattern open, glibc's is taken.

A pattern is compiled once. Matching never recurses and never goes back over more than
the last ``*``: the parts between two stars are each put at the first place where they
fit, which is enough, because a star takes whatever is left.
"""

from typing import NamedTuple

_STAR, _ANY, _ESCAPE, _OPEN, _CLOSE = b"*?\\[]"


def _members(*ranges: tuple[int, int]) -> frozenset[int]:
    return frozenset(byte for first, last in ranges for byte in range(first, last + 1))


_UPPER = _members((65, 90))
_LOWER = _members((97, 122))
_DIGIT = _members((48, 57))
_GRAPH = _members((33, 126))

CLASSES = {
    b"alnum": _UPPER | _LOWER | _DIGIT,
    b"alpha": _UPPER | _LOWER,
    b"blank": frozenset(b" \t"),
    b"cntrl": _members((0, 31), (127, 127)),
    b"digit": _DIGIT,
    b"graph": _GRAPH,
    b"lower": _LOWER,
    b"print": _GRAPH | frozenset(b" "),
    b"punct": _GRAPH - _UPPER - _LOWER - _DIGIT,
    b"space": frozenset(b" \t\n\v\f\r"),
    b"upper": _UPPER,
    b"xdigit": _DIGIT | _members((65, 70), (97, 102)),
}

_EVERY_BYTE = _members((0, 255))


class _Part(NamedTuple):
    """What stands between two stars: a fixed number of bytes."""

    length: int
    literals: tuple[tuple[int, bytes], ...]  # offset, bytes that must stand there
    sets: tuple[tuple[int, frozenset[int]], ...]  # offset, bytes that may stand there

    def fits(self, text: bytes, at: int) -> bool:
        for offset, literal in self.literals:
            if not text.startswith(literal, at + offset):
                return False
        return all(text[at + offset] in allowed for offset, allowed in self.sets)

    def find(self, text: bytes, start: int, end: int) -> int:
        """Return the first place in text[start:end] where the part fits, -1 for none."""
        last = end - self.length
        if not self.literals:
            places = range(start, last + 1)
            return next((place for place in places if self.fits(text, place)), -1)
        offset, literal = max(self.literals, key=lambda entry: len(entry[1]))
        while start <= last:
            place = text.find(literal, start + offset, last + offset + len(literal)) - offset
            if place < start:
                return -1
            if self.fits(text, place):
                return place
            start = place + 1
        return -1


class Glob:
    """A compiled pattern; `pattern` is its source."""

    __slots__ = ("_parts", "pattern")

    def __init__(self, pattern: bytes) -> None:
        self.pattern = pattern
        self._parts = _compile(pattern)

    def __repr__(self) -> str:
        return f"Glob({self.pattern!r})"

    def match(self, text: bytes) -> bool:
        """Tell whether the pattern matches the whole of text."""
        parts = self._parts
        if not parts:
            return False
        first = parts[0]
        if len(parts) == 1:
            return len(text) == first.length and first.fits(text, 0)
        last = parts[-1]
        end = len(text) - last.length
        start = first.length
        if end < start or not first.fits(text, 0) or not last.fits(text, end):
            return False
        for part in parts[1:-1]:
            place = part.find(text, start, end)
            if place < 0:
                return False
            start = place + part.length
        return True


def _compile(pattern: bytes) -> tuple[_Part, ...]:
    """Return the parts between the stars; none at all for what can match nothing."""
    parts: list[_Part] = []
    tokens: list[int | frozenset[int]] = []
    at = 0
    while at < len(pattern):
        byte = pattern[at]
        at += 1
        if byte == _STAR:
            parts.append(_part(tokens))
            tokens = []
        elif byte == _ANY:
            tokens.append(_EVERY_BYTE)
        elif byte == _ESCAPE:
            if at == len(pattern):
                return ()  # a backslash that escapes nothing matches nothing
            tokens.append(pattern[at])
            at += 1
        elif byte == _OPEN and (bracket := _bracket(pattern, at)):
            tokens.append(bracket.allowed)
            at = bracket.end
        else:
            tokens.append(byte)
    parts.append(_part(tokens))
    return tuple(parts)


def _part(tokens: list[int | frozenset[int]]) -> _Part:
    literals: list[tuple[int, bytes]] = []
    sets: list[tuple[int, frozenset[int]]] = []
    run = bytearray()
    for offset, token in enumerate([*tokens, _EVERY_BYTE]):
        if isinstance(token, int):
            run.append(token)
            continue
        if run:
            literals.append((offset - len(run), bytes(run)))
            run.clear()
        if token is not _EVERY_BYTE:
            sets.append((offset, token))
    return _Part(len(tokens), tuple(literals), tuple(sets))


class _Bracket(NamedTuple):
    allowed: frozenset[int]
    end: int  # where the pattern goes on behind the closing bracket


def _bracket(pattern: bytes, at: int) -> _Bracket | None:
    """Read a bracket expression whose first byte is pattern[at]; None if it never ends."""
    complement = pattern[at : at + 1] in (b"!", b"^")
    if complement:
        at += 1
    allowed: set[int] = set()
    poisoned = False  # behind an unknown class nothing matches, not even the complement
    first = True
    while at < len(pattern):
        if pattern[at] == _CLOSE and not first:
            if not complement:
                return _Bracket(frozenset(allowed), at + 1)
            return _Bracket(frozenset() if poisoned else _EVERY_BYTE - allowed, at + 1)
        first = False
        if pattern.startswith(b"[.", at) and pattern.find(b".]", at + 2) < 0:
            return _Bracket(frozenset(), len(pattern))  # glibc gives up on it altogether
        if named := _class_name(pattern, at):
            members = CLASSES.get(named.name)
            poisoned = poisoned or members is None
            if members and not poisoned:
                allowed |= members
            at = named.end
            continue
        low, at = _element(pattern, at)
        high = low
        if pattern[at : at + 1] == b"-" and pattern[at + 1 : at + 2] not in (b"]", b""):
            high, at = _element(pattern, at + 1)
        if low < 0 or high < 0:
            return None
        if not poisoned:
            allowed.update(range(low, high + 1))
    return None


class _Named(NamedTuple):
    name: bytes
    end: int


def _class_name(pattern: bytes, at: int) -> _Named | None:
    if not pattern.startswith(b"[:", at):
        return None
    end = pattern.find(b":]", at + 2)
    name = pattern[at + 2 : end]
    if end < 0 or not (name.isalpha() and name.islower()):
        return None
    return _Named(name, end + 2)


def _element(pattern: bytes, at: int) -> tuple[int, int]:
    """Return one member of a set, as itself, escaped, ``[.x.]`` or ``[=x=]``; -1: none."""
    byte = pattern[at]
    if byte == _ESCAPE:
        return (pattern[at + 1], at + 2) if at + 1 < len(pattern) else (-1, at + 1)
    if byte == _OPEN and len(pattern) >= at + 5:
        mark = pattern[at + 1 : at + 2]
        if mark in (b".", b"=") and pattern[at + 3 : at + 5] == mark + b"]":
            return pattern[at + 2], at + 5
    return byte, at + 1
