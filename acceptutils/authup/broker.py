"""B, the broker: the one process of authup's that stays root, as briefly as may be.

It reads no byte of the client's. P gives it a record (see `record`) and, with it, the
client's two descriptors; B runs checkpassword on them. When checkpassword is a program
that runs in this process, B itself becomes the user, and no root process is left. A
foreign checkpassword is executed in a child, and B stays to tell P how that ended.
"""

import os
import select
import signal
import socket
import struct
from typing import NoReturn

from acceptutils import identity, ucspitls
from acceptutils.authup.record import (
    REQUEST_SIZE,
    BadRecord,
    Ended,
    Request,
    Started,
    blob,
    pack_reply,
    unpack,
    wipe,
)
from acceptutils.guard import client as guard
from acceptutils.guard.wire import Outcome
from ucspi import chain, log

BLOB_DESCRIPTOR = 3
CLIENT_DESCRIPTORS = struct.Struct("2i")

# What checkpassword says when the attempt failed: refused, misused, failed for now.
REFUSALS = (1, 2, 111)
WRONG = (1, 2)  # those that are about the password
# No password was judged: it failed for now, or could not be run.
UNJUDGED = (111, chain.EXIT_NOT_EXECUTABLE, chain.EXIT_NOT_FOUND)


class ParserGone(Exception):
    """P has ended; nobody is left to work for."""


def serve(channel: socket.socket, argv: list[str], env: dict[str, str], tries: int) -> NoReturn:
    """Be the broker until P ends, the tries are used up or the session is over.

    Whatever goes wrong in here ends the process by a signal: P then speaks of a crash,
    and never of a wrong password.

    Args:
        channel: the end of the socket pair that is B's.
        argv: checkpassword and what follows it.
        env: the environment of the session, but for the TLS variables.
        tries: failed attempts after which this process ends, whatever P asks for.
    """
    try:
        if channel.fileno() == BLOB_DESCRIPTOR:
            channel = channel.dup()
        leave_client(env)
        _serve(channel, argv, env, tries)
    except ParserGone:
        pass
    except BaseException as error:
        log.event(env, f"authup broker {os.getpid()}: {type(error).__name__}: {error}")
        # Not abort(): a core file would hold the password.
        os.kill(os.getpid(), signal.SIGKILL)
    finally:
        os._exit(0)


def _serve(channel: socket.socket, argv: list[str], env: dict[str, str], tries: int) -> None:
    foreign = chain.program_name(argv[0]) is None
    told = False
    while tries > 0:
        request = _receive(channel)
        if foreign and not told and os.getuid() == 0:
            told = True
            stays = f"{argv[0]} is foreign: a root process stays for the session"
            log.event(env, f"authup {os.getppid()} {stays}")
        ticket = _admission(channel, env, request)
        if ticket.answer.refused:
            _tell(channel, Started(os.getpid()))
            ended = Ended(REFUSALS[0], False)
        else:
            # In here, checkpassword is this process: once it is the user, it passed, and
            # has nothing to say to P any more, which believes what it hears on the channel.
            identity.afterwards[:] = [ticket.passed, channel.close]
            attempt = _run_child if foreign else _run_here
            ended = attempt(channel, argv, env, request)
            identity.afterwards.clear()
        ticket.tell(_outcome(ended))
        _tell(channel, ended)
        if ended.code not in REFUSALS or ended.became_user:
            return
        tries -= 1
        leave_client(env)


def rehearse(channel: socket.socket, env: dict[str, str]) -> None:
    """Do with one record on channel what `serve` does, but for running checkpassword."""
    leave_client(env)
    request = _receive(channel)
    guard_env = {"AUTHGUARD_SOCKET": os.devnull}  # nobody is asked
    _admission(channel, guard_env, request).tell(_outcome(Ended(0, True)))
    _session_env(env, request)
    _tell(channel, Started(os.getpid()))
    os.close(_offer(request))
    _who()


def _admission(channel: socket.socket, env: dict[str, str], request: Request) -> guard.Ticket:
    """Ask the guard, and wait for as long as it says, unless P ends before."""
    ticket = guard.ask(env, request.credentials.user, BLOB_DESCRIPTOR)
    if ticket.answer.refused:
        log.event(env, f"authup {os.getppid()} too many failures: this attempt is refused")
    gone = select.poll()
    # No events: what P sends meanwhile does not shorten the wait, only its end does.
    gone.register(channel, 0)
    if ticket.answer.milliseconds and gone.poll(ticket.answer.milliseconds):
        raise ParserGone
    return ticket


