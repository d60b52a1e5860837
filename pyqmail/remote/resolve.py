"""Look mail exchangers and addresses up, by dnspython.

The resolver is made per delivery from /etc/resolv.conf as it is then.
"""

import ipaddress
import socket
import time
from typing import Any

import dns.exception
import dns.name
import dns.resolver

from pyqmail.remote.addresses import Exchanger, IPAddress

# A resolver may need a while for a name whose servers are slow; qmail-send tries again.
QUERY_SECONDS = 5.0
LOOKUP_SECONDS = 30.0
DELIVERY_SECONDS = 120.0  # all look-ups of one delivery


class NoSuchDomainError(Exception):
    """The DNS says that there is no such name, or there can be none."""


class TroubleError(Exception):
    """The DNS gave no answer now."""


class Resolver:
    """Look-ups for one delivery."""

    def __init__(self, resolver: dns.resolver.Resolver | None = None) -> None:
        """Use resolver, or the system's.

        Raises:
            TroubleError: the system has none.
        """
        try:
            self._resolver = resolver or dns.resolver.Resolver()
        except (dns.exception.DNSException, OSError) as error:
            raise TroubleError(str(error)) from error
        self._resolver.timeout = QUERY_SECONDS
        self._deadline = time.monotonic() + DELIVERY_SECONDS

    def exchangers(self, domain: bytes) -> list[Exchanger]:
        """Return the mail exchangers of a domain, none if it has none. Aliases are followed.

        Raises:
            NoSuchDomainError, TroubleError: see there.
        """
        found = []
        for record in self._records(domain, "MX"):
            host = record.exchange.to_text(omit_final_dot=True)
            found.append(Exchanger(record.preference, host.encode("ascii")))
        return found

    def addresses(self, host: bytes) -> list[IPAddress]:
        """Return a host's addresses, IPv4 first, none if it has none.

        Raises:
            NoSuchDomainError, TroubleError: see there. The answer for one family
                is enough; trouble with the other then does not matter.
        """
        found: list[IPAddress] = []
        trouble = None
        for kind in ("A", "AAAA"):
            try:
                found += [ipaddress.ip_address(r.address) for r in self._records(host, kind)]
            except TroubleError as error:
                trouble = error
        if not found and trouble is not None:
            raise trouble
        return found

    def _records(self, name: bytes, kind: str) -> list[Any]:
        try:
            absolute = dns.name.from_text(name.decode("ascii"), dns.name.root)
        except (UnicodeDecodeError, dns.exception.DNSException) as error:
            raise NoSuchDomainError(str(error)) from error
        rest = self._deadline - time.monotonic()
        if rest <= 0:
            raise TroubleError("too many slow look-ups")
        self._resolver.lifetime = min(rest, LOOKUP_SECONDS)
        try:
            answer = self._resolver.resolve(absolute, kind, search=False, raise_on_no_answer=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.YXDOMAIN) as error:
            raise NoSuchDomainError(str(error)) from error
        except (dns.exception.DNSException, OSError) as error:
            raise TroubleError(str(error)) from error
        return list(answer)


def relay_addresses(host: bytes) -> list[IPAddress]:
    """Return the addresses of a relay from smtproutes: the system's way, with /etc/hosts.

    Raises:
        TroubleError: there are none, for now: who named the relay will mend it.
    """
    try:
        name = host.decode("ascii")
        entries = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise TroubleError(str(error)) from error
    found = [ipaddress.ip_address(entry[4][0]) for entry in entries]
    return sorted(dict.fromkeys(found), key=lambda address: address.version)
