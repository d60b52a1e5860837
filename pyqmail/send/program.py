"""qmail-send: delivers the messages of the queue, with limits, retries and bounces.

    descriptor 0    the log, written
    descriptor 1 2  requests to and reports from qmail-lspawn (pyqmail.send.spawnprotocol)
    descriptor 3 4  the same for qmail-rspawn
    descriptor 5 6  commands to and answers from qmail-clean (pyqmail.send.clean)

Here it is started; everything else is in pyqmail.send.loop.
"""

import fcntl
import os

from pyqmail.queue import layout
from pyqmail.send import controls
from pyqmail.send.cleaner import Cleaner
from pyqmail.send.log import Log, safe
from pyqmail.send.loop import QmailSend
from pyqmail.send.spawner import Spawner, SpawnerDied
from ucspi import control

LOG = 0
SPAWNERS = ((1, 2), (3, 4))  # write, read; local, remote
CLEAN = (5, 6)


class CannotStart(Exception):
    """The program cannot begin; the argument is the log line."""


def _start(env: dict[str, str], log: Log) -> QmailSend:
    try:
        control.enter_home(env)
    except control.ControlError as error:
        raise CannotStart("unable to switch to home directory") from error
    try:
        settings = controls.read()
        routing = controls.read_routing(settings)
    except control.ControlError as error:
        raise CannotStart("unable to read controls") from error
    try:
        os.chdir("queue")
    except OSError as error:
        raise CannotStart("unable to switch to queue directory") from error
    os.umask(0o077)
    _lock()
    for descriptor in range(1, 7):  # a program run for a bounce must not hold them
        os.set_inheritable(descriptor, False)
    spawners = [Spawner(write, read) for write, read in SPAWNERS]
    try:
        program = QmailSend(settings, routing, spawners, Cleaner(*CLEAN), log, env)
    except SpawnerDied as error:
        raise CannotStart("hath the daemon spawn no fire?") from error
    program.catch_signals()
    try:
        program.load()
    except OSError as error:
        raise CannotStart(f"unable to read {error.filename}: {error.strerror}") from error
    return program


def _lock() -> None:
    """Take lock/sendmutex for the life of the process."""
    try:
        descriptor = os.open(layout.MUTEX, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CannotStart("unable to open mutex") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise CannotStart("qmail-send is already running") from error


def main(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-send [-n NOTIFYFD]``, started by qmail-start.

    Args:
        argv: NOTIFYFD gets a newline when deliveries begin, and is closed (s6).
        env: ``QMAIL_HOME``; what open_queue looks at, for bounces.

    Returns:
        0 after SIGTERM or the loss of a companion, 100 on wrong usage, 111 when it cannot
        start; the log says why.
    """
    log = Log(LOG)
    notify = -1
    if argv[1:]:
        if len(argv) != 3 or argv[1] != "-n" or not argv[2].isdigit():
            log.line("usage: ", argv[0], " [-n fd]")
            return 100
        notify = int(argv[2])
    try:
        program = _start(env, log)
    except CannotStart as reason:
        log.line("alert: cannot start: ", str(reason))
        return 111
    if notify >= 0:
        try:
            os.write(notify, b"\n")
            os.close(notify)
        except OSError:
            pass
    try:
        program.run()
    except Exception as error:  # descriptor 2, where such things go elsewhere, is a pipe here
        log.line("alert: ", type(error).__name__, ": ", safe(str(error).encode()))
        return 111
    finally:
        log.flush()
    return 0
