"""qmail-lspawn: run local deliveries (qmail-lspawn(8)).

The one part of the mail system that is root at work: for each delivery it finds out
whose mail it is, and a child becomes that user and then runs qmail-local. Its own work
needs no more than the capabilities to change ids; it reads the queue as a member of the
group qmail.
"""

import os
import time

from pyqmail.local import exitcodes, recipients
from pyqmail.local.deliverer import Deliverer
from pyqmail.queue import ids
from pyqmail.send.spawnprotocol import LOCAL_REPORT_LIMIT
from pyqmail.spawn import Companion, Program, Spawner
from ucspi import control, log

MESSAGES = "queue/mess"
FIRST_PAUSE, LAST_PAUSE = 0.5, 30.0  # seconds between two starts of the recipient check


def main(argv: list[str], env: dict[str, str]) -> int:
    """``qmail-lspawn DEFAULTDELIVERY``: serve qmail-send on descriptors 0 and 1.

    Returns:
        0 when qmail-send has gone and all deliveries have ended; 100 no default
        delivery given; 111 the queue cannot be entered.
    """
    if len(argv) < 2:
        return 100
    try:
        control.enter_home(env)
        home = os.getcwd()
        join_group()
        os.chdir(MESSAGES)
    except (control.ControlError, OSError) as error:
        log.event(env, f"qmail-lspawn: {error}")
        return 111
    deliverer = Deliverer(home, os.fsencode(argv[1]), env)
    what = Program(
        "qmail-lspawn",
        deliverer.plan,
        deliverer.deliver,
        exitcodes.report,
        output_limit=LOCAL_REPORT_LIMIT + 1,
        report_limit=LOCAL_REPORT_LIMIT,
    )
    return Spawner(what, env, RecipientCheck(home, env)).run()


def join_group() -> None:
    """Make root a member of group qmail alone, the group that may enter queue/mess.

    Raises:
        OSError: the groups cannot be set.
    """
    if os.geteuid() == 0:
        os.setgroups([ids.lookup().group])


class RecipientCheck(Companion):
    """Keeps the process running that answers qmail-smtpd whether a mailbox exists.

    ``QMAIL_RECIPIENT_SOCKET`` names its socket; empty: no such process. Where the socket's
    directory does not exist, it is looked for again from time to time.
    """

    def __init__(self, home: str, env: dict[str, str]) -> None:
        """Have it started at once."""
        self._home = home
        self._env = env
        self._path = env.get("QMAIL_RECIPIENT_SOCKET", recipients.SOCKET)
        self._pid = 0
        self._lifeline = -1
        self._started = 0.0
        self._pause = FIRST_PAUSE

    def due(self) -> float | None:
        """Return in how many seconds it has to be started; None: it runs, or never shall."""
        if self._pid or not self._path:
            return None
        return max(0.0, self._started + self._pause - time.monotonic()) if self._started else 0.0

    def start(self) -> None:
        """Fork the process; it ends with this one, whose end of a pipe it watches."""
        now = time.monotonic()
        lived_long = now - self._started > 2 * LAST_PAUSE
        self._pause = FIRST_PAUSE if lived_long else min(2 * self._pause, LAST_PAUSE)
        self._started = now
        if not os.path.isdir(os.path.dirname(self._path)):
            self._pause = LAST_PAUSE
            return
        try:
            theirs, self._lifeline = os.pipe()
        except OSError:
            return
        try:
            self._pid = os.fork()
            if not self._pid:
                os.close(self._lifeline)
                recipients.run(self._home, self._path, self._env, theirs)
        except OSError:
            os.close(self._lifeline)
        finally:
            os.close(theirs)

    def ended(self, pid: int) -> None:
        """Have it started again if it was this process that ended."""
        if pid == self._pid:
            self._pid = 0
            os.close(self._lifeline)
