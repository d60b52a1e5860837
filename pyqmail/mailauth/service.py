"""A small daemon on a Unix socket: one request with a message's descriptor, one answer.

    NAME [ -n fd ] [ -u uid -g gid ] ... socket

Started as root it makes the socket, becomes uid and gid before it reads anything, and goes
by the kernel's word on who a client is (SO_PEERCRED).
"""

import errno
import os
import socket
import stat
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore, Lock

from pyqmail.mailauth import wire
from pyqmail.mailauth.wire import Answer, Request, WireError
from ucspi import log

EXIT_USAGE = 100
EXIT_TEMPORARY = 111

# Most of a thread's time is waiting for the DNS.
WORKERS = 32
CONNECTION_LIMIT = 512  # at once, working and waiting
PER_USER = WORKERS // 2  # at once, where users ask: none keeps the others waiting
REQUEST_SECONDS = 10.0
BACKLOG = 128
PAUSE = 0.1  # seconds until it is tried again to accept a client

_PEER = struct.Struct("iII")  # struct ucred: pid, uid, gid

# What a daemon does with a request: the message's descriptor and the client's uid -> answer.
Handler = Callable[[Request, int, int], Answer]


class UsageError(Exception):
    """The command line is not one of ours."""


def options(arguments: list[str], known: str) -> tuple[dict[str, str], list[str]]:
    """Return the values of one-letter options, each with a value, and the words after them.

    Raises:
        UsageError: an option that is not known or has no value.
    """
    words = list(arguments)
    given: dict[str, str] = {}
    while words and words[0].startswith("-"):
        letter = words.pop(0)[1:]
        if len(letter) != 1 or letter not in known or not words:
            raise UsageError(f"-{letter}")
        given[letter] = words.pop(0)
    if ("u" in given) != ("g" in given):
        raise UsageError("-u and -g go together")
    return given, words


def number(text: str) -> int:
    """Return the number that text is.

    Raises:
        UsageError: it is none.
    """
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"not a number: {text[:20]}")
    return int(text)


def prepare(given: dict[str, str], path: str) -> socket.socket:
    """Return the listening socket at path, and run as uid and gid from here on.

    Raises:
        UsageError: root, and nobody else to become.
        OSError: it cannot be done.
    """
    ids = (number(given["u"]), number(given["g"])) if "u" in given else None
    if os.geteuid() == 0 and (ids is None or 0 in ids):
        raise UsageError("refusing to run as root: give -u and -g")
    listener = listen(path)
    if ids:
        become(*ids)
    return listener


def listen(path: str) -> socket.socket:
    """Return a listening socket at path, in place of a stale one; everybody may connect.

    Raises:
        OSError: it cannot be made, or another process serves there.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = os.umask(0o111)
    try:
        _remove_stale(path)
        listener.bind(path)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return  # bind will say that the place is taken
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            pass  # somebody is there


def become(uid: int, gid: int) -> None:
    """Give up root for good; the next line runs as uid and gid.

    Raises:
        OSError: some identity is left over.
    """
    os.setgroups([gid])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3 or os.getgroups() != [gid]:
        raise PermissionError("the change of user did not work")


class Crowd:
    """Counts the connections of each user."""

    def __init__(self, most: int | None) -> None:
        """Let in so many of one user at once; any number for None."""
        self._most = most
        self._lock = Lock()
        self._here: dict[int, int] = {}

    def enter(self, uid: int) -> bool:
        """Count one more; return False if that is one too many, and not counted."""
        with self._lock:
            here = self._here.get(uid, 0)
            if self._most is not None and here >= self._most:
                return False
            self._here[uid] = here + 1
            return True

    def leave(self, uid: int) -> None:
        """Count one less."""
        with self._lock:
            self._here[uid] -= 1
            if not self._here[uid]:
                del self._here[uid]


def serve(
    name: str,
    listener: socket.socket,
    handler: Handler,
    notify: int | None = None,
    per_user: int | None = None,
    peers: frozenset[int] | None = None,
) -> None:
    """Answer requests until the listener is shut down.

    Args:
        name: of the program, for the log.
        listener: clients connect here.
        handler: makes the answers, in several threads at once.
        notify: a descriptor that hears a newline when requests are being taken.
        per_user: connections of one user at once; one more is closed. None: any number.
        peers: the only users that are heard; who is turned away keeps nobody waiting. None:
            all are.
    """
    if notify is not None:
        os.write(notify, b"\n")
        os.close(notify)
    free = BoundedSemaphore(CONNECTION_LIMIT)
    crowd = Crowd(per_user)

    def converse(connection: socket.socket, uid: int) -> None:
        try:
            _converse(name, connection, handler, uid)
        finally:
            crowd.leave(uid)
            free.release()

    with ThreadPoolExecutor(WORKERS) as pool:
        while True:
            free.acquire()
            try:
                connection, _ = listener.accept()
            except OSError as error:
                free.release()
                if error.errno == errno.EINVAL:  # shut down
                    return
                time.sleep(PAUSE)  # out of descriptors or memory
                continue
            uid = peer_uid(connection)
            if peers is not None and uid not in peers:
                reason = "turned away a process"
            elif crowd.enter(uid):
                pool.submit(converse, connection, uid)
                continue
            else:
                reason = "one connection too many"
            log.event({}, f"{name}: {reason} of uid {uid}")
            connection.close()
            free.release()


def _converse(name: str, connection: socket.socket, handler: Handler, uid: int) -> None:
    """Take one request and answer it; a client that gets none sees the connection end."""
    with connection:
        try:
            connection.settimeout(REQUEST_SECONDS)
            received = wire.receive(connection)
            if received is None:
                return
            request, message = received
            try:
                if not stat.S_ISREG(os.fstat(message).st_mode):
                    raise WireError("not a regular file")
                answer = handler(request, message, uid)
            finally:
                os.close(message)
            connection.sendall(wire.pack_answer(answer))
        except (OSError, WireError) as error:
            log.event({}, f"{name}: {error}")
        except Exception as error:
            # A message that is too much for the code must not end the service.
            log.event({}, f"{name}: {type(error).__name__}: {error}")


def peer_uid(connection: socket.socket) -> int:
    """Return the uid that the client had when it connected."""
    ucred = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    uid: int = _PEER.unpack(ucred)[1]
    return uid
