"""qmail-newmrh: turn control/morercpthosts into morercpthosts.cdb (qmail-newmrh(8))."""

import os
import sys

from ucspi import cdb, control

HOSTS = "control/morercpthosts"


def records(hosts: bytes) -> list[tuple[bytes, bytes]]:
    """Return the records for the text of control/morercpthosts: lower case, no data."""
    lines = (line.rstrip(b" \t") for line in hosts.lower().split(b"\n"))
    return [(line, b"") for line in lines if line and not line.startswith(b"#")]


def main(argv: list[str], env: dict[str, str]) -> int:
    """Write control/morercpthosts.cdb anew, atomically.

    Returns:
        0; 111 when something is wrong, and then the database is as it was.
    """
    try:
        control.enter_home(env)
    except control.ControlError as error:
        return _fatal(str(error))
    try:
        with open(HOSTS, "rb") as file:
            hosts = file.read()
    except OSError as error:
        return _fatal(f"unable to read {HOSTS}: {error.strerror}")
    os.umask(0o033)
    try:
        cdb.write(HOSTS + ".cdb", records(hosts))
    except OSError as error:
        return _fatal(f"unable to write {error.filename or HOSTS}: {error.strerror}")
    except ValueError as error:
        return _fatal(f"unable to write {HOSTS}.cdb: {error}")
    return 0


def _fatal(text: str) -> int:
    sys.stderr.write(f"qmail-newmrh: fatal: {text}\n")
    return 111
