"""The TLS zygote: holds the key, and forks one engine for each connection that asks.

It is forked from the server before the first connection, reads certificates and keys as root,
gives up root, says on the channel that it is ready, and from then on takes requests
(see request). It ends when nobody is left who could ask: the server has moved to a
newer generation, and the last connection of this one is over.
"""

import gc
import os
import select
import signal
import socket
import struct
from typing import NamedTuple

from acceptutils.identity import IdentityError
from acceptutils.tls.privilege import give_up_root
from acceptutils.tls.settings import Settings
from ucspi import chain, immortal, log

READY = b"+"
TROUBLE_LIMIT = 1000  # bytes of the text that says why a zygote is not ready
ASKING_SECONDS = 10  # how long a connection waits for a zygote that does not listen


class Zygote(NamedTuple):
    """A zygote, seen from the server."""

    pid: int
    channel: socket.socket


def start(settings: Settings, name: str) -> Zygote:
    """Fork a zygote; whether it gets ready shows on its channel (`verdict`).

    Args:
        settings: certificates, keys, and who to become.
        name: the program's name, for log lines.

    Raises:
        OSError: no process or no descriptors.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid:
        theirs.close()
        # Shared by all connections: none may wait for ever when the zygote hangs.
        timeval = struct.pack("ll", ASKING_SECONDS, 0)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
        return Zygote(pid, ours)
    status = 111
    try:
        status = _main(theirs, settings, name)
    except BaseException as error:
        log.event({}, f"{name}: TLS zygote: {type(error).__name__}: {error}")
    finally:
        os._exit(status)


def verdict(zygote: Zygote) -> str | None:
    """Wait for a started zygote's word: None when it is ready, else why it is not."""
    try:
        word = zygote.channel.recv(TROUBLE_LIMIT)
    except OSError as error:
        return str(error.strerror)
    if word == READY:
        return None
    return word.decode("utf-8", "replace") or "the TLS zygote died"


def is_heard(zygote: Zygote, seconds: float) -> bool:
    """Return whether the zygote has spoken (or died) within seconds."""
    poller = select.poll()
    poller.register(zygote.channel, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def _main(channel: socket.socket, settings: Settings, name: str) -> int:
    _shed(channel)
    _settle()
    from acceptutils.tls import engines, rehearsal
    from acceptutils.tls.context import ContextError, Contexts, keep_remarks_short

    keep_remarks_short(name)
    memory = immortal.open_memory()
    try:
        contexts = Contexts(settings)
        give_up_root(settings.uid, settings.gid)
    except (ContextError, IdentityError) as error:
        channel.send(str(error).encode("utf-8", "replace")[:TROUBLE_LIMIT])
        return 111
    rehearsal.rehearse(contexts, settings)
    # Engines live for one connection: what they would collect goes away with them,
    # and what is here already must not be touched, lest its pages be copied.
    gc.disable()
    immortal.freeze(memory)
    channel.send(READY)
    return engines.Engines(channel, contexts, settings, name).run()


def _shed(channel: socket.socket) -> None:
    """Keep standard error and the channel, and no other descriptor."""
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    chain.close_all_but({0, 1, 2, channel.fileno()})


def _settle() -> None:
    """Undo the server's signal handling, and take a name of our own."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number in (signal.SIGHUP, signal.SIGINT):  # those are for the server
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the engines
    try:
        with open("/proc/self/comm", "w") as comm:
            comm.write("tls-zygote")
    except OSError:
        pass  # only ps(1) would have shown it
