"""qmail-clean: removes files of the queue that belong to qmailq, at qmail-send's word.

qmail-send -> qmail-clean   foop/N \\0   remove intd/N and mess/N: N is over
                            todo/N \\0   remove intd/N and todo/N: N is preprocessed
qmail-clean -> qmail-send   one byte: + done, ! it could not be done, x no such command
"""

import os
import resource
import select
import time
from collections import deque
from enum import Enum

from pyqmail.queue import layout
from ucspi import control, log

COMMAND_LIMIT = 100  # bytes of a command with its NUL
DIGITS_LIMIT = 20  # of a 64-bit inode number
ABANDONED = 129_600  # seconds; 36 hours, must exceed the queue server's DEATH
PID_INTERVAL = 30  # commands between looks into pid/

MOST_HELD = 2000  # files that were removed and still have their space
LARGE = 16_384  # bytes; of such a file the space is given back at once
QUIET = 100  # milliseconds without a command: now there is time

DONE = b"+"
FAILED = b"!"
NO_COMMAND = b"x"


class Action(Enum):
    """What qmail-send may ask for."""

    FOOP = b"foop/"
    TODO = b"todo/"


def encode(action: Action, number: int) -> bytes:
    """Return a command."""
    return b"%s%d\0" % (action.value, number)


def decode(command: bytes) -> tuple[Action, int] | None:
    """Return what a command, without its NUL, asks for; None when it is none."""
    digits = command[5:]
    if len(command) >= COMMAND_LIMIT or not digits.isdigit() or len(digits) > DIGITS_LIMIT:
        return None
    try:
        return Action(command[:5]), int(digits)
    except ValueError:
        return None


def targets(action: Action, number: int) -> tuple[str, str]:
    """Return the files that are to go, in this order."""
    other = layout.mess(number) if action is Action.FOOP else layout.todo(number)
    return layout.intd(number), other


class Removed:
    """Files without a name, held open until there is time to give back their space.

    On a disk that is told of every free block (the mount option discard) that may take a
    millisecond for each file, as long as all the rest of the removal takes for ten. It happens
    when the last descriptor is closed. Meanwhile no new file gets the number.
    """

    def __init__(self) -> None:
        """Hold nothing."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = MOST_HELD if soft == resource.RLIM_INFINITY else min(MOST_HELD, soft // 2)
        self._held: deque[int] = deque()

    def __bool__(self) -> bool:
        """Whether there is something to give back."""
        return bool(self._held)

    def hold(self, path: str) -> None:
        """Hold the file that is about to lose its name, if it is there and small."""
        try:
            descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return  # the removal will say what is wrong
        if os.fstat(descriptor).st_size > LARGE:
            os.close(descriptor)
            return
        self._held.append(descriptor)
        if len(self._held) > self._most:
            self.give_back()

    def give_back(self) -> None:
        """Let go of the file that has been held longest."""
        os.close(self._held.popleft())


def answer(command: bytes, removed: Removed) -> bytes:
    """Carry out a command in the current directory, the queue, and return the answer."""
    decoded = decode(command)
    if decoded is None:
        return NO_COMMAND
    *others, last = targets(*decoded)
    removed.hold(last)
    for path in (*others, last):
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError:
            return FAILED
    return DONE


def remove_abandoned_pids(now: float) -> None:
    """Remove what crashed injections left in pid/ more than 36 hours ago."""
    try:
        entries = list(os.scandir("pid"))
    except OSError:
        return
    for entry in entries:
        try:
            status = entry.stat(follow_symlinks=False)
            if now > max(status.st_atime, status.st_mtime) + ABANDONED:
                os.unlink(entry.path)
        except OSError:
            pass


def main(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-clean``: commands on descriptor 0, answers on 1, until end of file."""
    try:
        control.enter_home(env)
        os.chdir("queue")
    except (control.ControlError, OSError) as error:
        log.event(env, f"{argv[0]}: {error}")
        return 111
    pending = b""
    until_pids = 0
    removed = Removed()
    commands_there = select.poll()
    commands_there.register(0, select.POLLIN)
    quiet = QUIET
    while True:
        if removed and not commands_there.poll(quiet):
            removed.give_back()
            quiet = 0
            continue
        quiet = QUIET
        try:
            data = os.read(0, 4096)
        except OSError:
            return 0
        if not data:
            return 0
        *commands, pending = (pending + data).split(b"\0")
        pending = pending[-COMMAND_LIMIT:]  # longer than any command: answered with x
        if commands and not until_pids:
            remove_abandoned_pids(time.time())
            until_pids = PID_INTERVAL
        until_pids = max(0, until_pids - len(commands))
        answers = b"".join(answer(command, removed) for command in commands)
        try:
            while answers:
                answers = answers[os.write(1, answers) :]
        except OSError:
            return 0
