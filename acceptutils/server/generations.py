"""Generations of TLS zygotes: a new one for each new certificate, or for a dead one.

A generation that fails to start changes nothing: the one before it goes on, one line
says why, and the next attempt waits for the next change of the files (or, when
there is nothing that could go on, for a few seconds).
"""

import os
import socket
import time
from collections.abc import Callable

from acceptutils.tls import settings as tls_settings
from acceptutils.tls import zygote
from acceptutils.tls.settings import Settings
from acceptutils.tls.zygote import Zygote

START_SECONDS = 30.0  # for loading ssl and the key on a machine that is busy
RETRY_SECONDS = 5.0
SETTLED_SECONDS = 1.0  # a zygote that lived so long died of something else than its start

Report = Callable[[str], None]


class Generations:
    """The zygote that serves, and the one that is to take its place."""

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
        self._candidate: Zygote | None = None
        self._candidate_deadline = 0.0
        self._retry_at: float | None = None
        self._settled_at = 0.0
        self._died_young = False
        self.current: Zygote | None = None

    def start_first(self) -> str | None:
        """Start a zygote and wait for it; return why it did not get ready, None when it did."""
        self._begin()
        if self._candidate is None:
            return "unable to fork"
        if not zygote.is_heard(self._candidate, START_SECONDS):
            self._abandon()
            return "it does not get ready"
        return self._conclude()

    def keep(self, pid: int, descriptor: int) -> None:
        """Go on with a zygote that an earlier image of this process started."""
        self.current = Zygote(pid, socket.socket(fileno=descriptor))

    @property
    def is_starting_over(self) -> bool:
        """Whether there is no zygote, but one about to be: worth waiting for."""
        return self.current is None and self._candidate is not None

    @property
    def descriptors(self) -> list[int]:
        """The descriptors that a process serving a connection has no use for."""
        return [] if self._candidate is None else [self._candidate.channel.fileno()]

    @property
    def waiting_for(self) -> int | None:
        """The descriptor that becomes readable when the candidate has something to say."""
        return None if self._candidate is None else self._candidate.channel.fileno()

    def seconds_left(self, now: float) -> float | None:
        """Return in how many seconds `tick` wants to be called; None: not at all."""
        if self._candidate is not None:
            return max(0.0, self._candidate_deadline - now)
        return None if self._retry_at is None else max(0.0, self._retry_at - now)

    def tick(self, now: float) -> None:
        """Do what is due: give up on a candidate that hangs, try again."""
        if self._candidate is not None and now >= self._candidate_deadline:
            self._abandon()
            self._failed("it does not get ready")
        if self._retry_at is not None and now >= self._retry_at and self._candidate is None:
            self._begin()

    def check(self) -> None:
        """Start a new generation when a certificate or a key has changed.

        Called for every connection: some 1.5 microseconds per file.
        """
        if self._candidate is None:
            found = tls_settings.fingerprint(self._files)
            if found != self._fingerprint:
                self._begin()

    def heard(self) -> None:
        """Take the candidate's word: it becomes the current generation, or is forgotten."""
        trouble = self._conclude()
        if trouble is None:
            self._report("TLS: new certificate in use")
        else:
            self._failed(trouble)

    def died(self, pid: int, status: int) -> None:
        """Learn that the child pid ended; one of an older generation is no news."""
        if self.current is not None and pid == self.current.pid:
            self._report(f"TLS: zygote {pid} died, status {status}; starting another")
            self.current.channel.close()
            self.current = None
            dies_young = time.monotonic() < self._settled_at
            if dies_young and self._died_young:
                self._retry_at = time.monotonic() + RETRY_SECONDS
            elif self._candidate is None:
                self._begin()
            self._died_young = dies_young

    def close(self) -> None:
        """Let the zygotes end with the last of their connections."""
        if self.current is not None:
            self.current.channel.close()
            self.current = None
        self._abandon()

    def _begin(self) -> None:
        self._fingerprint = tls_settings.fingerprint(self._files)
        self._retry_at = None
        try:
            self._candidate = zygote.start(self._settings, self._name)
        except OSError as error:
            self._failed(f"unable to start: {error.strerror}")
            return
        self._candidate_deadline = time.monotonic() + START_SECONDS

    def _conclude(self) -> str | None:
        candidate, self._candidate = self._candidate, None
        if candidate is None:
            return None
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
        if self._candidate is not None:
            self._candidate.channel.close()
            try:
                os.kill(self._candidate.pid, 9)
            except ProcessLookupError:
                pass
            self._candidate = None

    def _failed(self, trouble: str) -> None:
        if self.current is not None:
            self._report(f"TLS: {trouble}; the certificate in use stays")
        else:
            self._report(f"TLS: {trouble}; no TLS for now")
            self._retry_at = time.monotonic() + RETRY_SECONDS
