"""qmail-qstat: count the messages of the queue."""

import os
import sys

from pyqmail.queue import layout, visit


def count() -> tuple[int, int]:
    """Return how many messages there are, and how many of them are not preprocessed.

    Raises:
        OSError: a directory cannot be read.
    """
    present = sum(len(os.listdir(f"mess/{split}")) for split in range(layout.SPLIT))
    return present, len(os.listdir("todo"))


def main(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-qstat``; see `visit.look`."""
    return visit.look(argv, env, _print_counts)


def _print_counts() -> None:
    present, unprocessed = count()
    sys.stdout.write(f"messages in queue: {present}\n")
    sys.stdout.write(f"messages in queue but not yet preprocessed: {unprocessed}\n")
    sys.stdout.flush()
