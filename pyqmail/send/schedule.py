"""When a message is tried again, and which is next."""

import heapq
from math import isqrt

LOCAL = 0  # channels
REMOTE = 1
CHANNELS = (LOCAL, REMOTE)

# Retry n of a message comes (n * SKIP)^2 seconds after its birth, so that fresh messages
# are tried often and old ones seldom (qmail-send(8)).
SKIP = (10, 20)


def next_retry(birth: int, now: int, channel: int) -> int:
    """Return when a message born at birth is due again if it is deferred now."""
    age = isqrt(now - birth) if now > birth else 0
    return birth + (age + SKIP[channel]) ** 2


class Due:
    """Message numbers by the time they are due. Small enough for a few 100,000."""

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        """Begin empty."""
        self._heap: list[tuple[int, int]] = []

    def __len__(self) -> int:
        """Return how many are waiting."""
        return len(self._heap)

    def add(self, due: int, number: int) -> None:
        """Add a message."""
        heapq.heappush(self._heap, (due, number))

    def extend(self, items: list[tuple[int, int]]) -> None:
        """Add many messages, (due, number) each."""
        self._heap += items
        heapq.heapify(self._heap)

    def first(self) -> int | None:
        """Return when the first one is due."""
        return self._heap[0][0] if self._heap else None

    def take(self, now: int) -> int | None:
        """Remove and return the first message if it is due."""
        if self._heap and self._heap[0][0] <= now:
            return heapq.heappop(self._heap)[1]
        return None

    def all_due(self, now: int) -> None:
        """Make every message due now."""
        self._heap = [(now, number) for _, number in self._heap]
        heapq.heapify(self._heap)

    def items(self) -> list[tuple[int, int]]:
        """Return all, (due, number), in no order."""
        return list(self._heap)
