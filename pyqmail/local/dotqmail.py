"""The language of .qmail files (dot-qmail(5)): names to look for, lines to follow.

Pure: nothing here opens a file.
"""

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from pyqmail.local.failure import temporary

BLANK_FIRST_LINE = "Uh-oh: first line of .qmail file is blank. (#4.2.1)"
FILE_WITH_X_BIT = "Uh-oh: .qmail has file delivery but has x bit set. (#4.7.0)"
PROGRAM_WITH_X_BIT = "Uh-oh: .qmail has prog delivery but has x bit set. (#4.7.0)"


class Kind(Enum):
    """What a line of a .qmail file asks for; the value is what ``qmail-local -n`` prints."""

    MBOX = b"mbox"
    MAILDIR = b"maildir"
    PROGRAM = b"program"
    FORWARD = b"forward"


class Instruction(NamedTuple):
    """One delivery instruction."""

    kind: Kind
    text: bytes  # a path, a command for the shell, or an address


class Candidate(NamedTuple):
    """A .qmail file that would control the delivery if it existed."""

    name: bytes
    default: bytes | None  # the value of DEFAULT then, None for no such variable


def safe_extension(ext: bytes) -> bytes:
    """Return ext as it occurs in file names: lower case, dots (and so ``..``) as colons."""
    return ext.lower().replace(b".", b":")


def candidates(dash: bytes, ext: bytes) -> Iterator[Candidate]:
    """Yield the .qmail files for an address in the order in which they are tried.

    For dash ``-`` and ext ``a-b``: .qmail-a-b, .qmail-a-default, .qmail-default.
    """
    safe = safe_extension(ext)
    stem = b".qmail" + dash
    own_default = ext[len(safe) - 7 :] if safe.endswith(b"default") else None
    yield Candidate(stem + safe, own_default)
    for end in range(len(safe), -1, -1):
        if end == 0 or safe[end - 1 : end] == b"-":
            yield Candidate(stem + safe[:end] + b"default", ext[end:])


def owner_names(dash: bytes, ext: bytes) -> tuple[bytes, bytes]:
    """Return the names of the -owner and the -owner-default file for an address."""
    stem = b".qmail" + dash + safe_extension(ext) + b"-owner"
    return stem, stem + b"-default"


def instructions(content: bytes, *, forward_only: bool) -> Iterator[Instruction]:
    """Yield the instructions of a .qmail file as they are reached.

    Args:
        content: the file; or the default delivery, when the file is empty or missing.
        forward_only: the file has its x bit set: only forwards are allowed.

    Raises:
        Failure: (temporary) at the first line that must not be there. Lines before it
            have been yielded; lines after an exit status of 99 are never looked at.
    """
    for number, raw in enumerate(content.removesuffix(b"\n").split(b"\n")):
        line = raw.rstrip(b" \t")
        first = line[:1]
        if not line:
            if number == 0:
                raise temporary(BLANK_FIRST_LINE)
        elif first == b"#":
            pass
        elif first in (b".", b"/"):
            if forward_only:
                raise temporary(FILE_WITH_X_BIT)
            yield Instruction(Kind.MAILDIR if line.endswith(b"/") else Kind.MBOX, line)
        elif first == b"|":
            if forward_only:
                raise temporary(PROGRAM_WITH_X_BIT)
            yield Instruction(Kind.PROGRAM, line[1:])
        elif first == b"+":
            forward_only = forward_only or line == b"+list"  # other words: reserved
        else:
            yield Instruction(Kind.FORWARD, line.removeprefix(b"&"))
