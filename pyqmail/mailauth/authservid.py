"""Whose an Authentication-Results field claims to be (RFC 8601, 2.2 and 5)."""

import re

WORD = re.compile(rb'[^\s;()"\\]+')
BLANK = re.compile(rb"\s+")


def claims(value: bytes, identity: bytes) -> bool:
    """Say whether a field's value begins with our authserv-id, in any case of its letters.

    One whose beginning cannot be read claims it as well: it may look so to another reader.
    """
    name = _first_word(value)
    return name is None or name.lower().rstrip(b".") == identity.lower().rstrip(b".")


def _first_word(value: bytes) -> bytes | None:
    """Return the word or quoted string after blanks and comments, None if there is neither."""
    position = 0
    while position < len(value):
        if blank := BLANK.match(value, position):
            position = blank.end()
        elif value[position : position + 1] == b"(":
            position = _after_comment(value, position)
        elif value[position : position + 1] == b'"':
            return _quoted(value, position + 1)
        else:
            word = WORD.match(value, position)
            return word[0] if word else None
    return None


def _after_comment(value: bytes, position: int) -> int:
    """Return the place after the comment that begins at position; comments nest."""
    depth = 0
    while position < len(value):
        character = value[position : position + 1]
        position += 2 if character == b"\\" else 1
        depth += (character == b"(") - (character == b")")
        if not depth:
            return position
    return len(value)


def _quoted(value: bytes, position: int) -> bytes | None:
    """Return what stands between position and the closing quote."""
    text = b""
    while position < len(value):
        character = value[position : position + 1]
        if character == b'"':
            return text
        if character == b"\\":
            position += 1
            character = value[position : position + 1]
        text += character
        position += 1
    return None
