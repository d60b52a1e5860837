"""Looking into todo/, when the trigger is pulled and now and then (INTERNALS, section 7)."""

import os
from collections.abc import Container, Iterator

from pyqmail.queue import layout
from pyqmail.send.delivery import RETRY_TROUBLE

LOOK_INTERVAL = 1500  # seconds between looks when nobody pulls the trigger


class Todo:
    """Which messages wait in todo/."""

    def __init__(self) -> None:
        """Have the first look at once."""
        self.trigger = -1
        self.look_at = 0
        self.looks = 0
        self._names: Iterator[os.DirEntry[str]] | None = None

    def pulled(self) -> None:
        """Look as soon as the present look is over."""
        self.look_at = 0

    def look_again(self, now: int) -> None:
        """Look soon: something is still there that the system has refused to deal with."""
        self.look_at = min(self.look_at, now + RETRY_TROUBLE)

    @property
    def looking(self) -> bool:
        """Whether a look is going on."""
        return self._names is not None

    def begin(self, now: int) -> None:
        """Begin a look.

        Raises:
            OSError: the directory cannot be opened.
        """
        # Opened anew before every look: what is put into todo from now on pulls it.
        if self.trigger >= 0:
            os.close(self.trigger)
        try:
            self.trigger = os.open(layout.TRIGGER, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self.look_at = now + LOOK_INTERVAL
        except OSError:
            self.trigger = -1
            self.look_at = now + RETRY_TROUBLE  # nobody can wake us
        self._names = os.scandir("todo")
        self.looks += 1

    def take(self, count: int, known: Container[int] = ()) -> list[int]:
        """Return up to count messages, none of the known ones; the look ends with the last one.

        Raises:
            OSError: the directory cannot be read.
        """
        numbers: list[int] = []
        for entry in self._names or ():
            if entry.name.isdigit() and (number := int(entry.name)) not in known:
                numbers.append(number)
                if len(numbers) == count:
                    return numbers
        self._names = None
        return numbers
