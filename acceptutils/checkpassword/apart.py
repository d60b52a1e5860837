"""Ask whether a password is right in a process apart, which may hang, crash or be taken over.

What checks passwords elsewhere is a lot of foreign code (libldap, libpq, PAM's modules) that
reads what a client has typed and what a server answers. checkpassword is root, and root's
processes parse nothing. So a child does it, which is somebody else before it opens a
connection, has no descriptor of the session, and can only say one of a few small records.
When it has not done so in time it is killed, whatever it waits for: no library's own time
limits hold for a name server, a handshake and a lock alike.
"""

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from acceptutils import identity
from acceptutils.checkpassword import wire
from acceptutils.checkpassword.program import Unavailable
from acceptutils.checkpassword.wire import Identity, WireError
from ucspi import chain, log

_NAMED = b"n"  # and a name, NUL: right; whom that is, the accounts must say


class Refused(Exception):
    """Nobody gets in this way, whatever the password; the text says why, for the log."""


class Found(NamedTuple):
    """Whose password it was."""

    name: str
    identity: Identity | None = None  # None: the accounts know who has that name


def ask(
    check: Callable[[], Found | None],
    env: dict[str, str],
    program: str,
    *,
    seconds: float,
    ids: tuple[int, int] | None = None,
    kept: frozenset[int] = frozenset({2}),
) -> Found | None:
    """Return what check returns in a child process; None when it refuses.

    Args:
        check: run in the child. It may raise Unavailable and Refused, which the child logs.
        env: for log lines.
        program: who asks, for log lines.
        seconds: after which the child is killed.
        ids: uid and gid that the child becomes first; None: it stays who it is.
        kept: descriptors that the child keeps.

    Raises:
        Unavailable: check did not come to an end, or cannot say. What it raised itself is
            logged already, and the text is empty.
    """
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
    except OSError as error:
        raise Unavailable(f"unable to fork: {error.strerror}") from error
    if pid == 0:
        _answer(check, env, program, theirs, ids, kept)
    theirs.close()
    try:
        record = _receive(ours, seconds)
    finally:
        os.kill(pid, signal.SIGKILL)  # not reaped yet: it is nobody else's number
        os.waitpid(pid, 0)
        ours.close()
    return _read(record)


def _receive(channel: socket.socket, seconds: float) -> bytes:
    deadline = time.monotonic() + seconds
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise Unavailable(f"no answer within {seconds:g} seconds")
    try:
        return channel.recv(wire.ANSWER_LIMIT)
    except OSError:
        return b""


def _read(record: bytes) -> Found | None:
    if not record:
        raise Unavailable("the process that asks has ended without an answer")
    if record == wire.TEMPORARY:
        raise Unavailable
    try:
        if record[:1] == _NAMED and record.find(b"\0") == len(record) - 1:
            return Found(record[1:-1].decode())
        found = wire.parse_answer(record)
    except (UnicodeDecodeError, WireError) as error:
        raise Unavailable(f"not an answer: {error}") from error
    return found and Found(found.name, found)


def _answer(
    check: Callable[[], Found | None],
    env: dict[str, str],
    program: str,
    channel: socket.socket,
    ids: tuple[int, int] | None,
    kept: frozenset[int],
) -> NoReturn:
    record = wire.TEMPORARY
    try:
        # Not this process is the one that passes when it becomes somebody (see authup).
        identity.afterwards.clear()
        _leave_descriptors(kept | {channel.fileno()})
        _leave_environment()
        if ids:
            identity.become(*ids)
        record = _pack(check())
    except Refused as reason:
        log.event(env, f"{program}: {reason}")
        record = wire.REFUSED
    except (Unavailable, identity.IdentityError) as error:
        log.event(env, f"{program}: {error}")
    except BaseException as error:
        # Only its kind: nobody knows what a foreign exception quotes.
        why = f": {error.strerror}" if isinstance(error, OSError) else ""
        log.event(env, f"{program}: {type(error).__name__}{why}")
    finally:
        try:
            channel.send(record)
        finally:
            os._exit(0)


def _pack(found: Found | None) -> bytes:
    if found is None:
        return wire.REFUSED
    record = wire.pack_right(found.identity) if found.identity else _NAMED + _text(found.name)
    if len(record) > wire.ANSWER_LIMIT or not found.name:
        raise Unavailable("the name is too long, or empty")
    return record


def _text(name: str) -> bytes:
    if "\0" in name:
        raise Unavailable("a NUL in the name")
    return name.encode() + b"\0"


def _leave_environment() -> None:
    """Let no library find root's home, or settings of its own in a variable."""
    os.environ.clear()
    os.environ.update(HOME="/", PATH=chain.DEFAULT_PATH)


def _leave_descriptors(kept: frozenset[int]) -> None:
    """Close every descriptor that is not kept; /dev/null stands in for the standard ones."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for standard in {0, 1, 2} - kept:
        os.dup2(null, standard)
    chain.close_all_but(kept | {0, 1, 2})
