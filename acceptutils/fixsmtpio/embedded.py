"""A server of our own, held in this process: no fork, no pipes, nobody to be woken up.

It runs as the same user and reads the same client as this process does, so a process of
its own would protect nothing (see ucspi.dialogue). A server that is anybody else's is a child
(see server).
"""

import os
from collections.abc import Callable

from acceptutils.fixsmtpio.client import Client
from acceptutils.fixsmtpio.proxy import FULL, Proxy
from acceptutils.fixsmtpio.session import Session
from ucspi import dialogue, log

EXIT_BROKEN = 111  # as the launcher of programs says it


class Embedded:
    """A dialogue in progress: fed with what the client says, read for what it answers."""

    def __init__(self, held: dialogue.Dialogue, env: dict[str, str]) -> None:
        """Take over a dialogue that has not begun."""
        self.pid = os.getpid()
        self._dialogue = held
        self._env = env
        self._status: int | None = None
        self.deadline: float | None = None  # of what it waits for, in monotonic seconds

    @property
    def has_ended(self) -> bool:
        """Say whether it will neither say nor hear anything more."""
        return self._status is not None

    def start(self) -> bytes:
        """Let it begin; return what it says."""
        return self._step(lambda: next(self._dialogue))

    def feed(self, data: bytes) -> bytes:
        """Give it what the client says; return its answers."""
        return self._step(lambda: self._dialogue.send(data))

    def hang_up(self) -> bytes:
        """Let it see the end of file; return its last words."""
        return self._step(lambda: self._dialogue.throw(dialogue.ConnectionEnded()))

    def time_out(self) -> bytes:
        """Tell it that it has waited long enough; return what it says to that."""
        return self._step(lambda: self._dialogue.throw(dialogue.TimedOut()))

    def is_late(self, now: float) -> bool:
        """Say whether what it waits for has not come in time."""
        return self.deadline is not None and now >= self.deadline

    def end(self, *, at_once: bool = False) -> int:
        """End it and return its exit status.

        Args:
            at_once: it has nothing left to do; without, it still sees the end of file.
        """
        if self._status is None and not at_once:
            self.hang_up()
        if self._status is None:
            self._finish(0)
        return self._status or 0

    def _step(self, go_on: Callable[[], dialogue.Wait]) -> bytes:
        said = b""
        try:
            wait = go_on()
            said = wait.output
            while wait.deadline is None:
                wait = next(self._dialogue)
                said += wait.output
            self.deadline = wait.deadline
        except StopIteration as end:
            said += end.value.last_words
            self._finish(end.value.status)
        except Exception as error:
            log.event(self._env, f"{type(error).__name__}: {error}")
            self._finish(EXIT_BROKEN)
        return said

    def _finish(self, status: int) -> None:
        self._status = status
        self.deadline = None
        self._dialogue.close()


class EmbeddedProxy(Proxy):
    """With a server that is held in this process."""

    def __init__(self, session: Session, client: Client, server: Embedded, timeout: float) -> None:
        super().__init__(session, client, timeout)
        self._server = server
        self._told_end = False
        self._heard(server.start())

    @property
    def server_has_ended(self) -> bool:
        """Say whether nothing more comes from the server."""
        return self._server.has_ended

    def exchange(self) -> bool:
        """Feed the server while the client takes its answers."""
        session, to_server, server = self._session, self._to_server, self._server
        while not server.has_ended:
            to_server.take(session.to_server)
            self._to_client.take(session.to_client)
            if to_server.size and self._to_client.size < FULL:
                data = bytes(to_server.waiting())
                to_server.written(len(data))
                self._heard(server.feed(data))
            elif session.server_input_ended and not to_server.size:
                self._heard(server.hang_up())
            else:
                return bool(to_server.size)
        return False

    def _heard(self, data: bytes) -> None:
        if data:
            self._session.server(data)
        if self._server.has_ended and not self._told_end:
            self._told_end = True
            self._session.server_end()

    def server_interests(self) -> int:
        """Return what there is to wait for on the server's side."""
        return 0

    def server_descriptors(self) -> tuple[int, int]:
        """Return that there is none."""
        return -1, -1

    def server_moves(self, descriptor: int) -> None:
        """Do nothing: it is never waited for."""

    def server_due(self) -> float | None:
        """Return when the server wants to be told that nothing came."""
        return self._server.deadline

    def tell_server_time(self, now: float) -> bool:
        """Tell the server that nothing came, if it is that which is over."""
        if not self._server.is_late(now):
            return False
        self._heard(self._server.time_out())
        return True

    def drop_server(self) -> None:
        """Hear nothing more from the server."""
        self._server.end(at_once=True)
