"""qmail-send's end of the two pipes to qmail-clean."""

import os
from collections.abc import Sequence

from pyqmail.send import clean

# Commands sent before answers are read. What is under way in either direction always
# fits into a pipe (4,096 bytes at least), so the two never wait for each other.
AT_ONCE = 64


class CleanerDied(Exception):
    """qmail-clean has closed its pipes."""


class Cleaner:
    """Has files removed, several at a time, and waits for it."""

    __slots__ = ("_read", "_write", "alive")

    def __init__(self, write: int, read: int) -> None:
        """Send commands to the descriptor write, read answers from read."""
        self._write = write
        self._read = read
        self.alive = True

    def remove(self, action: clean.Action, numbers: Sequence[int]) -> list[bool]:
        """Ask for action on each message; return for each whether it was done.

        Raises:
            CleanerDied: nobody answers. What was done is not known.
        """
        done: list[bool] = []
        for start in range(0, len(numbers), AT_ONCE):
            some = numbers[start : start + AT_ONCE]
            self._send(b"".join(clean.encode(action, number) for number in some))
            done += self._answers(len(some))
        return done

    def _send(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._write, data) :]
        except OSError as error:
            raise self._died() from error

    def _answers(self, count: int) -> list[bool]:
        answers = b""
        while len(answers) < count:
            try:
                more = os.read(self._read, count - len(answers))
            except OSError as error:
                raise self._died() from error
            if not more:
                raise self._died()
            answers += more
        return [bytes([answer]) == clean.DONE for answer in answers]

    def _died(self) -> CleanerDied:
        self.alive = False
        return CleanerDied()
