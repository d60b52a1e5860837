"""How many messages wait, and since when: asked of a process that may look, and only looks.

The queue's directories are closed to all but the mailer's users, for who may enter them
may read mail. So the process that serves metrics does not: it asks one that runs as qmails,
which hears nothing but that it is asked, and answers with three numbers.
"""

import os
import socket
import struct
import time
from typing import NamedTuple, NoReturn

from appliance.layout import Owner

# A look takes at most a fiftieth of the time, however long the queue is.
SHARE = 50
LEAST_AGE = 5.0  # seconds until a look is worth another
PATIENCE = 0.2  # seconds; a look that takes longer is seen by who asks next

_ASK = b"?"
_ANSWER = struct.Struct("!qqd")
_NONE = _ANSWER.pack(-1, -1, 0.0)


class Gone(Exception):
    """The process that looks has ended."""


class Queue(NamedTuple):
    """What was seen of the queue."""

    messages: int
    unprocessed: int
    oldest: float  # seconds since the epoch; 0 when there is no message


class Looker:
    """Looks at a queue directory of netqmail's format."""

    def __init__(self, directory: str) -> None:
        """Look at directory; nothing is looked at yet."""
        self._directory = directory
        self._oldest = ("", 0.0)  # path and time

    def look(self) -> Queue:
        """Count the messages and find the oldest.

        Raises:
            OSError: a directory cannot be read.
        """
        messages = sum(len(os.listdir(part)) for part in self._parts("mess"))
        unprocessed = len(os.listdir(f"{self._directory}/todo"))
        return Queue(messages, unprocessed, self._birth_of_oldest() if messages else 0.0)

    def _parts(self, name: str) -> list[str]:
        base = f"{self._directory}/{name}"
        return [f"{base}/{part}" for part in os.listdir(base)]

    def _birth_of_oldest(self) -> float:
        """Return the time of the oldest file of senders, or of a message not looked at.

        While the one that was the oldest is there, it is: all that came later is younger.
        """
        path, birth = self._oldest
        if path and _time(path) == birth:
            return birth
        folders = [*self._parts("info"), f"{self._directory}/todo"]
        files = (f"{folder}/{name}" for folder in folders for name in os.listdir(folder))
        found = ((birth, path) for path in files if (birth := _time(path)))
        birth, path = min(found, default=(0.0, ""))
        self._oldest = (path, birth)
        return birth


def _time(path: str) -> float:
    """Return when a file was written; 0 for one that is gone."""
    try:
        return os.stat(path, follow_symlinks=False).st_mtime
    except OSError:
        return 0.0


def serve(channel: socket.socket, directory: str) -> None:
    """Look whenever somebody asks on channel, until its end."""
    looker = Looker(directory)
    while channel.recv(1):
        try:
            answer = _ANSWER.pack(*looker.look())
        except OSError:
            answer = _NONE
        channel.send(answer, socket.MSG_NOSIGNAL)


class Asker:
    """Asks a looker, not too often, and never waits for long."""

    def __init__(self, channel: socket.socket) -> None:
        """Ask on channel, where `serve` listens."""
        self._channel = channel
        self._asked: float | None = None
        self._due = 0.0
        self._known: Queue | None = None

    def ask(self) -> Queue | None:
        """Return what was seen last; None when nothing was.

        Raises:
            Gone: nobody looks any more.
        """
        try:
            if self._asked is None and time.monotonic() >= self._due:
                self._channel.send(_ASK, socket.MSG_NOSIGNAL)
                self._asked = time.monotonic()
            if self._asked is not None:
                self._hear(self._asked)
        except OSError as error:
            raise Gone(f"the process that looks at the queue: {error.strerror}") from error
        return self._known

    def _hear(self, asked: float) -> None:
        self._channel.settimeout(PATIENCE)
        try:
            answer = self._channel.recv(_ANSWER.size)
        except TimeoutError:
            return
        if len(answer) < _ANSWER.size:
            raise Gone("the process that looks at the queue has ended")
        seen = Queue(*_ANSWER.unpack(answer))
        now = time.monotonic()
        self._known = seen if seen.messages >= 0 else None
        self._due = now + max(LEAST_AGE, (now - asked) * SHARE)
        self._asked = None


def become(owner: Owner) -> None:
    """Become another user for good, if this process is root."""
    if os.geteuid() == 0:
        os.setgroups([owner.gid])
        os.setresgid(owner.gid, owner.gid, owner.gid)
        os.setresuid(owner.uid, owner.uid, owner.uid)


def start(directory: str, owner: Owner) -> Asker:
    """Fork the process that looks, as owner; return the way to it.

    Raises:
        OSError: there is no process or descriptor to be had.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        _run(theirs.detach(), directory, owner)
    theirs.close()
    return Asker(ours)


def _run(channel: int, directory: str, owner: Owner) -> NoReturn:
    status = 111
    try:
        become(owner)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.dup2(channel, 3)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        os.nice(10)
        serve(socket.socket(fileno=3), directory)
        status = 0
    finally:
        os._exit(status)
