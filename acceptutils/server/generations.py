"""Generations of TLS zygotes: a new one for each new certificate, or for a dead one.

A generation that fails to start changes nothing: the one before it goes on, one line
says why, and the next attempt waits for the next change of the files (or, when
there is nothing that could go on, for a few seconds).
"""

import os
import select
import signal
import socket
import time
from collections.abc import Callable

from acceptutils.tls import settings as tls_settings
from acceptutils.tls import zygote
from acceptutils.tls.settings import Settings
from acceptutils.tls.zygote import Zygote

START_SECONDS = 30.0  # for loading ssl and the key on a machine that is busy
RETRY_SECONDS = 5.0
PATIENCE_SECONDS = 1.0  # for which connections wait, to get the certificate that is new
SETTLED_SECONDS = 1.0  # a zygote that lived so long died of something else than its start

Report = Callable[[str], None]


class Generations:
    """The zygote that serves, the one that is to take its place, and those before them."""

    def __init__(self, settings: Settings, name: str, report: Report) -> None:
        """Prepare; nothing is started yet.

        Args:
            settings: for every generation.
            name: the program's name, for the zygotes' log lines.
            report: takes one line for the log.
        """
        self._settings = settings
        self._name = name
        self._report = report
        self._files = tls_settings.files(settings)
        self._fingerprint = tls_settings.fingerprint(self._files)
        self._events: select.epoll | None = None
        self._pids: dict[int, int] = {}  # of every zygote that is not reaped, by pidfd
        self._candidate: Zygote | None = None
        self._candidate_deadline = 0.0
        self._settled_at = 0.0
        self._died_young = False
        self.current: Zygote | None = None
        self.is_worth_waiting_for = False  # connections can wait for what is about to start
        self.due: float | None = None  # when `tick` wants to be called

    def report_to(self, events: select.epoll) -> None:
        """Have `handle` called for what becomes readable in events and is not the caller's."""
        self._events = events

    def start_first(self) -> str | None:
        """Start a zygote and wait for it; return why it did not get ready, None when it did."""
        self._begin()
        if self._candidate is None:
            return "unable to fork"
        if not zygote.is_heard(self._candidate, START_SECONDS):
            self._abandon()
            return "it does not get ready"
        return self._conclude()

    def resume(self, current: tuple[int, int] | None, earlier: list[int]) -> None:
        """Go on with the zygotes that an earlier image of this process started."""
        if current is not None:
            pid, descriptor = current
            self.current = Zygote(pid, socket.socket(fileno=descriptor))
            self._watch(pid)
        for pid in earlier:
            self._watch(pid)

    def state(self) -> tuple[tuple[int, int] | None, list[int]]:
        """Return what `resume` of the next image wants."""
        if self.current is None:
            return None, list(self._pids.values())
        pid = self.current.pid
        current = (pid, self.current.channel.fileno())
        return current, [other for other in self._pids.values() if other != pid]

    def check(self) -> None:
        """Start a new generation when a certificate or a key has changed.

        Called before every connection: some 1.5 microseconds per file.
        """
        if self._candidate is None:
            found = tls_settings.fingerprint(self._files)
            if found != self._fingerprint:
                self._begin()

    def handle(self, descriptor: int) -> None:
        """Learn what a zygote has to say, or that it has ended."""
        if self._candidate is not None and descriptor == self._candidate.channel.fileno():
            trouble = self._conclude()
            if trouble is None:
                self._report("TLS: new certificate in use")
            else:
                self._failed(trouble)
        elif descriptor in self._pids:
            pid = self._pids.pop(descriptor)
            if self._events is not None:
                self._events.unregister(descriptor)
            os.close(descriptor)
            _, status = os.waitpid(pid, 0)
            if self.current is not None and pid == self.current.pid:
                code = os.waitstatus_to_exitcode(status)
                self._report(f"TLS: zygote {pid} died, status {code}; starting another")
                self._replace()

    def tick(self) -> None:
        """Do what is due: wait no longer, give up on a candidate that hangs, or try again."""
        self.due = None
        if self._candidate is None:
            self._begin()
        elif time.monotonic() < self._candidate_deadline:
            self.is_worth_waiting_for = False
            self.due = self._candidate_deadline
        else:
            self._abandon()
            self._failed("it does not get ready")

    def close(self) -> None:
        """Let the zygotes end with the last of their connections."""
        if self.current is not None:
            self.current.channel.close()
            self.current = None
        self._abandon()

    def _replace(self) -> None:
        """Start a zygote in place of one that died; not at once, when they die at once."""
        assert self.current is not None
        self.current.channel.close()
        self.current = None
        dies_young = time.monotonic() < self._settled_at
        if self._candidate is None:
            if dies_young and self._died_young:
                self.due = time.monotonic() + RETRY_SECONDS
            else:
                self._begin()
        self._died_young = dies_young

    def _begin(self) -> None:
        self._fingerprint = tls_settings.fingerprint(self._files)
        try:
            started = zygote.start(self._settings, self._name)
        except OSError as error:
            self._failed(f"unable to start: {error.strerror}")
            return
        self._watch(started.pid)
        if self._events is not None:
            self._events.register(started.channel.fileno(), select.EPOLLIN)
        now = time.monotonic()
        self._candidate = started
        self._candidate_deadline = now + START_SECONDS
        self.is_worth_waiting_for = True
        self.due = now + PATIENCE_SECONDS

    def _watch(self, pid: int) -> None:
        descriptor = os.pidfd_open(pid)
        self._pids[descriptor] = pid
        if self._events is not None:
            self._events.register(descriptor, select.EPOLLIN)

    def _conclude(self) -> str | None:
        """Hear the candidate: it becomes current, or is forgotten and the reason returned."""
        candidate, self._candidate = self._candidate, None
        self.due = None
        self.is_worth_waiting_for = False
        assert candidate is not None
        if self._events is not None:
            self._events.unregister(candidate.channel.fileno())
        trouble = zygote.verdict(candidate)
        if trouble is not None:
            candidate.channel.close()
            return trouble
        if self.current is not None:
            self.current.channel.close()
        self.current = candidate
        self._settled_at = time.monotonic() + SETTLED_SECONDS
        return None

    def _abandon(self) -> None:
        if self._candidate is None:
            return
        if self._events is not None:
            self._events.unregister(self._candidate.channel.fileno())
        self._candidate.channel.close()
        try:
            os.kill(self._candidate.pid, signal.SIGKILL)
        except PermissionError:
            pass  # without CAP_KILL it is left to see that its channel has ended
        self._candidate = None
        self.is_worth_waiting_for = False
        self.due = None

    def _failed(self, trouble: str) -> None:
        if self.current is not None:
            self._report(f"TLS: {trouble}; the certificate in use stays")
        else:
            self._report(f"TLS: {trouble}; no TLS for now")
            self.due = time.monotonic() + RETRY_SECONDS
