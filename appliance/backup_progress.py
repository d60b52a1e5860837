"""How far a long command is, for a person who waits at a terminal."""

import sys
import time

INTERVAL = 0.2  # seconds
LONGEST = 60  # characters of a name


class Progress:
    """One line on standard error that is written over; nothing where that is no terminal."""

    def __init__(self) -> None:
        """Begin without a line."""
        self._wanted = sys.stderr.isatty()
        self._next = 0.0
        self.name = ""  # what is being done

    def show(self, size: int) -> None:
        """Say that size bytes are done, now and then."""
        if self._wanted and time.monotonic() >= self._next:
            self._next = time.monotonic() + INTERVAL
            sys.stderr.write(f"\r\033[K{size >> 20} MiB  {ascii(self.name)[1:-1][:LONGEST]}")
            sys.stderr.flush()

    def end(self) -> None:
        """Take the line away."""
        if self._next:
            self._next = 0.0
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
