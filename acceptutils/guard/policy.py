"""Who has to wait before a password is tried, and who is refused: counters over a clock.

Failures are counted in three places, and fade: for the client's address (an IPv6 /64 counts
as one), for the account, and for the two together. An attempt waits for the longest of what
these ask for. An address with too many failures is refused until half of them have faded.

Three rules keep strangers from locking out whoever belongs here:

- An account is never refused; its failures only delay those who have not lately logged in
  to it from where they are.
- An address from which anybody has lately logged in is never refused. It may be the gateway
  of a container's network, behind which everybody is: its failures delay, and mildly, those
  whose account has not lately been used from there.
- An allowed network is neither delayed nor refused, and its failures are not counted.

A right password forgives what the same address did wrong with the same account.

Nothing here knows sockets or the time: every method is given the time, in seconds.
"""

import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from acceptutils.guard.wire import Outcome
from acceptutils.server.addresses import Network, host_key, plain

# Seconds to wait after so many failures; the last for all above.
STEEP = (0, 0, 1, 2, 4, 8, 16)
MILD = (0, 0, 0, 0, 0, 1, 2, 4, 8)

HALF_LIFE = 900.0  # seconds in which half of the failures are forgotten
REFUSE_AT = 30.0  # failures of an address; it is refused from then on
ADMIT_BELOW = REFUSE_AT / 2  # and no more below this: after one half-life
LATELY = 86400.0  # seconds for which a login makes an address known

CAPACITY = 20_000  # addresses, accounts, pairs and logins remembered, each

K = TypeVar("K")
V = TypeVar("V")


class Counter:
    """Failures that fade, and attempts whose outcome is awaited."""

    __slots__ = ("_at", "_score", "pending", "refused")

    def __init__(self) -> None:
        self._score = 0.0
        self._at = 0.0
        self.pending = 0
        self.refused = False

    def score(self, now: float) -> float:
        """Return how many failures there are, the old ones counting less."""
        if self._score and now > self._at:
            self._score *= 0.5 ** ((now - self._at) / HALF_LIFE)
            self._at = now
        return self._score

    def add(self, failures: float, now: float) -> None:
        """Count failures, or forgive as many when it is a negative number."""
        self._score = max(0.0, self.score(now) + failures)
        self._at = now


class Table(Generic[K, V]):
    """The values used last, up to a capacity."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """Return the value of key, None when there is none (any more)."""
        return self._entries.get(key)

    def put(self, key: K, value: V) -> V:
        """Make value that of key, and the last one to be forgotten; return it."""
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
        return value

    def use(self, key: K, make: Callable[[], V]) -> V:
        """Return the value of key, made first when there is none."""
        found = self._entries.get(key)
        return self.put(key, make() if found is None else found)


class Attempt(NamedTuple):
    """A verdict, and what the outcome will be put down to."""

    refused: bool
    wait: float  # seconds
    place: str | bytes = ""
    account: bytes = b""
    # Of the pair, the account, the address; those of them that count.
    counters: tuple[Counter, ...] = ()


class Policy:
    """All that is known of failures, and the rules."""

    def __init__(self, allowed: Sequence[Network] = (), capacity: int = CAPACITY) -> None:
        self._allowed = allowed
        self._addresses: Table[str | bytes, Counter] = Table(capacity)
        self._accounts: Table[bytes, Counter] = Table(capacity)
        self._pairs: Table[tuple[str | bytes, bytes], Counter] = Table(capacity)
        self._pair_logins: Table[tuple[str | bytes, bytes], float] = Table(capacity)
        self._address_logins: Table[str | bytes, float] = Table(capacity)

    def begin(self, address: str, account: bytes, now: float) -> Attempt:
        """Return the verdict on an attempt; give it to `settle`, and to `end`, once each.

        Attempts that are still going on count as failures, but mildly: many at once are
        no way around the delays, and a mail program that opens a few connections at once
        does not feel it.

        Args:
            address: the client's; one that is no IP address is taken for unknown.
            account: the user name, in any case of its letters.
            now: the time.
        """
        address = plain(address)
        if any(address in network for network in self._allowed):
            return Attempt(False, 0)
        place, account = _place(address), account.lower()
        here = self._addresses.use(place, Counter)
        is_trusted = _is_recent(self._address_logins.get(place), now)
        if place and _judge(here, now) and not is_trusted:
            # Nothing else is looked up: a refused guesser makes the tables forget nobody.
            return Attempt(True, STEEP[-1])
        pair = self._pairs.use((place, account), Counter)
        is_known = _is_recent(self._pair_logins.get((place, account)), now)
        asked = [_delay(STEEP, pair.score(now))]
        counters: tuple[Counter, ...] = (pair,)
        if not is_known:
            named = self._accounts.use(account, Counter)
            asked.append(_delay(MILD, named.score(now) + named.pending))
            counters = (pair, named)
        if place:
            counters = (*counters, here)
        if place and not is_known:
            asked.append(_delay(MILD, here.score(now) + here.pending))
        if place and not is_known and not is_trusted:
            asked.append(_delay(STEEP, here.score(now)))
        for counter in counters:
            counter.pending += 1
        return Attempt(False, max(asked), place, account, counters)

    def settle(self, attempt: Attempt) -> None:
        """Take note that an attempt is no longer awaited, its outcome known or not."""
        for counter in attempt.counters:
            counter.pending -= 1

    def end(self, attempt: Attempt, outcome: Outcome | None, now: float) -> bool:
        """Take note of what became of an attempt.

        Args:
            attempt: what `begin` returned.
            outcome: None: no password was judged, nothing is counted.
            now: the time.

        Returns:
            Whether this made its address one that is refused from now on.
        """
        if not attempt.counters:
            return False
        if outcome is Outcome.FAILED:
            for counter in attempt.counters:
                counter.add(1, now)
            here, before = attempt.counters[-1], attempt.counters[-1].refused
            is_trusted = _is_recent(self._address_logins.get(attempt.place), now)
            return bool(attempt.place) and _judge(here, now) and not before and not is_trusted
        if outcome is Outcome.PASSED:
            forgiven = attempt.counters[0].score(now)
            for counter in attempt.counters:
                counter.add(-forgiven, now)
            if attempt.place:
                self._pair_logins.put((attempt.place, attempt.account), now)
                self._address_logins.put(attempt.place, now)
        return False


def _place(address: str) -> str | bytes:
    """Return the key that an address is counted under, "" for an unknown one."""
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except (OSError, ValueError):
        return ""
    return host_key(address)


def _is_recent(at: float | None, now: float) -> bool:
    return at is not None and now - at < LATELY


def _delay(table: tuple[int, ...], failures: float) -> int:
    return table[min(round(failures), len(table) - 1)]


def _judge(here: Counter, now: float) -> bool:
    """Return whether an address is refused: from a limit on, until half have faded."""
    # Half a failure of grace: one of a second ago is a little less than one.
    limit = ADMIT_BELOW if here.refused else REFUSE_AT - 0.5
    here.refused = here.score(now) >= limit
    return here.refused
