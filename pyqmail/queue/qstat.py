"""qmail-qstat: count the messages of the queue."""

import os
import sys

from pyqmail.queue import layout
from ucspi import control, log


def count() -> tuple[int, int]:
    """Return how many messages there are, and how many of them are not preprocessed.

    Raises:
        OSError: a directory cannot be read.
    """
    present = sum(len(os.listdir(f"mess/{split}")) for split in range(layout.SPLIT))
    return present, len(os.listdir("todo"))


def main(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-qstat``, as root or in the group qmail.

    Returns:
        0; 111 when the queue cannot be read, with a line that says why.
    """
    try:
        control.enter_home(env)
        os.chdir("queue")
        present, unprocessed = count()
    except (control.ControlError, OSError) as error:
        log.event(env, f"{argv[0]}: fatal: {error}")
        return 111
    sys.stdout.write(f"messages in queue: {present}\n")
    sys.stdout.write(f"messages in queue but not yet preprocessed: {unprocessed}\n")
    sys.stdout.flush()
    return 0
