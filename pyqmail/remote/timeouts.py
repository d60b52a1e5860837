"""qmail-tcpto and qmail-tcpok: show and forget the hosts that did not answer.

Both are about queue/lock/tcpto, see `tcpto`.
"""

import fcntl
import ipaddress
import os
import sys
import time

from pyqmail.queue import layout, visit
from pyqmail.remote import tcpto


def show(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-tcpto``: a line for each host with a time-out; see `visit.look`."""
    return visit.look(argv, env, _print_table)


def forget(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-tcpok``: all hosts are tried again at once; see `visit.look`."""
    return visit.look(argv, env, _clear_table, user="qmailr")


def lines(table: bytes, now: int) -> list[str]:
    """Return what netqmail's qmail-tcpto prints about a table.

    Args:
        table: the content of the file.
        now: seconds since 1970.
    """
    return [
        f"{ipaddress.IPv4Address(address)} timed out {now - when} seconds ago; "
        f"# recent timeouts: {errors}"
        for address, errors, when in tcpto.entries(table)
    ]


def _print_table() -> None:
    with open(layout.TCPTO, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        table = file.read(tcpto.SIZE)
    sys.stdout.write("".join(line + "\n" for line in lines(table, int(time.time()))))
    sys.stdout.flush()


def _clear_table() -> None:
    with open(layout.TCPTO, "r+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        os.pwrite(file.fileno(), bytes(tcpto.SIZE), 0)
