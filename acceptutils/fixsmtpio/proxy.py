"""The loop between the client and the server: read, decide, write, never block.

What one side is given is bounded by what the other takes. No bytes are read from the
client while the server has not taken the ones before, and none from the server while the
client has not. The server's output is always read while the client takes it, also when
the server's input is full: a server that writes before it reads is not locked out.
"""

import os
import select
import time
from enum import Enum, auto

from acceptutils.fixsmtpio.client import CHUNK, Client
from acceptutils.fixsmtpio.deadline import Deadline
from acceptutils.fixsmtpio.server import Server
from acceptutils.fixsmtpio.session import Session

LONGEST_POLL_SECONDS = 3600.0  # poll takes milliseconds in an int
FULL = 65536  # bytes on their way to one side, before no more is read for it


class Ended(Enum):
    """Why the loop came back."""

    OUTCOME = auto()  # the session says how it goes on
    SERVER_GONE = auto()  # the server ended by itself


class Outbox:
    """Bytes on their way to one descriptor."""

    __slots__ = ("_data", "_sent", "dead")

    def __init__(self) -> None:
        self._data = b""
        self._sent = 0
        self.dead = False  # nobody reads at the other end: what comes is dropped

    def __len__(self) -> int:
        return len(self._data) - self._sent

    def take(self, parts: list[bytes]) -> None:
        """Move the parts in here."""
        if parts and not self.dead:
            if len(self):
                parts.insert(0, self._data[self._sent :])
            self._data = parts[0] if len(parts) == 1 else b"".join(parts)
            self._sent = 0
        parts.clear()

    def waiting(self) -> memoryview:
        """Return what is still to be written."""
        return memoryview(self._data)[self._sent :]

    def written(self, length: int) -> None:
        """Note that the first length bytes have been written."""
        self._sent += length
        if self._sent == len(self._data):
            self._data, self._sent = b"", 0

    def drop(self) -> None:
        """Give up on the other end."""
        self.dead = True
        self._data, self._sent = b"", 0


class Proxy:
    """Moves bytes for one session."""

    def __init__(self, session: Session, client: Client, server: Server, timeout: float) -> None:
        self._session = session
        self._client = client
        self._server = server
        self._to_client = Outbox()
        self._to_server = Outbox()
        self._deadline = Deadline(timeout, time.monotonic())
        self._poll = select.poll()
        self._interest: dict[int, int] = {}

    def run(self) -> Ended:
        """Serve until the session has an outcome and the client has been told it."""
        while True:
            self._hand_over()
            if not len(self._to_client):
                if self._server.output < 0:
                    return Ended.SERVER_GONE
                if self._session.outcome:
                    return Ended.OUTCOME
            self._wait()

    def say(self, text: bytes) -> None:
        """Write a last reply to the client; the deadline sees to it that this ends."""
        self._session.to_client.append(text)
        self._hand_over()
        while len(self._to_client):
            self._wait()
            self._hand_over()

    def _hand_over(self) -> None:
        """Write what can be written at once."""
        session = self._session
        self._to_client.take(session.to_client)
        self._to_server.take(session.to_server)
        if len(self._to_server):
            self._write_server()
        if session.server_input_ended and not len(self._to_server):
            self._forget(self._server.input)
            self._server.close_input()
        if len(self._to_client) and self._client.writes_without_asking:
            self._write_client()

    def _interests(self) -> dict[int, int]:
        session, server = self._session, self._server
        wanted: dict[int, int] = {}
        live = not session.outcome
        if len(self._to_client):
            wanted[1] = select.POLLOUT
        if server.output >= 0 and live and len(self._to_client) < FULL:
            wanted[server.output] = select.POLLIN
        if server.input >= 0 and len(self._to_server):
            wanted[server.input] = select.POLLOUT
        if (
            live
            and session.wants_client()
            and len(self._to_server) < FULL
            and len(self._to_client) < FULL
        ):
            wanted[0] = wanted.get(0, 0) | select.POLLIN
        return wanted

    def _wait(self) -> None:
        """Wait until something can move, and move it."""
        wanted = self._interests()
        if wanted != self._interest:
            # A descriptor of no interest must not be polled at all: a hang-up is always
            # reported, and the loop would spin on it.
            for descriptor in self._interest.keys() - wanted.keys():
                self._poll.unregister(descriptor)
            for descriptor, mask in wanted.items():
                if self._interest.get(descriptor) != mask:
                    self._poll.register(descriptor, mask)
            self._interest = wanted
        ready = self._poll.poll(min(self._time_left(), LONGEST_POLL_SECONDS) * 1000)
        if ready:
            self._deadline.moved(time.monotonic())
        # Also when something is ready: a client that always has a byte gets no more time.
        if not self._time_left():
            self._time_out()
        for descriptor, _ in ready:
            self._move(descriptor)

    def _time_left(self) -> float:
        now = time.monotonic()
        end = self._deadline.at(self._session, now, backlog=bool(len(self._to_client)))
        return max(0.0, end - now)

    def _move(self, descriptor: int) -> None:
        if descriptor == self._server.output:
            self._read_server()
        elif descriptor == self._server.input:
            self._write_server()
        elif descriptor == 1:
            self._write_client()
        elif descriptor == 0:
            self._read_client()

    def _time_out(self) -> None:
        if self._session.outcome or self._session.hung_up:
            # Nothing more can be said, or nobody reads it.
            self._to_client.drop()
            self._close_server()
        self._session.timeout()

    def _read_client(self) -> None:
        data = self._client.read()
        if data:
            self._session.client(data)
        elif data is not None:
            self._session.client_end()

    def _write_client(self) -> None:
        try:
            self._to_client.written(self._client.write(self._to_client.waiting()))
        except OSError:
            # Gone. The server still gets what the client asked for, and its end of file.
            self._to_client.drop()
            self._session.client_end()

    def _read_server(self) -> None:
        try:
            data = os.read(self._server.output, CHUNK)
        except OSError:
            data = b""
        if data:
            self._session.server(data)
        else:
            self._close_server()
            self._session.server_end()

    def _close_server(self) -> None:
        self._forget(self._server.output)
        self._server.close_output()

    def _write_server(self) -> None:
        try:
            self._to_server.written(os.write(self._server.input, self._to_server.waiting()))
        except BlockingIOError:
            pass
        except OSError:
            # It reads no more; what it has written may still hold its last reply.
            self._to_server.drop()

    def _forget(self, descriptor: int) -> None:
        if self._interest.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)
