"""Ask the TLS zygote for an engine: one record, with the descriptors attached.

The record is ``NAME=value\\0`` for each fact the engine may log; attached are, in this
order, the network socket, the engine's end of the control socket, the end of the pipe
it reads the application from, and the end of the pipe it writes to it. The zygote
never answers: whoever asked hears from the engine on the control socket, and end of
file there means that there is no TLS.
"""

import _socket
import os
import select
import socket
import struct
from typing import NamedTuple

from acceptutils import ucspitls

FACTS = ("TCPREMOTEIP", "SESSION_ID")
RECORD_LIMIT = 1024  # bytes; an address and a session id are far below
_DESCRIPTORS = struct.Struct("4i")


class Ends(NamedTuple):
    """The four descriptors an engine works on, in its own process."""

    network: int
    control: int
    from_application: int
    to_application: int


def encode(env: dict[str, str]) -> bytes:
    """Return the record of what env knows of the connection."""
    facts = "".join(f"{name}={env[name]}\0" for name in FACTS if name in env)
    return facts.encode("ascii", "replace")[:RECORD_LIMIT]


def decode(record: bytes) -> dict[str, str]:
    """Return the facts of a record; what is not one is dropped."""
    pairs = (field.partition("=") for field in record.decode("ascii", "replace").split("\0"))
    return {name: value for name, equals, value in pairs if equals and name in FACTS}


def make_ends() -> tuple[ucspitls.Descriptors, Ends]:
    """Make the control socket and the two pipes; the engine's network end is standard input.

    Raises:
        OSError: the process or the system is out of descriptors.
    """
    # The bare functions: those of the socket module make enumerations of every number.
    application_control, engine_control = _socket.socketpair()
    application_read, to_application = os.pipe()
    from_application, application_write = os.pipe()
    application = ucspitls.Descriptors(
        application_control.detach(), application_read, application_write
    )
    return application, Ends(0, engine_control.detach(), from_application, to_application)


def ask(channel: int, env: dict[str, str]) -> ucspitls.Descriptors:
    """Ask for an engine for the connection on descriptor 0.

    Args:
        channel: this process's descriptor of the way to the zygote; it is closed.
        env: what the engine may log is taken from it.

    Returns:
        The application's descriptors. Whether there is an engine behind them shows on
        the control socket only.

    Raises:
        OSError: no descriptors, or the zygote is gone.
    """
    application, ends = make_ends()
    try:
        zygote = _socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, channel)
        send(zygote, ends, env)
        zygote.close()
    except OSError:
        for descriptor in application:
            os.close(descriptor)
        raise
    finally:
        for descriptor in ends[1:]:
            os.close(descriptor)
    return application


def send(channel: _socket.socket, ends: Ends, env: dict[str, str]) -> None:
    """Send a request.

    Raises:
        OSError: nobody is there to take it.
    """
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, _DESCRIPTORS.pack(*ends))
    channel.sendmsg([encode(env)], [rights], socket.MSG_NOSIGNAL)


def receive(channel: _socket.socket) -> tuple[Ends, dict[str, str]] | None:
    """Wait for a request and return it; None when nobody is left to send one.

    A record without exactly four descriptors is dropped, and what came with it closed.
    """
    room = socket.CMSG_SPACE(_DESCRIPTORS.size)
    while True:
        try:
            record, ancillary, flags, _ = channel.recvmsg(
                RECORD_LIMIT, room, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            return None  # the server closed without having heard us
        received: list[int] = []
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                usable = len(data) - len(data) % 4
                received += struct.unpack(f"{usable // 4}i", data[:usable])
        if len(received) == len(Ends._fields) and not flags & socket.MSG_CTRUNC:
            return Ends(*received), decode(record)
        for descriptor in received:
            os.close(descriptor)
        if not record and _is_abandoned(channel):
            return None


def _is_abandoned(channel: _socket.socket) -> bool:
    """Return whether an empty read was the end: anybody may send an empty record."""
    poller = select.poll()
    poller.register(channel, select.POLLRDHUP)
    return bool(poller.poll(0))
