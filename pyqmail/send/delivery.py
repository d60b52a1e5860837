"""One channel, local or remote: passes over messages, and the deliveries they start.

A pass goes once over the recipients of one message and starts a delivery for each that
is not done; there is one pass at a time per channel. The message is looked after by a
job until its pass has ended and its deliveries have reported; then it is finished, or
is due again by the schedule.
"""

import heapq
import os
from collections.abc import Callable
from typing import NamedTuple

from pyqmail.queue import layout
from pyqmail.send import bounce
from pyqmail.send.log import Log, safe
from pyqmail.send.preprocess import CHANNEL_DIRECTORIES
from pyqmail.send.schedule import Due, next_retry
from pyqmail.send.spawner import Spawner
from pyqmail.send.spawnprotocol import Report, Request, Verdict

RETRY_TROUBLE = 123  # seconds until a step that the system refused is tried again
READ = 65536  # bytes of one read of a recipient file


class Job:
    """What looks after a message while deliveries of it are under way."""

    __slots__ = ("dying", "sender")

    def __init__(self, sender: bytes, *, dying: bool = False) -> None:
        """Remember the sender, and whether the message is too old: a deferral is a failure."""
        self.sender = sender
        self.dying = dying

    def report(self, running: "Running", verdict: Verdict, text: bytes) -> None:
        """Act on what became of a delivery."""
        raise NotImplementedError


class Running(NamedTuple):
    """A delivery that has not reported yet."""

    delivery: int  # its number in the log
    job: Job
    number: int  # of the message
    offset: int  # of the recipient in the file
    recipient: bytes


class PassJob(Job):
    """Looks after a message on its way through one channel: a pass and its deliveries."""

    __slots__ = ("_channel", "at_end", "left", "number", "references", "retry")

    def __init__(
        self, channel: "Channel", number: int, sender: bytes, retry: int, *, dying: bool
    ) -> None:
        """Begin with one reference, the pass's.

        Args:
            channel: the message's files are this channel's.
            number: the message.
            sender: of the message.
            retry: when it is due again, should a recipient be deferred.
            dying: it is too old: a deferral is a failure.
        """
        super().__init__(sender, dying=dying)
        self._channel = channel
        self.number = number
        self.retry = retry
        self.references = 1
        self.left = 0  # recipients not done
        self.at_end = False  # all recipients have been seen

    def report(self, running: Running, verdict: Verdict, text: bytes) -> None:
        """Mark the recipient as done, unless it is deferred."""
        if verdict is Verdict.FAILURE:
            self._channel.events.failed(self.number, running.recipient, text)
        if verdict in (Verdict.FAILURE, Verdict.SUCCESS):
            self._channel.mark_done(self.number, running.offset)
            self.left -= 1
        self._channel.release(self)


class RecipientFile:
    """Reads local/N or remote/N, in pieces: there may be very many recipients."""

    __slots__ = ("_buffer", "_fd", "_offset", "path")

    def __init__(self, path: str) -> None:
        """Open it.

        Raises:
            OSError
        """
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._buffer = b""
        self._offset = 0

    def next(self) -> tuple[int, bytes] | None:
        """Return the next record's offset and content; None at the end.

        Bytes after the last NUL are no record.

        Raises:
            OSError
        """
        while (end := self._buffer.find(b"\0")) < 0:
            more = os.read(self._fd, READ)
            if not more:
                return None
            self._buffer += more
        record = self._buffer[:end]
        offset = self._offset
        self._buffer = self._buffer[end + 1 :]
        self._offset += end + 1
        return offset, record

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)


class Events(NamedTuple):
    """What a channel asks of qmail-send."""

    finished: Callable[[int], None]  # a message has no recipients left on this channel
    failed: Callable[[int, bytes, bytes], None]  # message, recipient, report
    changed: Callable[[], None]  # the number of deliveries


