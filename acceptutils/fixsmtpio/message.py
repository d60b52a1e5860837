"""The bytes of a message after DATA: where they end, and what may not be in them.

Only CR LF ``.`` CR LF ends a message. A CR without LF, or an LF without CR, is refused
before it reaches the server, so no server can see another end than this proxy does:
look-alikes of the end are what SMTP smuggling is made of. A NUL where the dot of an end
would stand is refused for the servers that drop NULs or stop a line at one.
"""

import re
from enum import Enum, auto
from typing import NamedTuple

END = b"\r\n.\r\n"

_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\r\n\.?\0")
_BARE_BUT_LF = re.compile(rb"\r(?!\n)|\r\n\.?\0")


class Verdict(Enum):
    """What the bytes so far are."""

    MORE = auto()  # the message goes on
    END = auto()  # it is complete
    BARE = auto()  # a bare CR or LF: refuse
    NUL = auto()  # a NUL beside the start of a line: refuse


class Scan(NamedTuple):
    """The first `length` bytes may be passed on; then `verdict` holds."""

    length: int
    verdict: Verdict


def scan(window: bytes, bare_lf: bool = False) -> Scan:
    """Look at bytes of a message that start where no end of message is under way.

    A tail that may be the start of an end, or a CR whose LF is still to come, is not in
    `length`: it has to be put in front of the next bytes.

    Args:
        window: bytes of the message; CR LF has to be put in front of the first ones, as
            the line end of DATA counts for the dot that ends an empty message.
        bare_lf: let an LF without CR through.
    """
    end = window.find(END)
    length = end + len(END) if end >= 0 else len(window) - _held(window)
    if _is_suspect(window[:length], bare_lf):
        found = (_BARE_BUT_LF if bare_lf else _BARE).search(window, 0, length)
        if found and found[0].endswith(b"\0"):
            return Scan(found.start() + len(b"\r\n"), Verdict.NUL)
        if found:
            return Scan(found.start(), Verdict.BARE)
    return Scan(length, Verdict.END if end >= 0 else Verdict.MORE)


def _is_suspect(body: bytes, bare_lf: bool) -> bool:
    """Tell whether the search for something to refuse, which is slow, is worth it.

    Deleting a byte and comparing lengths counts it several times faster than count().
    """
    returns = len(body) - len(body.replace(b"\r", b""))
    if returns != body.count(b"\r\n"):
        return True
    if not bare_lf and returns != len(body) - len(body.replace(b"\n", b"")):
        return True
    return b"\0" in body and (b"\n\0" in body or b"\n.\0" in body)


def _held(window: bytes) -> int:
    """Return how many of the last bytes are the start of an end of message."""
    for length in range(len(END) - 1, 0, -1):
        if window.endswith(END[:length]):
            return length
    return 0


class Scanner:
    """Scans one message, however its bytes are split."""

    __slots__ = ("_bare_lf", "_held", "_unsent", "received")

    def __init__(self, bare_lf: bool) -> None:
        self._bare_lf = bare_lf
        self._held = b"\r\n"
        self._unsent = len(self._held)  # of what is held: DATA's own line end, sent before
        self.received = 0  # bytes; a slow sender is measured by it

    def feed(self, data: bytes) -> tuple[bytes, Verdict, bytes]:
        """Return what to pass on, the verdict, and behind an end the bytes that follow."""
        self.received += len(data)
        window = self._held + data
        length, verdict = scan(window, self._bare_lf)
        passed = window[self._unsent : length]
        self._unsent = max(0, self._unsent - length)
        self._held = window[length:] if verdict is Verdict.MORE else b""
        return passed, verdict, window[length:] if verdict is Verdict.END else b""
