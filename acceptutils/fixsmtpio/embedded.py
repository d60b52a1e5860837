"""A server of our own, held in this process: no fork, no pipes, nobody to be woken up.

It runs as the same user and reads the same client as this process does, so a process of
its own would protect nothing (see ucspi.dialogue). A server that is anybody else's is a child
(see server).
"""

import os
from collections.abc import Callable

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
