"""qmail-send's end of the two pipes to qmail-clean."""

import os
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from pyqmail.send import clean
from pyqmail.send.clean import Action

READ = 4096  # answers of one read


class CleanerDied(Exception):
    """qmail-clean has closed its pipes."""


class Cleaned(NamedTuple):
    """What became of one request."""

    action: Action
    number: int
    done: bool


class Cleaner:
    """Requests out, answers in, never waiting for either; answers come in order."""

    __slots__ = ("_asked", "_out", "alive", "read_fd", "write_fd")

    def __init__(self, write_fd: int, read_fd: int) -> None:
        """Send commands to write_fd, read answers from read_fd; both become non-blocking."""
        self.write_fd = write_fd
        self.read_fd = read_fd
        self.alive = True
        self._out = b""
        self._asked: deque[tuple[Action, int]] = deque()
        os.set_blocking(write_fd, False)
        os.set_blocking(read_fd, False)

    @property
    def busy(self) -> bool:
        """Whether an answer is outstanding."""
        return bool(self._asked)

    @property
    def blocked(self) -> bool:
        """Whether something waits for write_fd to become writable."""
        return bool(self._out)

    def ask(self, action: Action, numbers: Iterable[int]) -> None:
        """Ask for an action on each message.

        Raises:
            CleanerDied: nobody reads.
        """
        for number in numbers:
            self._asked.append((action, number))
            self._out += clean.encode(action, number)
        self.flush()

    def flush(self) -> None:
        """Write what can be written now.

        Raises:
            CleanerDied: nobody reads.
        """
        try:
            while self._out:
                self._out = self._out[os.write(self.write_fd, self._out) :]
        except BlockingIOError:
            pass
        except OSError as error:
            raise CleanerDied from error

    def receive(self) -> list[Cleaned]:
        """Return what is done.

        Raises:
            CleanerDied: end of file, or an answer that nobody asked for.
        """
        try:
            answers = os.read(self.read_fd, READ)
        except BlockingIOError:
            return []
        except OSError as error:
            raise CleanerDied from error
        if not answers or len(answers) > len(self._asked):
            raise CleanerDied
        cleaned = []
        for answer in answers:
            action, number = self._asked.popleft()
            cleaned.append(Cleaned(action, number, answer == clean.DONE[0]))
        return cleaned
