"""New messages: from todo/ to the channels, with files of their own or straight.

A number is known here from when its todo/N was read until qmail-clean says that it is
removed. Until then a look into todo/ passes it over; and as mess/N is there all that time,
no other message can have its number.
"""

import time
from collections.abc import Callable

from pyqmail.send import clean, direct, preprocess
from pyqmail.send.cleaner import Cleaned, Cleaner
from pyqmail.send.delivery import RETRY_TROUBLE, Channel
from pyqmail.send.direct import Direct, Directs
from pyqmail.send.log import Log
from pyqmail.send.preprocess import Envelope
from pyqmail.send.routing import Routing
from pyqmail.send.schedule import LOCAL, Due
from pyqmail.send.todo import Todo

AT_ONCE = 32  # messages that wait for the disk together


class Intake:
    """All messages that have a todo/N."""

    def __init__(
        self,
        routing: Routing,
        channels: list[Channel],
        cleaner: Cleaner,
        log: Log,
        over: Callable[[int], None],
    ) -> None:
        """Begin with nothing known of todo/.

        Args:
            routing: where recipients go; may be replaced.
            channels: local and remote.
            cleaner: removes todo/N.
            log: where lines go.
            over: takes a message that has no recipients.
        """
        self.routing = routing
        self.todo = Todo()
        self._channels = channels
        self._cleaner = cleaner
        self._log = log
        self._over = over
        self._directs = Directs(channels[LOCAL])
        self._settling: dict[int, Direct] = {}  # have files, and still a todo/N
        # What comes when qmail-clean has removed a todo/N.
        self._then: dict[int, Callable[[int], None]] = {}
        self._ask_again = Due()  # those that it was unable to remove

    def __contains__(self, number: object) -> bool:
        """Whether todo/N is that of a message that is known already."""
        return number in self._then or number in self._directs

    def wakeup(self, now: int) -> int:
        """Return when there will be something to do, if nothing happens before."""
        if self.todo.looking:
            return now
        times = [self.todo.look_at]
        if self._directs:
            times.append(now + 1)
        if (again := self._ask_again.first()) is not None:
            times.append(again)
        return min(times)

    def proceed(self, now: int) -> None:
        """Take one batch from todo/, and see to the messages that have no files.

        Raises:
            CleanerDied
        """
        self._look(now)
        self.end_directs(now)
        again = []
        while (number := self._ask_again.take(now)) is not None:
            again.append(number)
        self._cleaner.ask(clean.Action.TODO, again)

    def start(self, take_number: Callable[[], int]) -> None:
        """Start the deliveries of messages without files, as long as there is room.

        Raises:
            SpawnerDied
        """
        self._directs.start(take_number)

    def all_due(self) -> None:
        """Let those that are about to become due by the schedule be so at once."""
        for one in self._settling.values():
            one.retry_now = True

    def cleaned(self, one: Cleaned, now: int) -> None:
        """Hear that qmail-clean has removed a todo/N, or was unable to.

        Raises:
            CleanerDied
        """
        if one.done:
            self._then.pop(one.number)(now)
        else:
            self._ask_again.add(now + RETRY_TROUBLE, one.number)

    def _clean(self, then: dict[int, Callable[[int], None]]) -> None:
        """Have todo/N removed, and call what is to come then with the time."""
        self._then.update(then)
        self._cleaner.ask(clean.Action.TODO, then)

    def _look(self, now: int) -> None:
        try:
            if not self.todo.looking:
                if now < self.todo.look_at:
                    return
                self.todo.begin(now)
            numbers = self.todo.take(AT_ONCE, self)
        except OSError:
            self._log.line("warning: unable to opendir todo")
            self.todo.look_at = now + RETRY_TROUBLE
            return
        # What a crash has left is found in the first look; after that, info/N tells.
        first = self.todo.looks == 1
        to_write: list[Envelope] = []
        clock = time.monotonic()
        for number in numbers:
            try:
                envelope = preprocess.read(number, self.routing, self._log, thorough=first)
            except FileNotFoundError:
                continue  # it was known when the directory was read, and is over by now
            if envelope is None:
                self.todo.look_again(now)
            elif direct.fits(envelope) and not self._directs.full:
                self._directs.add(envelope, now, clock)
            else:
                to_write.append(envelope)
        ready = preprocess.write(to_write, self._log)
        if len(ready) < len(to_write):
            self.todo.look_again(now)
        self._clean({envelope.number: self._due(envelope) for envelope in ready})

    def _due(self, envelope: Envelope) -> Callable[[int], None]:
        def due(now: int) -> None:
            for index in envelope.channels:
                self._channels[index].due.add(now, envelope.number)
            if not envelope.channels:
                self._over(envelope.number)

        return due

    def end_directs(self, now: int) -> None:
        """Remove what is delivered; write files for what is not, and is to go on.

        Raises:
            CleanerDied
        """
        clock = time.monotonic()
        leaving = self._directs.leaving(clock)
        if not leaving:
            return
        then: dict[int, Callable[[int], None]] = {}
        for one in leaving:
            if one.delivered:
                self._log.line("end msg ", one.number)
                then[one.number] = self._remove(one.number)
        others = {one.number: one for one in leaving if not one.delivered}
        for envelope in preprocess.write([one.envelope for one in others.values()], self._log):
            then[envelope.number] = self._settle(others.pop(envelope.number))
        for one in others.values():  # it could not be written
            if one.running is not None and one.outcome is None:
                self._directs.stay(one, clock)
            else:
                self.todo.look_again(now)
        self._clean(then)

    def _remove(self, number: int) -> Callable[[int], None]:
        return lambda now: self._cleaner.ask(clean.Action.FOOP, [number])

    def _settle(self, one: Direct) -> Callable[[int], None]:
        def settle(now: int) -> None:
            del self._settling[one.number]
            direct.settle(one, self._channels[LOCAL], now)

        self._settling[one.number] = one
        return settle
