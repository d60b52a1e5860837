"""The loop between the client and the server: read, decide, write, never block.

What one side is given is bounded by what the other takes. No bytes are read from the
client while the server has not taken the ones before, and none from the server while the
client has not. The server's output is always read while the client takes it, also when
the server's input is full: a server that writes before it reads is not locked out.
"""

import select
import time
from enum import Enum, auto

from acceptutils.fixsmtpio.client import Client
from acceptutils.fixsmtpio.deadline import Deadline
from acceptutils.fixsmtpio.session import Session

LONGEST_POLL_SECONDS = 3600.0  # poll takes milliseconds in an int
FULL = 65536  # bytes on their way to one side, before no more is read for it

# In a busy dialogue what is allowed how long is looked at so often, not at every byte.
LOOK_SECONDS = 0.25

# What the loop may wait for.
TO_CLIENT, FROM_CLIENT, TO_SERVER, FROM_SERVER = 1, 2, 4, 8


class Ended(Enum):
    """Why the loop came back."""

    OUTCOME = auto()  # the session says how it goes on
    SERVER_GONE = auto()  # the server ended by itself


class Outbox:
    """Bytes on their way to one side."""

    __slots__ = ("_data", "_sent", "dead", "size")

    def __init__(self) -> None:
        self._data = b""
        self._sent = 0
        self.size = 0  # bytes still to be written
        self.dead = False  # nobody reads at the other end: what comes is dropped

    def take(self, parts: list[bytes]) -> None:
        """Move the parts in here."""
        if not parts:
            return
        if not self.dead:
            if self.size:
                parts.insert(0, self._data[self._sent :])
            self._data = parts[0] if len(parts) == 1 else b"".join(parts)
            self._sent = 0
            self.size = len(self._data)
        parts.clear()

    def waiting(self) -> bytes | memoryview:
        """Return what is still to be written."""
        return memoryview(self._data)[self._sent :] if self._sent else self._data

    def written(self, length: int) -> None:
        """Note that the first length bytes have been written."""
        self._sent += length
        self.size -= length
        if not self.size:
            self._data, self._sent = b"", 0

    def drop(self) -> None:
        """Give up on the other end."""
        self.dead = True
        self._data, self._sent, self.size = b"", 0, 0


class Proxy:
    """Moves bytes for one session; how the server gets its own is for a subclass to say."""

    def __init__(self, session: Session, client: Client, timeout: float) -> None:
        self._session = session
        self._client = client
        self._to_client = Outbox()
        self._to_server = Outbox()
        now = time.monotonic()
        self._deadline = Deadline(timeout, now)
        self._over_at = now  # as it was when last looked at
        self._looked_at = 0.0
        self._poll = select.poll()
        self._interests = 0
        self._polled: dict[int, int] = {}

    # For a subclass.

    @property
    def server_has_ended(self) -> bool:
        """Say whether nothing more comes from the server."""
        raise NotImplementedError

    def exchange(self) -> bool:
        """Give the server what it can take at once.

        Returns:
            It would have taken more, had there been room for its answers.
        """
        raise NotImplementedError

    def server_interests(self) -> int:
        """Return what there is to wait for on the server's side."""
        raise NotImplementedError

    def server_descriptors(self) -> tuple[int, int]:
        """Return the descriptors of TO_SERVER and FROM_SERVER; -1 for none."""
        raise NotImplementedError

    def server_moves(self, descriptor: int) -> None:
        """Read from the server, or write to it."""
        raise NotImplementedError

    def server_due(self) -> float | None:
        """Return when the server wants to be told that nothing came."""
        return None

    def drop_server(self) -> None:
        """Hear nothing more from the server."""
        raise NotImplementedError

    def tell_server_time(self, now: float) -> bool:
        """Tell the server that nothing came, if it is that which is over."""
        return False

    # The loop.

    def run(self) -> Ended:
        """Serve until the session has an outcome and the client has been told it."""
        while True:
            self._hand_over()
            if not self._to_client.size:
                if self.server_has_ended:
                    return Ended.SERVER_GONE
                if self._session.outcome:
                    return Ended.OUTCOME
            self._wait()

    def say(self, text: bytes) -> None:
        """Write a last reply to the client; the deadline sees to it that this ends."""
        self._session.to_client.append(text)
        self._hand_over()
        while self._to_client.size:
            self._wait()
            self._hand_over()

    def _hand_over(self) -> None:
        """Write what can be written at once."""
        more = True
        while more:
            was_dead = self._to_client.dead
            more = self.exchange()
            self._to_client.take(self._session.to_client)
            if self._to_client.size and self._client.writes_without_asking:
                self._write_client()
            if self._to_client.dead and not was_dead:
                more = True  # the end of file that this is has to reach the server, too
            else:
                # With the client's place empty again the server has room for its answers.
                more = more and self._to_client.size < FULL

    def _wanted(self) -> int:
        session = self._session
        wanted = self.server_interests()
        if self._to_client.size:
            wanted |= TO_CLIENT
        if (
            self._to_client.size < FULL
            and self._to_server.size < FULL
            and not session.outcome
            and session.wants_client()
        ):
            wanted |= FROM_CLIENT
        return wanted

    def _wait(self) -> None:
        """Wait until something can move, and move it."""
        wanted = self._wanted()
        if wanted != self._interests:
            self._interests = wanted
            self._register(wanted)
        now = time.monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            self._look(now)
        looked = self._looked_at == now
        seconds = self._over_at - now if looked else LOOK_SECONDS
        ready = self._poll.poll(max(0.0, min(seconds, LONGEST_POLL_SECONDS)) * 1000)
        if ready:
            self._deadline.moved(time.monotonic())
        elif not looked:
            self._looked_at = 0.0  # it has become quiet: the next wait is as long as may be
        # Also when something is ready: a client that always has a byte gets no more time.
        if looked and time.monotonic() >= self._over_at:
            self._look(time.monotonic())
            if self._looked_at >= self._over_at:
                self._time_out()
        for descriptor, _ in ready:
            if descriptor == 0:
                self._read_client()
            elif descriptor == 1:
                self._write_client()
            else:
                self.server_moves(descriptor)

    def _look(self, now: float) -> None:
        """See when the time is over, as things are now."""
        self._looked_at = now
        self._over_at = self._deadline.at(self._session, now, backlog=bool(self._to_client.size))
        due = self.server_due()
        if due is not None and due < self._over_at:
            self._over_at = due

    def _register(self, wanted: int) -> None:
        """Poll what is of interest, and nothing else.

        A hang-up is always reported: the loop would spin on it.
        """
        server_in, server_out = self.server_descriptors()
        kinds = (
            (TO_CLIENT, 1, select.POLLOUT),
            (FROM_CLIENT, 0, select.POLLIN),
            (TO_SERVER, server_in, select.POLLOUT),
            (FROM_SERVER, server_out, select.POLLIN),
        )
        masks = {descriptor: event for bit, descriptor, event in kinds if wanted & bit}
        for descriptor in self._polled.keys() - masks.keys():
            self._poll.unregister(descriptor)
        for descriptor, event in masks.items():
            if self._polled.get(descriptor) != event:
                self._poll.register(descriptor, event)
        self._polled = masks

    def _forget(self, descriptor: int) -> None:
        """Stop polling a descriptor that is about to be closed."""
        if self._polled.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)
            self._interests = -1

    def _time_out(self) -> None:
        if self._session.outcome or self._session.hung_up:
            # Nothing more can be said, or nobody reads it.
            self._to_client.drop()
            self.drop_server()
        elif self.tell_server_time(self._looked_at):
            return
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
