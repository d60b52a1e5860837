"""qmail-rcptcheck and two checks, as programs: for control/rcptchecks, or another server.

All take the addresses from SENDER and RECIPIENT and answer by their exit status: 100, the
recipient is refused; 111, it cannot be said now; 120, something is wrong here; 0, pass.
"""

import os

from pyqmail.rcptcheck.checks import (
    DEFER,
    FAILED,
    NO_MAILBOX,
    PASS,
    REJECT,
    SOCKET,
    RecipientChecks,
    listed_programs,
    run_program,
)
from pyqmail.smtpd.policy import AddressList
from ucspi import control, log


def rcptcheck(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-rcptcheck``: the programs in control/rcptchecks, up to the first refusal."""
    if "RECIPIENT" not in env:
        return _misuse(argv, env)
    try:
        control.enter_home(env)
        commands = listed_programs()
    except control.ControlError as error:
        log.event(env, f"qmail-rcptcheck: {error}")
        return FAILED
    sender, recipient = os.fsencode(env.get("SENDER", "")), os.fsencode(env["RECIPIENT"])
    for command in commands:
        if status := run_program(command, env, sender, recipient):
            return status
    return PASS


def badrcptto(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-rcptcheck-badrcptto``: refuse what control/badrcptto lists, also ``@host``."""
    if "RECIPIENT" not in env:
        return _misuse(argv, env)
    try:
        control.enter_home(env)
        listed = AddressList(control.read_lines("badrcptto") or ())
    except control.ControlError as error:
        log.event(env, f"qmail-rcptcheck-badrcptto: {error}")
        return FAILED
    return REJECT if os.fsencode(env["RECIPIENT"]) in listed else PASS


def realrcptto(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-rcptcheck-realrcptto``: refuse a recipient without a mailbox here."""
    if "RECIPIENT" not in env:
        return _misuse(argv, env)
    ask = RecipientChecks([], env, env.get("QMAIL_RECIPIENT_SOCKET", SOCKET))
    refusal = ask(b"", os.fsencode(env["RECIPIENT"]))
    if refusal is None:
        return PASS
    return REJECT if refusal == NO_MAILBOX else DEFER


def _misuse(argv: list[str], env: dict[str, str]) -> int:
    log.event(env, f"{os.path.basename(argv[0])}: RECIPIENT is not set")
    return FAILED
