"""Look-ups in the DNS for one message, within one deadline (dnspython).

Answers are kept, as long as their time to live allows, for all messages. When no resolver
answers at all, that is known after the first look-up: the messages that follow do not wait
for it, until it is tried again.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver

from ucspi import log

CACHED = 5000  # answers
QUERY_SECONDS = 2.0  # until a name server is asked again, or the next one
LOOKUP_SECONDS = 5.0
PROBE_SECONDS = 2.0
SILENCE_SECONDS = 30.0


class TroubleError(Exception):
    """The DNS gave no answer now."""


class NoNameError(Exception):
    """There is no such name."""


class Resolver:
    """The system's resolver, for all messages, and whether it answers.

    Args:
        inner: another one, for tests.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        inner: dns.resolver.Resolver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._inner = inner or _system_resolver()
        self._inner.timeout = QUERY_SECONDS
        self._inner.cache = dns.resolver.LRUCache(CACHED)
        self._lock = threading.Lock()
        self._silent_until = 0.0

    def resolve(self, name: dns.name.Name, kind: str, seconds: float) -> list[Any]:
        """Return the records of a kind, none if there are none.

        Raises:
            NoNameError: there is no such name.
            TroubleError: there was no answer in time.
        """
        if self._clock() < self._silent_until:
            raise TroubleError("no resolver answers")
        try:
            return list(self._query(name, kind, min(seconds, LOOKUP_SECONDS)))
        except (dns.resolver.NXDOMAIN, dns.resolver.YXDOMAIN) as error:
            raise NoNameError(str(error)) from error
        except dns.exception.Timeout as error:
            self._probe()
            raise TroubleError(str(error)) from error
        except (dns.exception.DNSException, OSError) as error:
            raise TroubleError(str(error)) from error

    def _query(self, name: dns.name.Name, kind: str, seconds: float) -> Any:
        return self._inner.resolve(
            name, kind, search=False, raise_on_no_answer=False, lifetime=seconds
        )

    def _probe(self) -> None:
        """Find out whether it was the resolver that did not answer, or the domain's servers.

        Else somebody with slow servers could switch authentication off for everybody.
        """
        with self._lock:
            if self._clock() < self._silent_until:
                return
            try:
                self._query(dns.name.root, "NS", PROBE_SECONDS)
            except (dns.exception.DNSException, OSError):
                self._silent_until = self._clock() + SILENCE_SECONDS
                log.event({}, f"mailauthd: no resolver answers; not asked for {SILENCE_SECONDS} s")


def _system_resolver() -> dns.resolver.Resolver:
    try:
        return dns.resolver.Resolver()
    except (dns.exception.DNSException, OSError):
        return dns.resolver.Resolver(configure=False)  # without name servers: always trouble


class Lookups:
    """The look-ups of one message.

    Args:
        resolver: for all messages.
        seconds: for all look-ups of this one.
        clock: seconds, monotonic.
    """

    def __init__(
        self, resolver: Resolver, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._resolver = resolver
        self._clock = clock
        self._deadline = clock() + seconds

    def records(self, name: str, kind: str) -> list[Any]:
        """Return the records of a kind, none if there are none or no such name.

        Raises:
            TroubleError: the DNS gave no answer.
        """
        try:
            return self._resolve(name, kind)
        except NoNameError:
            return []

    def texts(self, name: str) -> list[bytes]:
        """Return the TXT records of a name, each with its strings joined.

        Raises:
            TroubleError: the DNS gave no answer.
        """
        return [b"".join(record.strings) for record in self.records(name, "TXT")]

    def exists(self, name: str) -> bool:
        """Say whether there is such a name (RFC 9989, 3.2.16: no NXDOMAIN).

        Raises:
            TroubleError: the DNS gave no answer.
        """
        try:
            self._resolve(name, "A")
        except NoNameError:
            return False
        return True

    def _resolve(self, name: str, kind: str) -> list[Any]:
        try:
            absolute = dns.name.from_text(name, dns.name.root)
        except (dns.exception.DNSException, UnicodeError) as error:
            raise NoNameError(str(error)) from error
        left = self._deadline - self._clock()
        if left <= 0:
            raise TroubleError("no time left")
        return self._resolver.resolve(absolute, kind, left)
