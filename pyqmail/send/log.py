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


KEPT_LIMIT = 4096  # bytes


class Log:
    """Writes lines to a descriptor, waiting for the logger if it must.

    A logger that is woken for every line costs more than the line. So a program with a
    loop may have the lines of one turn kept, and flushes before it waits.
    """

    __slots__ = ("_descriptor", "_kept", "_size", "keeps")

    def __init__(self, descriptor: int) -> None:
        """Write to descriptor, which stays open."""
        self._descriptor = descriptor
        self._kept: list[bytes] = []
        self._size = 0
        self.keeps = False  # lines until `flush`

    def line(self, *parts: bytes | str | int) -> None:
        """Write one line. A log that is gone stops nobody from delivering mail."""
        for part in parts:
            text = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogateescape")
            self._kept.append(text)
            self._size += len(text)
        self._kept.append(b"\n")
        if not self.keeps or self._size >= KEPT_LIMIT:
            self.flush()

    def flush(self) -> None:
        """Write the lines that were kept."""
        if not self._kept:
            return
        view = memoryview(b"".join(self._kept))
        self._kept.clear()
        self._size = 0
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:
            pass
