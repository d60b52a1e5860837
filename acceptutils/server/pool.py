"""Connection processes that serve one connection after the other.

With ``-r`` a process that has given up root is not thrown away with its connection: it
waits, for a short while, for the next. The server gives it one by a packet, with the
connection and the way to the TLS zygote attached; it answers with one byte, the exit
status of the chain, when that has ended. A process whose chain ended otherwise (by an exec,
a signal, an exception) ends with it, as every process does without ``-r``.
"""

import _socket
import os
import select
import signal
import struct
from typing import NamedTuple

IDLE_SECONDS = 20.0  # that a process without a connection is kept
MOST_IDLE = 16
RECORD_LIMIT = 256  # bytes: an address, a port, a session id
_DESCRIPTORS_LIMIT = 2
_FLAGS = _socket.MSG_NOSIGNAL | _socket.MSG_DONTWAIT


class Worker(NamedTuple):
    """A connection process, seen from the server."""

    pid: int
    handle: int  # its pidfd
    channel: _socket.socket


class Task(NamedTuple):
    """A connection to serve, seen from its process."""

    connection: int  # descriptor
    zygote: int | None  # descriptor
    address: str
    port: int
    session: str


class Pool:
    """The server's view of its processes: which there are, and which wait."""

    def __init__(self, uses: int) -> None:
        """Keep processes for so many connections each; 1 keeps none."""
        self.uses = uses
        self._events: select.epoll | None = None
        self._workers: dict[int, Worker] = {}  # by the descriptor of the channel
        self._channels: dict[int, int] = {}  # that descriptor, by pidfd
        self._idle: list[tuple[float, Worker]] = []  # since when; the last is used first

    def report_to(self, events: select.epoll) -> None:
        """Have the channels watched by events."""
        self._events = events

    def make_channel(self) -> tuple[_socket.socket, _socket.socket] | None:
        """Return both ends of a channel for a process about to be forked.

        Returns:
            None when no process is kept.

        Raises:
            OSError: no descriptors.
        """
        if self.uses < 2:
            return None
        return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)

    def add(self, pid: int, handle: int, channel: _socket.socket) -> None:
        """Take in a process that has just been forked, and is at work."""
        assert self._events is not None
        number = channel.fileno()
        self._workers[number] = Worker(pid, handle, channel)
        self._channels[handle] = number
        self._events.register(number, select.EPOLLIN)

    def assign(self, record: bytes, descriptors: list[int]) -> Worker | None:
        """Give a connection to a process that waits; None when none does."""
        while self._idle:
            _, worker = self._idle.pop()
            ours = struct.pack(f"{len(descriptors)}i", *descriptors)
            rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, ours)
            try:
                worker.channel.sendmsg([record], [rights], _FLAGS)
                return worker
            except OSError:
                self.leave(worker.handle)  # its end is reported like any other's
        return None

    def hear(self, number: int, now: float) -> tuple[int, int] | None:
        """Read what the process on channel number reports.

        Returns:
            Its pidfd and an exit status: it waits now. None: it will never wait again.
        """
        worker = self._workers[number]
        try:
            word = worker.channel.recv(1, _socket.MSG_DONTWAIT)
        except OSError:
            word = b""
        if not word:
            self.leave(worker.handle)
            return None
        if len(self._idle) >= MOST_IDLE:
            self.leave(worker.handle)
        else:
            self._idle.append((now, worker))
        return worker.handle, word[0]

    def knows(self, number: int) -> bool:
        """Say whether the descriptor is one of the channels."""
        return number in self._workers

    def leave(self, handle: int) -> None:
        """Forget a process: it ends with its connection, or at once when it has none."""
        number = self._channels.pop(handle, None)
        if number is None:
            return
        worker = self._workers.pop(number)
        self._idle = [entry for entry in self._idle if entry[1] is not worker]
        if self._events is not None:
            self._events.unregister(number)
        worker.channel.close()

    @property
    def due(self) -> float | None:
        """When `retire` has something to do."""
        return self._idle[0][0] + IDLE_SECONDS if self._idle else None

    def retire(self, now: float) -> None:
        """Let go of processes that nobody has wanted for a while."""
        while self._idle and self._idle[0][0] + IDLE_SECONDS <= now:
            self.leave(self._idle[0][1].handle)

    def end(self) -> list[int]:
        """Forget all processes; those that wait are ended, and their pidfds returned.

        Without CAP_KILL they see for themselves that their channel has ended.
        """
        waiting = [worker for _, worker in self._idle]
        for handle in list(self._channels):
            self.leave(handle)
        for worker in waiting:
            try:
                os.kill(worker.pid, signal.SIGKILL)
            except PermissionError:
                pass
        return [worker.handle for worker in waiting]


def record(address: str, port: int, session: str) -> bytes:
    """Return what a process is told of its next connection."""
    return f"{address} {port} {session}".encode("ascii")


def report(channel: _socket.socket, status: int) -> None:
    """Tell the server, from a connection process, that the connection has ended.

    Raises:
        OSError: the server is gone.
    """
    channel.send(bytes((status & 255,)), _socket.MSG_NOSIGNAL)


def await_task(channel: _socket.socket) -> Task | None:
    """Wait for the next connection; None when there is none to come."""
    room = _socket.CMSG_SPACE(4 * _DESCRIPTORS_LIMIT)
    try:
        packet, ancillary, _, _ = channel.recvmsg(RECORD_LIMIT, room, _socket.MSG_CMSG_CLOEXEC)
    except OSError:
        return None
    if not packet:
        return None
    data = ancillary[0][2]
    connection, *rest = struct.unpack(f"{len(data) // 4}i", data)
    address, port, session = packet.decode("ascii").split(" ")
    return Task(connection, rest[0] if rest else None, address, int(port), session)
