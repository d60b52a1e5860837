"""qmail-send's log lines: qmail-log(5), character for character.

Tools read them (qmailanalog, matchup), so nothing is added and nothing reworded.
"""

import os

_SAFE = bytes(
    ord("/") if code == 10 else code if 33 <= code <= 126 and code != ord("%") else ord("_")
    for code in range(256)
)


def safe(text: bytes) -> bytes:
    """Return text for a log line: LF becomes ``/``, all but visible ASCII, and ``%``, ``_``."""
    return text.translate(_SAFE)


class Log:
    """Writes lines to a descriptor at once, waiting for the logger if it must."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        """Write to descriptor, which stays open."""
        self._descriptor = descriptor

    def line(self, *parts: bytes | str | int) -> None:
        """Write one line. A log that is gone stops nobody from delivering mail."""
        text = b"".join(
            part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogateescape")
            for part in parts
        )
        view = memoryview(text + b"\n")
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:
            pass
