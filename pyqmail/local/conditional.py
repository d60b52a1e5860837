"""except, bouncesaying and condredirect: in a .qmail file, act on another program's verdict.

    |except program [ arg ... ]                     bounce if it succeeds
    |bouncesaying error [ program [ arg ... ] ]     bounce with this text if it succeeds
    |condredirect newaddress program [ arg ... ]    forward, and stop, if it succeeds

The program reads the message, too. If it exits 111 the delivery is tried again later; if
it exits with anything else, the rest of the .qmail file is followed.
"""

import os

from pyqmail.local.forward import queue, report, say
from ucspi import chain, control

MESSAGE = 0  # the descriptor
STOP = 99  # exit status: delivered; ignore the rest of the .qmail file


class Unfinished(Exception):
    """The program gave no verdict, the exit status is to be 111; the text says why."""


def succeeds(command: list[str], env: dict[str, str]) -> bool:
    """Run the program and return whether it exited 0.

    Raises:
        Unfinished: it could not be run for now, crashed, or exited 111.
    """
    try:
        pid = chain.spawn(command, env, {})
    except OSError as error:
        raise Unfinished(f"unable to fork: {error.strerror}") from error
    _, wait_status = os.waitpid(pid, 0)
    status = os.waitstatus_to_exitcode(wait_status)
    if status < 0:
        raise Unfinished("child crashed")
    if status == 111:
        raise Unfinished("temporary child error")
    return status == 0


def except_(argv: list[str], env: dict[str, str]) -> int:
    """``except program [ arg ... ]`` (except(1)): 100 if it succeeds, 0 if it fails."""
    if len(argv) < 2:
        return say(100, "except: usage: except program [ arg ... ]")
    try:
        return 100 if succeeds(argv[1:], env) else 0
    except Unfinished as reason:
        return say(111, f"except: fatal: {reason}")


def bouncesaying(argv: list[str], env: dict[str, str]) -> int:
    """``bouncesaying error [ program [ arg ... ] ]`` (bouncesaying(1)).

    Returns:
        100, and the error on descriptor 2, if the program succeeds or there is none;
        0 if it fails; 111 as in the module's description.
    """
    if len(argv) < 2:
        return say(100, "bouncesaying: usage: bouncesaying error [ program [ arg ... ] ]")
    try:
        if len(argv) > 2 and not succeeds(argv[2:], env):
            return 0
    except Unfinished as reason:
        return say(111, f"bouncesaying: fatal: {reason}")
    return say(100, argv[1])


def condredirect(argv: list[str], env: dict[str, str]) -> int:
    """``condredirect newaddress program [ arg ... ]`` (condredirect(1)).

    Returns:
        99 forwarded; 0 the program failed; 100 or 111 the forwarding failed, or as in
        the module's description.
    """
    if len(argv) < 3:
        usage = "condredirect newaddress program [ arg ... ]"
        return say(100, f"condredirect: usage: {usage}")
    try:
        if not succeeds(argv[2:], env):
            return 0
    except Unfinished as reason:
        return say(111, f"condredirect: fatal: {reason}")
    for name in ("SENDER", "DTLINE"):
        if name not in env:
            return say(100, f"condredirect: fatal: {name} not set")
    try:
        os.lseek(MESSAGE, 0, os.SEEK_SET)
    except OSError as error:
        return say(111, f"condredirect: fatal: unable to rewind: {error.strerror}")
    try:
        results = queue(env, env["SENDER"], [argv[1]])
    except OSError as error:
        return say(111, f"condredirect: fatal: unable to read message: {error.strerror}")
    except control.ControlError as error:
        return say(111, f"condredirect: fatal: {error}")
    return report("condredirect", results, STOP)
