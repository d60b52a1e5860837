"""qmail-queue-prepare: make the queue directory, or what is missing of it."""

import os

from pyqmail.queue import ids, layout
from ucspi import control, log


def main(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-queue-prepare [QUEUE]``.

    QUEUE is by default the directory queue in the qmail home. It is safe to run at every
    start, beside a running queue: a complete one is only looked at.

    Returns:
        0; 100 on wrong usage; 111 when it cannot be done, with a line that says why.
    """
    if len(argv) > 2 or argv[1:2] == ["--help"]:
        log.event(env, f"usage: {argv[0]} [queue directory]")
        return 100
    default = os.path.join(env.get("QMAIL_HOME", control.QMAIL_HOME), "queue")
    directory = argv[1] if len(argv) == 2 else default
    try:
        # A symbolic link (into a data volume) may lead to what does not exist yet.
        done = layout.prepare(os.path.realpath(directory), ids.lookup())
    except OSError as error:
        name = error.filename or directory
        log.event(env, f"{argv[0]}: {name}: {error.strerror}")
        return 111
    except layout.LayoutError as error:
        log.event(env, f"{argv[0]}: {error}")
        return 111
    if done:
        log.event(env, f"{argv[0]}: {directory}: {len(done)} directories and files put in place")
    return 0
