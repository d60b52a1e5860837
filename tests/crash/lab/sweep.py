"""All faults at all points: what `make crash` runs, and of which `make test` runs a part."""

import errno
import os
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import Pipe, connection
from typing import NamedTuple, TypeVar

from lab import pop3, power, runs
from lab.mailer import Broken
from lab.tracer import Fault, Touch, needs_room, on_disk

WORKERS = 2
MORE = 3  # points tried after the last one that is known: runs differ a little
PROGRAMS = (
    *("qmail-queue", "qmail-queue-server", "qmail-send", "qmail-clean", "qmail-lspawn"),
    *("qmail-local", "remote", "qmail-pop3d"),
)
POP3D = "qmail-pop3d"

Item = TypeVar("Item")
Result = TypeVar("Result")


class Hit(NamedTuple):
    """A fault that happened, and what came of it."""

    fault: Fault
    senders: int
    touch: Touch | None  # None: the program never came to this point
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


def hit(what: tuple[Fault, int]) -> Hit:
    """Have a fault happen."""
    fault, senders = what
    try:
        if fault.program == POP3D:
            touch = pop3.run(fault).fired
        else:
            touch = runs.run(fault, senders=senders).fired
    except Broken as broken:
        return Hit(fault, senders, None, str(broken))
    return Hit(fault, senders, touch, "")


def touches(senders: int = 1) -> list[Touch]:
    """Return the touches of a run, and of a POP3 session, without a fault."""
    found = runs.run(senders=senders).touches
    return found + pop3.run().touches if senders == 1 else found


def kills(known: list[Touch], *, after: bool, senders: int = 1) -> list[tuple[Fault, int]]:
    """Return a kill at each touch of each program."""
    programs = [name for name in PROGRAMS if any(touch.program == name for touch in known)]
    counts = {name: sum(touch.program == name for touch in known) for name in programs}
    return [
        (Fault(name, index, after), senders)
        for name in programs
        for index in range(1, counts[name] + MORE + 1)
    ]


def failures(known: list[Touch], error: int, *, lasting: bool = False) -> list[tuple[Fault, int]]:
    """Return an error at each touch where the disk may be the cause."""
    chosen = on_disk if error == errno.EIO else needs_room
    return [
        (Fault(touch.program, touch.at, error=error, lasting=lasting), 1)
        for touch in known
        if touch.program != "remote" and chosen(touch)
    ]


def place(touch: Touch) -> str:
    """Return where a touch is, without what differs from run to run."""
    name = re.sub(r"/[0-9]+\.[^/]*$", "/X", touch.target)
    return re.sub(r"/[0-9]+(?=/|$)", "/N", name).replace("/N/N", "/N%23/N")


def cut_power(cut: power.Cut) -> tuple[power.Cut, str]:
    """Cut the power, and say what does not hold afterwards."""
    try:
        power.survive(cut)
    except Broken as broken:
        return cut, str(broken)
    return cut, ""