class Channel:
    """The state of one channel."""

    def __init__(
        self, index: int, spawner: Spawner, limit: int, lifetime: int, log: Log, events: Events
    ) -> None:
        """Begin with no message.

        Args:
            index: schedule.LOCAL or REMOTE.
            spawner: runs the deliveries.
            limit: deliveries at once.
            lifetime: seconds after which a message is given up.
            log: where lines go.
            events: what is to be told.
        """
        self.index = index
        self.name = CHANNEL_DIRECTORIES[index]
        self.spawner = spawner
        self.limit = limit
        self.due = Due()
        self.running: dict[int, Running] = {}  # by the number that the spawner knows
        self._free = list(range(limit))
        self._lifetime = lifetime
        self._log = log
        self.events = events
        self._pass: tuple[RecipientFile, PassJob] | None = None

    @property
    def room(self) -> bool:
        """Whether one more delivery may be started."""
        return bool(self._free)

    def wakeup(self) -> int | None:
        """Return when there will be something to start; None: not before a report."""
        if not self._free or not self.spawner.alive:
            return None
        return 0 if self._pass else self.due.first()

    def start(self, now: int, take_number: Callable[[], int]) -> None:
        """Start deliveries as long as there is room for them.

        Raises:
            SpawnerDied
        """
        while self._free:
            if self._pass is None and not self._open_next(now):
                return
            if self._pass is not None:
                self._continue(*self._pass, take_number)

    def _open_next(self, now: int) -> bool:
        """Begin a pass over the next message that is due; False when there is none."""
        number = self.due.take(now)
        if number is None:
            return False
        path = layout.split(self.name, number)
        try:
            sender, birth = read_info(number)
            file = RecipientFile(path)
        except (OSError, ValueError):
            self._log.line("warning: trouble opening ", path, "; will try again later")
            self.due.add(now + RETRY_TROUBLE, number)
            return True
        retry = next_retry(birth, now, self.index)
        dying = now > birth + self._lifetime
        self._pass = file, PassJob(self, number, sender, retry, dying=dying)
        return True

    def _continue(self, file: RecipientFile, job: PassJob, take_number: Callable[[], int]) -> None:
        try:
            found = file.next()
        except OSError:
            self._log.line("warning: trouble reading ", file.path, "; will try again later")
            self._end_pass(file, job)
            return
        if found is None:
            job.at_end = True
            self._end_pass(file, job)
            return
        offset, record = found
        if record.startswith(b"T"):
            job.references += 1
            job.left += 1
            self.deliver(Running(take_number(), job, job.number, offset, record[1:]))
        elif not record.startswith(b"D"):
            self._log.line("warning: unknown record type in ", file.path, "!")
            self._end_pass(file, job)

    def _end_pass(self, file: RecipientFile, job: PassJob) -> None:
        self._pass = None
        file.close()
        self.release(job)

    def deliver(self, running: Running) -> None:
        """Start a delivery; there is room.

        Raises:
            SpawnerDied
        """
        slot = heapq.heappop(self._free)
        self.running[slot] = running
        number = running.number
        self._log.line(
            *("starting delivery ", running.delivery, ": msg ", number),
            *(f" to {self.name} ", safe(running.recipient)),
        )
        self.events.changed()
        sender = bounce.verp(running.job.sender, running.recipient)
        message = layout.mess(number).removeprefix("mess/").encode()
        self.spawner.send(Request(slot, message, sender, running.recipient))

    def report(self, report: Report) -> None:
        """Act on the report of a delivery."""
        running = self.running.pop(report.delivery, None)
        if running is None:
            self._log.line("warning: internal error: delivery report out of range")
            return
        heapq.heappush(self._free, report.delivery)
        job = running.job
        verdict, text = report.verdict, report.explanation
        if verdict is Verdict.DEFERRAL and job.dying:
            verdict, text = Verdict.FAILURE, text + bounce.TOO_OLD
        shown = b"" if verdict is Verdict.MANGLED else safe(text)
        self._log.line("delivery ", running.delivery, WORDS[verdict], shown)
        job.report(running, verdict, text)
        self.events.changed()

    def hand_over(self, running: Running, job: Job) -> None:
        """Let another job look after a delivery that is under way."""
        for slot, other in self.running.items():
            if other is running:
                self.running[slot] = running._replace(job=job)
                return

    def mark_done(self, number: int, offset: int) -> None:
        """Mark the recipient at offset as done."""
        path = layout.split(self.name, number)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(descriptor, b"D", offset)
            finally:
                os.close(descriptor)
        except OSError:
            self._log.line("warning: trouble marking ", path, "; message will be delivered twice!")

    def release(self, job: PassJob) -> None:
        """One less needs the job; after the last one the message goes on."""
        job.references -= 1
        if job.references:
            return
        retry = job.retry
        if job.at_end and not job.left:
            path = layout.split(self.name, job.number)
            try:
                os.unlink(path)
            except OSError:
                self._log.line("warning: unable to unlink ", path, "; will try again later")
                retry += RETRY_TROUBLE
            else:
                self.events.finished(job.number)
                return
        self.due.add(retry, job.number)

    def remember_due_times(self) -> None:
        """Let the mtime of each recipient file say when the message is due."""
        for due, number in self.due.items():
            path = layout.split(self.name, number)
            try:
                os.utime(path, (due, due))
            except OSError:
                self._log.line(
                    "warning: unable to utime ", path, "; message will be retried too soon"
                )


WORDS = {
    Verdict.SUCCESS: b": success: ",
    Verdict.DEFERRAL: b": deferral: ",
    Verdict.FAILURE: b": failure: ",
    Verdict.MANGLED: b": report mangled, will defer",
}


def read_info(number: int) -> tuple[bytes, int]:
    """Return the sender of a message and its birth in Unix time.

    Raises:
        OSError: info/N cannot be read.
        ValueError: it does not begin with a sender.
    """
    descriptor = os.open(layout.info(number), os.O_RDONLY | os.O_CLOEXEC)
    try:
        birth = int(os.fstat(descriptor).st_mtime)
        content = b""
        while more := os.read(descriptor, 4096):
            content += more
    finally:
        os.close(descriptor)
    if not content.startswith(b"F") or b"\0" not in content:
        raise ValueError("no sender")
    return content[1 : content.index(b"\0")], birth
