"""One run: messages, a fault on their way, a new start, and whether all is well in the end."""

import signal
import time
from typing import NamedTuple

from lab import mailer
from lab.mailer import Broken, Programs, Site
from lab.tracer import Fault, Op, Touch, Tracer
from pyqmail.queue import errors

STALLED = 0.25  # seconds without a touch: the programs wait for a time far away
NUDGE = 0.01  # seconds without one, or between two SIGALRM: have qmail-send try again at once
LOOK = 0.004  # seconds between two looks at the queue
LONG = 3.0  # seconds of a run that goes round in circles, as on a full disk
ONE = (1,)  # the sender's attempts: at a letter to everybody,
SEVERAL = (1, 2, 3)  # at several that wait for the disk together,
SHORT = tuple(mailer.SHORT)  # and at those to one recipient each
AGAIN = 100  # the sender's attempt after one that was not acknowledged
AFTERWARDS = 101  # a message after everything


class Outcome(NamedTuple):
    """What became of a run in which all that must hold did hold."""

    fired: Touch | None  # where the fault happened; None: the programs never came there
    statuses: dict[int, int]  # exit status of the sender's qmail-queue, by attempt
    clients: dict[int, int]  # its process id
    touches: list[Touch]
    ops: list[Op]
    unknown: set[int]


def run(
    fault: Fault | None = None,
    *,
    record: bool = False,
    survey: bool = False,
    attempts: tuple[int, ...] = ONE,
) -> Outcome:
    """Send messages through a mail system with a fault, and see that nothing is lost.

    Args:
        fault: what goes wrong.
        record: keep what is done to the disk.
        survey: keep the system calls that nobody has thought of.
        attempts: the sender's, all at the same time.

    Raises:
        Broken: something is lost, torn, or where it does not belong.
    """
    site = Site()
    try:
        tracer = Tracer(str(site.home), fault, record=record, survey=survey)
        return _run(site, tracer, attempts)
    finally:
        site.remove()


def _run(site: Site, tracer: Tracer, attempts: tuple[int, ...]) -> Outcome:
    try:
        clients = _until_fault(site, tracer, attempts)
    except TimeoutError as error:
        raise Broken(f"{error}: {site.files()}\n{log(site)}") from error
    finally:
        tracer.close()
    statuses = {attempt: tracer.ended[pid] for attempt, pid in clients.items()}
    for status in statuses.values():
        if errors.message_for(status).startswith(b"D"):
            raise Broken(f"a message was refused for good: status {status}")
    fired = tracer.fired
    torn = tracer.kills and fired is not None and fired.program == "qmail-local"
    mailer.score(site.delivered(), mbox_may_be_torn=torn)  # nothing partial, at any time
    acknowledged = {attempt for attempt, status in statuses.items() if not status}
    recover(site, acknowledged, again=len(acknowledged) < len(attempts))
    scores = mailer.score(site.delivered(), mbox_may_be_torn=torn)
    # A kill hits at most one delivery per channel that is under way; and a bounce or a
    # forward that was queued just before is queued once more.
    mailer.check(scores, acknowledged, copies=2, extra=2 * len(attempts))
    return Outcome(fired, statuses, clients, tracer.touches, tracer.ops, tracer.unknown)


def _until_fault(site: Site, tracer: Tracer, attempts: tuple[int, ...]) -> dict[int, int]:
    """Start everything, send the messages, let them go as far as the fault lets them.

    Returns the process ids of the senders' qmail-queues, by attempt.
    """
    programs = Programs(site, tracer, watched=True)
    clients = {attempt: programs.submit(attempt) for attempt in attempts}
    started = moved = time.monotonic()
    nudged = looked = 0.0
    touches = 0

    def done() -> bool:
        nonlocal nudged, looked, moved, touches
        now = time.monotonic()
        if len(tracer.touches) != touches:
            touches, moved = len(tracer.touches), now
        if any(map(tracer.running, clients.values())):
            return False
        if tracer.kills or not tracer.running(programs.send) or now - started > LONG:
            return True
        if now - looked < LOOK:
            return False
        looked = now
        if now - moved > STALLED or not (site.files("mess") or site.files()):
            return True
        if now - max(nudged, moved) > NUDGE:
            nudged = now
            site.end_waiting()
            programs.signal(programs.send, signal.SIGALRM)
        return False

    tracer.run(done, 0.003)
    if not tracer.kills:
        tracer.fault = None  # somebody has made room on the disk
    programs.stop()
    return clients


def log(site: Site) -> str:
    """Return the end of the log."""
    return (site.outside / "log").read_text(errors="replace")[-3000:]


def recover(site: Site, acknowledged: set[int], *, again: bool) -> None:
    """Start anew until nothing is left.

    Args:
        site: as the fault left it.
        acknowledged: gets the attempts that are made here.
        again: the sender tries again, as one does who was not told that all is well.

    Raises:
        Broken: it does not come to its end.
    """
    _until_empty(site, acknowledged, AGAIN if again else 0)
    if site.files():
        # What a crash may leave is gone after 36 hours, and new mail is not harmed by it.
        mailer.make_old(site)
        _until_empty(site, acknowledged, AFTERWARDS)
        if site.files():
            raise Broken(f"left for ever: {site.files()}\n{log(site)}")


def _until_empty(site: Site, acknowledged: set[int], attempt: int) -> None:
    tracer = Tracer(str(site.home))
    try:
        programs = Programs(site, tracer, watched=False)
        client = programs.submit(attempt) if attempt else 0
        nudged = time.monotonic()

        def done() -> bool:
            nonlocal nudged
            if not tracer.running(programs.send):
                raise Broken(f"qmail-send ended\n{log(site)}")
            if client and tracer.running(client):
                return False
            if not (site.files("todo", "info") or site.files("local", "remote", "bounce")):
                return True
            if time.monotonic() - nudged > NUDGE:
                nudged = time.monotonic()
                site.end_waiting()
                programs.signal(programs.send, signal.SIGALRM)
            return False

        tracer.run(done, 0.003)
        programs.stop()  # qmail-send waits for qmail-clean's last answer
        if client and tracer.ended[client]:
            raise Broken(f"a message was refused: status {tracer.ended[client]}\n{log(site)}")
        if attempt:
            acknowledged.add(attempt)
        if tracer.ended[programs.send]:
            raise Broken(f"qmail-send ended with {tracer.ended[programs.send]}\n{log(site)}")
    except TimeoutError as error:
        raise Broken(f"{error}: {site.files()}\n{log(site)}") from error
    finally:
        tracer.close()