def _outcome(ended: Ended) -> Outcome | None:
    """Return what the guard is told: None where no password was judged."""
    if ended.became_user:
        return Outcome.PASSED
    if ended.code in WRONG:
        return Outcome.FAILED
    return None if ended.code < 0 or ended.code in UNJUDGED else Outcome.PASSED


def leave_client(env: dict[str, str]) -> None:
    """Let go of the client and of the TLS engine: both are P's alone.

    0 and 1 stay taken, by /dev/null, so that nothing else comes to lie there.
    """
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(null, 1)
    if null > 2:
        os.close(null)
    ucspitls.discard(env)


def _receive(channel: socket.socket) -> Request:
    """Take one record, and the client's descriptors that come with it onto 0 and 1."""
    record = bytearray(REQUEST_SIZE)
    room = socket.CMSG_SPACE(CLIENT_DESCRIPTORS.size)
    try:
        received = channel.recvmsg_into([record], room, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError as error:
        raise ParserGone from error
    size, ancillary, flags, _ = received
    if not size and not ancillary:
        raise ParserGone
    rights = [
        data
        for level, kind, data in ancillary
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS
    ]
    broken = flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
    if broken or size != REQUEST_SIZE or [len(r) for r in rights] != [CLIENT_DESCRIPTORS.size]:
        raise BadRecord("not a record with two descriptors")
    for number, descriptor in enumerate(CLIENT_DESCRIPTORS.unpack(rights[0])):
        os.dup2(descriptor, number)
        os.close(descriptor)
    try:
        return unpack(record)
    finally:
        wipe(record)


def _tell(channel: socket.socket, reply: Started | Ended) -> None:
    try:
        channel.send(pack_reply(reply))
    except ConnectionError as error:
        raise ParserGone from error


def _run_here(
    channel: socket.socket, argv: list[str], env: dict[str, str], request: Request
) -> Ended:
    """Become checkpassword and, when it succeeds, the user and the session."""
    _tell(channel, Started(os.getpid()))
    chain.place({BLOB_DESCRIPTOR: _offer(request)})
    before = _who()
    code = chain.run(argv, _session_env(env, request)) & 255
    if _who() != before:
        # The session was here and is over; P takes the status of the process itself.
        os._exit(code)
    _close(BLOB_DESCRIPTOR)
    return Ended(code, False)


def _run_child(
    channel: socket.socket, argv: list[str], env: dict[str, str], request: Request
) -> Ended:
    """Execute a foreign checkpassword, and wait for it: this process stays root."""
    reading = _offer(request)
    pid = chain.spawn(argv, _session_env(env, request), {BLOB_DESCRIPTOR: reading})
    os.close(reading)
    _tell(channel, Started(pid))
    return wait_for(pid, os.getuid())


def _session_env(env: dict[str, str], request: Request) -> dict[str, str]:
    user = os.fsdecode(request.credentials.user)
    return {**env, **request.variables, "AUTHUP_USER": user}


def _offer(request: Request) -> int:
    """Return a pipe's reading end with the credentials inside; wipe them here.

    Never waits: nobody reads yet, and a pipe may be as small as two pages where its
    owner has too many of them.
    """
    reading, writing = os.pipe()
    offered = blob(request.credentials)
    try:
        os.set_blocking(writing, False)
        if os.write(writing, offered) != len(offered):
            raise BlockingIOError("no room for the credentials in a pipe")
    finally:
        offered[:] = bytes(len(offered))
        request.credentials.password.wipe()
        os.close(writing)
    return reading


def wait_for(pid: int, began_as: int) -> Ended:
    """Wait for a child of ours; tell how it ended, and whether as another user.

    The kernel names the real uid that a process had when it ended, also of a child of
    another user: no more is needed to tell a session from a refusal.

    Args:
        pid: the child.
        began_as: the uid it was forked with.

    Raises:
        OSError: there is no such child.
    """
    ended = os.waitid(os.P_PID, pid, os.WEXITED)
    assert ended is not None  # None is for WNOHANG
    code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    return Ended(code, ended.si_uid != began_as)


def _who() -> tuple[object, ...]:
    return os.getresuid(), os.getresgid(), os.getgroups()


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:
        pass
