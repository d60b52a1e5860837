"""qmail-rspawn: run remote deliveries (qmail-rspawn(8)).

Runs as qmailr. Each delivery is qmail-remote's work with one recipient, in a forked child;
TLS and the resolver are loaded before. The child keeps its connection for a moment, for
the next message to the same destination.
"""

import os
from collections.abc import Hashable

from pyqmail import maildir
from pyqmail.remote import mtastscache, resolve, routes, tcpto, tls
from pyqmail.remote.sender import Sender
from pyqmail.send.spawnprotocol import Request
from pyqmail.spawn import Companion, Plan, Program, Spawner
from pyqmail.spawnchild import complain
from ucspi import control, log

MESSAGES = "queue/mess"
TCPTO = "../lock/tcpto"  # from there
ROUTES = "control/smtproutes"
OUTPUT_LIMIT = 20_000  # bytes; one recipient's reports have at most half of that

CRASHED = b"Zqmail-remote crashed.\n"
SILENT = b"Zqmail-remote produced no output.\n"
NOT_RUN = b"ZUnable to run qmail-remote.\n"
NEVER_RUN = b"DUnable to run qmail-remote.\n"

MESSAGE_REPORTS = b"KZD"
# Recipient report -> the most that can come of the delivery.
RECIPIENT_REPORTS = {b"s": b"Z", b"h": b"D"}
RANK = {b"K": 1, b"Z": 0, b"D": -1}


def main(argv: list[str], env: dict[str, str]) -> int:
    """Serve qmail-send on descriptors 0 and 1.

    Returns:
        0 when qmail-send has gone and all deliveries have ended; 111 the queue cannot be
        entered.
    """
    try:
        control.enter_home(env)
        home = os.getcwd()
        directory = control.read_line("mtastscache")
        os.chdir(MESSAGES)
    except (control.ControlError, OSError) as error:
        log.event(env, f"qmail-rspawn: {error}")
        return 111
    tcpto.clean(TCPTO)
    if directory:
        mtastscache.clean(os.path.join(home, os.fsdecode(directory)))
    tls.warm_up()
    resolve.warm_up()
    destinations = Destinations(os.path.join(home, ROUTES))
    sender = Sender(env)

    def plan(request: Request) -> Plan:
        message = request.message.rpartition(b"/")[2]
        key = destinations.key(domain_of(request.recipient))
        return Plan(key, b"\0".join((message, request.sender, request.recipient)))

    def deliver(payload: bytes) -> int:
        number, *envelope = payload.split(b"\0")
        domain = domain_of(envelope[1])
        maildir.write_all(1, b"".join(sender.deliver([domain, *envelope])))
        if sender.summary:
            to = f"message {os.fsdecode(number)} to {os.fsdecode(domain)}"
            complain(env, f"qmail-remote: {to}: {sender.summary}")
        return 0

    what = Program(
        "qmail-rspawn",
        plan,
        deliver,
        report,
        output_limit=OUTPUT_LIMIT,
        report_limit=0,
        keep=sender,
        any_kind=True,
    )
    return Spawner(what, env, Companion()).run()


def domain_of(recipient: bytes) -> bytes:
    """Return what is behind the last ``@``."""
    return recipient.rpartition(b"@")[2]


class Destinations:
    """Tells which deliveries may go over one connection: by smtproutes, read when it changes."""

    def __init__(self, path: str) -> None:
        """Read nothing yet; path is that of smtproutes."""
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._routes: dict[bytes, bytes] = {}

    def key(self, domain: bytes) -> Hashable:
        """Return what deliveries to the same server have in common; raises nothing.

        It only has to be a good guess: the child compares all that matters.
        """
        self._read()
        for name in routes.names(domain):
            if way := self._routes.get(name, b"").strip():
                return way.split()[0]
            if name in self._routes:
                break
        return domain.lower()

    def _read(self) -> None:
        try:
            found = os.stat(self._path)
            version = (found.st_mtime_ns, found.st_ino, found.st_size)
            if version != self._version:
                with open(self._path, "rb") as file:
                    self._routes = routes.table(control.parse_lines(file.read()))
                self._version = version
        except OSError:
            self._routes, self._version = {}, None


def report(wait_status: int, output: bytes) -> bytes:
    """Return one report from qmail-remote's for one recipient.

    A refused recipient turns the message's report down, and its words come first.

    Args:
        wait_status: of the delivery's process, as wait(2) has it.
        output: what it wrote.
    """
    if wait_status & 127:
        return CRASHED
    status = wait_status >> 8
    if status:
        return NOT_RUN if status == 111 else NEVER_RUN
    if not output:
        return SILENT
    parts = output.split(b"\0")
    parts.pop()  # what has no NUL behind it is no report
    verdicts = [part[:1] for part in parts if part[:1] and part[:1] in MESSAGE_REPORTS]
    verdict = verdicts[0] if verdicts else b"Z"  # netqmail bounces; nothing is known, though
    first = output[:1]
    combined = RECIPIENT_REPORTS.get(first, verdict)
    text = combined + (parts[0][1:] if parts else b"")
    if RANK[verdict] <= RANK[combined] and len(parts) > 1 and parts[1][:1] in MESSAGE_REPORTS:
        text += parts[1][1:]
    return text
