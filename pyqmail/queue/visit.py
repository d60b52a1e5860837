"""What programs share that people run to look at the queue: qmail-qread and its like."""

import os
from collections.abc import Callable

from pyqmail.queue import ids
from ucspi import control, log

QUEUE = "queue"


def enter(env: dict[str, str], user: str) -> None:
    """Make the queue directory the working directory, as user if root may not.

    In a container root may have no capability to override permissions.

    Raises:
        ControlError: there is no queue, or this user may not enter it.
    """
    control.enter_home(env)
    try:
        try:
            os.chdir(QUEUE)
        except PermissionError:
            known = ids.lookup()
            ids.become(getattr(known, user), known.group)
            os.chdir(QUEUE)
    except OSError as error:
        raise control.ControlError(f"unable to chdir to {QUEUE}: {error.strerror}") from error


def look(
    argv: list[str], env: dict[str, str], show: Callable[[], None], *, user: str = "qmails"
) -> int:
    """Enter the queue and call show.

    Args:
        argv: the command line.
        env: the environment.
        show: what to do there.
        user: the one of the mail system's users who may do it; qmails may read everything.

    Returns:
        0; 111 when the queue cannot be read, with a line that says why.
    """
    try:
        enter(env, user)
        show()
        return 0
    except control.ControlError as error:
        reason = str(error)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
    log.event(env, f"{argv[0]}: fatal: {reason}")
    return 111
