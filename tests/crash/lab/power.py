"""Losses of power at each moment of a recorded run, and whether all is well afterwards."""

import random
from collections.abc import Iterator
from typing import NamedTuple

from lab import mailer, runs
from lab.disk import Disk, State
from lab.runs import Outcome
from lab.tracer import Op
from pyqmail.queue import wire

# After a loss of power each delivery may be made again, also that of a forward or a bounce,
# which is itself sent once more: nothing but that all come is asked.
COPIES = 9


class Cut(NamedTuple):
    """A loss of power and what it leaves."""

    after: int  # how many things had been done
    last: Op  # the last of them
    state: State
    acknowledged: frozenset[int]  # attempts of which the sender had been told that they are safe
    notes: bytes  # what had been delivered far away


def cuts(recorded: Outcome, seed: int, samples: int) -> Iterator[Cut]:
    """Yield the losses of power at all moments of a run, each different one once."""
    chance = random.Random(seed)
    disk = Disk()
    acknowledged: frozenset[int] = frozenset()
    notes = b""
    seen: set[object] = set()
    for number, op in enumerate(recorded.ops, 1):
        disk.do(op)
        if op.kind == "note":
            notes += op.data
        acknowledged |= {
            attempt for attempt, client in recorded.clients.items() if says_queued(op, client)
        }
        for state in disk.after_power_cut(chance, samples):
            key = (state.key(), acknowledged, notes)
            if key not in seen:
                seen.add(key)
                yield Cut(number, op, state, acknowledged, notes)


def says_queued(op: Op, client: int) -> bool:
    """Whether this is the queue server's word to the client that its message is queued."""
    if op.kind != "send" or op.program != "qmail-queue-server" or op.path != "socket":
        return False
    if len(op.data) != wire.REPLY_SIZE:
        return False
    result = wire.decode_reply(op.data)
    return result.status == 0 and result.pid == client


def survive(cut: Cut) -> None:
    """Start the mail system on what the loss of power left.

    Raises:
        mailer.Broken: something acknowledged is lost, or something came that is not whole.
    """
    site = mailer.Site()
    try:
        site.end_waiting()
        cut.state.build(site.home)
        site.deliveries.write_bytes(cut.notes)
        attempts = set(cut.acknowledged)
        mailer.score(site.delivered(), mbox_may_be_torn=True)
        runs.recover(site, attempts, again=not attempts)
        scores = mailer.score(site.delivered(), mbox_may_be_torn=True)
        mailer.check(scores, attempts, copies=COPIES, extra=10 * COPIES)
    finally:
        site.remove()
