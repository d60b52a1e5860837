"""All faults at all points: what `make crash` runs, and of which `make test` runs a part."""

import errno
import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import Pipe, connection
from typing import NamedTuple, TypeVar

from lab import pop3, power, runs
from lab.mailer import Broken
from lab.tracer import Fault, Touch, needs_room, on_disk

WORKERS = 2
SURVEYS = 3  # runs that are asked which points there are: they differ a little
TRIES = 3  # at a point that a run does not come to
PROGRAMS = (
    *("qmail-queue", "qmail-queue-server", "qmail-send", "qmail-clean", "qmail-lspawn"),
    *("qmail-local", "remote", "qmail-pop3d"),
)
POP3D = "qmail-pop3d"

What = tuple[Fault, tuple[int, ...]]  # a fault, and the sender's attempts

Item = TypeVar("Item")
Result = TypeVar("Result")


class Hit(NamedTuple):
    """A fault that happened, and what came of it."""

    fault: Fault
    attempts: tuple[int, ...]  # that the sender made
    touch: Touch | None  # None: the run never came to this point
    broken: str  # what does not hold; empty: everything does

    @property
    def kind(self) -> str:
        """What sort of fault it is."""
        if self.fault.error:
            name = errno.errorcode[self.fault.error]
            return f"{name} from here on" if self.fault.lasting else name
        return "killed after" if self.fault.after else "killed before"


def in_parallel(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int = WORKERS
) -> Iterator[Result]:
    """Yield the results of work on items, in no order, made by forked processes."""
    todo = list(items)
    waiting: list[connection.Connection] = []
    pids = []
    for worker in range(workers):
        ours, theirs = Pipe(duplex=False)
        pid = os.fork()
        if not pid:
            try:
                ours.close()
                for item in todo[worker::workers]:
                    theirs.send(work(item))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        pids.append(pid)
        theirs.close()
        waiting.append(ours)
    done = 0
    while waiting:
        for ready in connection.wait(waiting):
            assert isinstance(ready, connection.Connection)
            try:
                result = ready.recv()
            except EOFError:
                waiting.remove(ready)
                continue
            done += 1
            yield result
    for pid in pids:
        os.waitpid(pid, 0)
    if done != len(todo):
        raise Broken(f"{len(todo) - done} runs did not come to their end")


def hit(what: What) -> Hit:
    """Have a fault happen."""
    fault, attempts = what
    touch = None
    try:
        for _ in range(TRIES):
            if fault.program == POP3D:
                touch = pop3.run(fault).fired
            else:
                touch = runs.run(fault, attempts=attempts).fired
            if touch:
                break
    except Broken as broken:
        return Hit(fault, attempts, touch, str(broken))
    return Hit(fault, attempts, touch, "")


def touches(attempts: tuple[int, ...] = runs.ONE) -> list[Touch]:
    """Return all touches that runs, and POP3 sessions, without a fault have."""
    found: dict[Touch, None] = {}
    for _ in range(SURVEYS):
        found.update(dict.fromkeys(runs.run(attempts=attempts).touches))
    if attempts == runs.ONE:
        found.update(dict.fromkeys(pop3.run().touches))
    return sorted(found, key=lambda touch: PROGRAMS.index(touch.program))


def kills(known: list[Touch], *, after: bool, attempts: tuple[int, ...] = runs.ONE) -> list[What]:
    """Return a kill at each touch."""
    return [(Fault(*touch, after), attempts) for touch in known]


def failures(
    known: list[Touch],
    error: int,
    *,
    lasting: bool = False,
    attempts: tuple[int, ...] = runs.ONE,
) -> list[What]:
    """Return an error at each touch where the disk may be the cause."""
    chosen = on_disk if error == errno.EIO else needs_room
    return [
        (Fault(*touch, error=error, lasting=lasting), attempts)
        for touch in known
        if touch.program != "remote" and chosen(touch)
    ]


def cut_power(cut: power.Cut) -> tuple[power.Cut, str]:
    """Cut the power, and say what does not hold afterwards."""
    try:
        power.survive(cut)
    except Broken as broken:
        return cut, str(broken)
    return cut, ""
