"""Deliveries straight from todo/: of a new message for one local recipient.

Most mail is for one mailbox and is there some milliseconds later. For such a message
info/N and local/N would be written, waited for and removed again, and say what todo/N says,
which is on disk already. So todo/N stays until the delivery has succeeded. Whatever else
happens, the files are written after all, and the message goes on as every other does: when
the delivery fails or is deferred, and when it takes longer than a moment. A crash before
leaves todo/N, as one during preprocessing does: the delivery under way is made again.
"""

from collections import deque
from collections.abc import Callable

from pyqmail.send.delivery import Channel, Job, PassJob, Running
from pyqmail.send.preprocess import Envelope
from pyqmail.send.schedule import LOCAL, next_retry
from pyqmail.send.spawnprotocol import Verdict

MOST = 200  # messages at once, waiting and under way
LATE = 2.0  # seconds; from then on a message has files


class Direct(Job):
    """A message on the short way."""

    __slots__ = (
        *("_reported", "address", "birth", "left"),
        *("number", "outcome", "retry_now", "running", "taken"),
    )

    def __init__(
        self, envelope: Envelope, birth: int, taken: float, reported: list["Direct"]
    ) -> None:
        """Begin.

        Args:
            envelope: of the message; it fits.
            birth: of the message, in Unix time.
            taken: now, by the clock that LATE goes by.
            reported: where it adds itself when its delivery has reported.
        """
        super().__init__(envelope.sender or b"")
        self.number = envelope.number
        self.address = envelope.recipients[LOCAL][0]
        self.birth = birth
        self.running: Running | None = None
        self.outcome: tuple[Verdict, bytes] | None = None
        self.left = False  # the short way, being late
        self.retry_now = False  # whatever the schedule says
        self.taken = taken
        self._reported = reported

    def report(self, running: Running, verdict: Verdict, text: bytes) -> None:
        """Remember what became of the delivery."""
        self.outcome = verdict, text
        if not self.left:
            self._reported.append(self)

    def is_late(self, clock: float) -> bool:
        """Whether it has taken longer than a moment."""
        return self.taken + LATE <= clock

    @property
    def delivered(self) -> bool:
        """Whether the recipient has it."""
        return self.outcome is not None and self.outcome[0] is Verdict.SUCCESS

    @property
    def envelope(self) -> Envelope:
        """What its files have to say."""
        return Envelope(self.number, self.sender, ([self.address], []))


def fits(envelope: Envelope) -> bool:
    """Whether a message may take the short way: its one recipient is local."""
    local, remote = envelope.recipients
    return len(local) == 1 and not remote


class Directs:
    """The messages on the short way."""

    def __init__(self, channel: Channel) -> None:
        """Begin with none.

        Args:
            channel: the local one.
        """
        self._channel = channel
        self._all: dict[int, Direct] = {}  # the longest there first
        self._waiting: deque[Direct] = deque()
        self._reported: list[Direct] = []

    def __contains__(self, number: object) -> bool:
        """Whether a message is on the short way."""
        return number in self._all

    def __len__(self) -> int:
        """Return how many are."""
        return len(self._all)

    @property
    def full(self) -> bool:
        """Whether there is no room for another message."""
        return len(self._all) >= MOST or not self._channel.limit

    def add(self, envelope: Envelope, now: int, clock: float) -> None:
        """Take a message that fits."""
        direct = Direct(envelope, now, clock, self._reported)
        self._all[direct.number] = direct
        self._waiting.append(direct)

    def start(self, take_number: Callable[[], int]) -> None:
        """Start deliveries as long as the channel has room for them.

        Raises:
            SpawnerDied
        """
        while self._waiting and self._channel.room:
            direct = self._waiting.popleft()
            direct.running = Running(take_number(), direct, direct.number, 0, direct.address)
            self._channel.deliver(direct.running)

    def leaving(self, clock: float) -> list[Direct]:
        """Return those whose short way ends here, and forget them.

        They are delivered, or have another report, or are late; of the late ones some have
        not been started, and now will not be.
        """
        gone = self._reported[:]
        self._reported.clear()
        for direct in gone:
            del self._all[direct.number]
        while self._all:
            first = next(iter(self._all.values()))
            if not first.is_late(clock):
                break
            del self._all[first.number]
            gone.append(first)
            first.left = True
            if first.running is None:
                self._waiting.remove(first)
        return gone

    def stay(self, direct: Direct, clock: float) -> None:
        """Take one back whose files could not be made; it is late again in a while."""
        direct.left = False
        direct.taken = clock
        self._all[direct.number] = direct


def settle(direct: Direct, channel: Channel, now: int) -> None:
    """Let a message that has got files go on as one whose first pass is over.

    A delivery under way reports to the channel's job from now on.
    """
    retry = now if direct.retry_now else next_retry(direct.birth, now, LOCAL)
    if direct.running is None:
        channel.due.add(now, direct.number)
        return
    job = PassJob(channel, direct.number, direct.sender, retry, dying=False)
    job.left, job.at_end = 1, True
    if direct.outcome is None:
        channel.hand_over(direct.running, job)
    else:
        job.report(direct.running, *direct.outcome)
