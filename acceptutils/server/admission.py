"""Who is let in: a limit on all connections, and one on those of each host.

Counting only; no clock and no socket. One host is one IPv4 address or one IPv6 /64.
"""

from typing import NamedTuple

HostKey = str | bytes


class Limits(NamedTuple):
    """The most connections at a time."""

    total: int
    per_host: int
    own: int = 0  # beyond the total, for clients of this host's own


class Admission:
    """The connections that are served now."""

    def __init__(self, limits: Limits, own: HostKey = "") -> None:
        """Begin with none; own is the host that this process itself runs on."""
        self._limits = limits
        self._own = own
        self._hosts: dict[HostKey, int] = {}
        self.total = 0

    def refusal(self, host: HostKey | None) -> str | None:
        """Return why one more connection of host is refused, None when it is not.

        None as host stands for one whose connections are not counted (a proxy).
        """
        limits = self._limits
        if self.total >= limits.total and (
            host != self._own or self.total >= limits.total + limits.own
        ):
            return f"limit of {limits.total} connections"
        if host is not None and self._hosts.get(host, 0) >= limits.per_host:
            return f"limit of {limits.per_host} connections per host"
        return None

    def enter(self, host: HostKey | None) -> None:
        """Count one more connection of host."""
        self.total += 1
        if host is not None:
            self._hosts[host] = self._hosts.get(host, 0) + 1

    def leave(self, host: HostKey | None) -> None:
        """Count one connection of host less; a host without any takes no memory."""
        self.total -= 1
        if host is None:
            return
        left = self._hosts[host] - 1
        if left:
            self._hosts[host] = left
        else:
            del self._hosts[host]


class Throttle:
    """Lets one event a second through, and says how many it kept back.

    A flood that is refused must not become a flood of log lines.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = seconds
        self._next = 0.0
        self._held = 0

    def pass_on(self, now: float) -> int:
        """Return how many events to report now, this one included; 0 keeps it back."""
        self._held += 1
        if now < self._next:
            return 0
        self._next = now + self._seconds
        reported, self._held = self._held, 0
        return reported
