"""A child of qmail-lspawn or qmail-rspawn: what it keeps, and the deliveries it makes.

Descriptors: 0 the message, 1 and 2 the pipe for what a delivery says, 3 the service's log,
4 the channel to the parent for a child that may make more than one delivery. Over the
channel come packets, each a payload with a message and a pipe; back go packets of one byte,
the exit status.
"""

import gc
import os
import signal
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from ucspi import chain, log

FAILED = 111  # exit status of a child that stumbled over a mistake of ours
MISTAKE = b"The delivery ran into a mistake of the mail system. (#4.3.5)\n"
LOG_COPY = 3
CHANNEL = 4
PAYLOAD_LIMIT = 65536  # bytes; requests are limited to less

_TWO = struct.Struct("2i")
_log = log.STDERR  # the service's log, as this process has it


class Keep:
    """What a child holds on to from one delivery to the next: nothing, unless it says so."""

    def descriptors(self) -> tuple[int, ...]:
        """Return the descriptors that stay open."""
        return ()

    def leave(self) -> None:
        """Let go; there will be no further delivery. Must not take long."""


NOTHING = Keep()


class Work(NamedTuple):
    """What the child is for."""

    name: str
    deliver: Callable[[bytes], int]
    env: dict[str, str]
    keep: Keep = NOTHING


def send(channel: socket.socket, payload: bytes, message: int, output: int) -> None:
    """Give a waiting child a delivery.

    Raises:
        OSError: it has ended, or does not listen.
    """
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _TWO.pack(message, output))]
    channel.sendmsg([payload], rights, socket.MSG_NOSIGNAL)


def run(work: Work, payload: bytes, message: int, output: int, channel: int | None) -> NoReturn:
    """Be the child: this process was just forked. Make the delivery, then perhaps more.

    Args:
        work: what to do.
        payload: of the first delivery.
        message: descriptor of its message.
        output: descriptor of its pipe.
        channel: descriptor of the channel, None to make one delivery and exit with its status.
    """
    status = FAILED
    try:
        plumb(message, output, channel)
        status = work.deliver(payload)
        if channel is not None:
            serve(work, status)
    except BaseException as error:
        status = FAILED
        os.write(1, MISTAKE)
        complain(work.env, f"{work.name}: {type(error).__name__}: {error}")
    finally:
        os._exit(status & 255)


def plumb(message: int, output: int, channel: int | None) -> None:
    """Arrange descriptors and signals, and close all that is the parent's."""
    global _log
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    gc.disable()
    lowest = CHANNEL + 1
    message, output = _lift(message, lowest), _lift(output, lowest)
    if channel is not None:
        channel = _lift(channel, lowest)
    os.dup2(log.STDERR, LOG_COPY, inheritable=False)
    _log = LOG_COPY
    for wanted in (1, 2):
        os.dup2(output, wanted)
    os.dup2(message, 0)
    if channel is not None:
        os.dup2(channel, CHANNEL, inheritable=False)
    chain.close_all_but(set(range(CHANNEL if channel is None else lowest)))


def _lift(descriptor: int, lowest: int) -> int:
    """Return the descriptor, or a copy of it that is not below lowest."""
    if descriptor >= lowest:
        return descriptor
    import fcntl

    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, lowest)


def serve(work: Work, status: int) -> NoReturn:
    """Report the status of a delivery, make the next one, and so on.

    Ends the process when the parent closes the channel.
    """
    channel = socket.socket(fileno=CHANNEL)
    while True:
        _let_go(work.keep)
        channel.send(bytes([status & 255]), socket.MSG_NOSIGNAL)
        payload, rights, _, _ = channel.recvmsg(
            PAYLOAD_LIMIT, socket.CMSG_SPACE(_TWO.size), socket.MSG_CMSG_CLOEXEC
        )
        if not payload:
            work.keep.leave()
            os._exit(0)
        message, output = _TWO.unpack(rights[0][2])
        os.dup2(message, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        _close_others(work.keep)
        status = work.deliver(payload)


def _let_go(keep: Keep) -> None:
    """Give up the message and the pipe, and whatever a delivery may have left open."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for wanted in (0, 1, 2):
        os.dup2(null, wanted)
    _close_others(keep)
    os.chdir("/")


def _close_others(keep: Keep) -> None:
    chain.close_all_but({*range(CHANNEL + 1), *keep.descriptors()})


def complain(env: dict[str, str], text: str) -> None:
    """Write a line to the service's log from a child, whose descriptor 2 is the report."""
    if _log != log.STDERR:
        os.dup2(_log, log.STDERR)
    log.event(env, text)
