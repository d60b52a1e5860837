"""qmail-newu: turn users/assign into users/cdb (qmail-newu(8), qmail-users(5))."""

import os
import sys

from ucspi import cdb, control

ASSIGN = "users/assign"
CDB = "users/cdb"
FIELDS = 6  # after the address, each ended by a colon: user uid gid homedir dash ext


class FormatError(Exception):
    """users/assign is not a series of assignments that ends with a line ``.``."""


def records(assign: bytes) -> list[tuple[bytes, bytes]]:
    """Return the records of users/cdb for the text of users/assign, in netqmail's order.

    Raises:
        FormatError: a line is no assignment, has a NUL, or the last line is missing.
    """
    found: list[tuple[bytes, bytes]] = []
    wildcards = b""
    for line in assign.split(b"\n"):
        if line.startswith(b"."):
            found.append((b"", wildcards))
            return found
        address, *fields = line.split(b":")
        if not address or b"\0" in line or len(fields) <= FIELDS:
            raise FormatError
        prefix = address[1:]
        key = b"!" + prefix.lower()
        if not address.startswith(b"+"):
            key += b"\0"
        elif prefix and prefix[-1:] not in wildcards:
            wildcards += prefix[-1:]
        found.append((key, b"\0".join(fields[:FIELDS])))
    raise FormatError


def main(argv: list[str], env: dict[str, str]) -> int:
    """Write users/cdb anew; whoever looks an address up sees the old one or the new one.

    Returns:
        0; 111 when something is wrong, and then users/cdb is as it was.
    """
    try:
        control.enter_home(env)
    except control.ControlError:
        return _fatal("unable to chdir")
    try:
        with open(ASSIGN, "rb") as file:
            assign = file.read()
    except FileNotFoundError:
        return _fatal(f"unable to open {ASSIGN}")
    except OSError:
        return _fatal(f"unable to read {ASSIGN}")
    os.umask(0o033)
    try:
        cdb.write(CDB, records(assign))
    except FormatError:
        return _fatal(f"bad format in {ASSIGN}")
    except (OSError, ValueError):
        return _fatal(f"unable to write {CDB}.tmp")
    return 0


def _fatal(text: str) -> int:
    sys.stderr.write(f"qmail-newu: fatal: {text}\n")
    return 111
