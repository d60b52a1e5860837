"""qmail-rspawn: run remote deliveries (qmail-rspawn(8)).

Runs as qmailr. Each delivery is a fork that runs qmail-remote with one recipient; TLS and
the resolver are loaded before.
"""

import os

from pyqmail.remote import program, tcpto
from pyqmail.send.spawnprotocol import Request
from pyqmail.spawn import Companion, Plan, Program, Spawner
from ucspi import control, log

MESSAGES = "queue/mess"
TCPTO = "../lock/tcpto"  # from there
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
        os.chdir(MESSAGES)
    except (control.ControlError, OSError) as error:
        log.event(env, f"qmail-rspawn: {error}")
        return 111
    tcpto.clean(TCPTO)

    def deliver(payload: bytes) -> int:
        sender, recipient = payload.split(b"\0")
        host = recipient.rpartition(b"@")[2]
        words = [os.fsdecode(word) for word in (host, sender, recipient)]
        return program.main(["qmail-remote", *words], env)

    what = Program("qmail-rspawn", plan, deliver, report, output_limit=OUTPUT_LIMIT, report_limit=0)
    return Spawner(what, env, Companion()).run()


def plan(request: Request) -> Plan:
    """Return that a delivery is made by a child of its own."""
    return Plan(None, request.sender + b"\0" + request.recipient)


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
