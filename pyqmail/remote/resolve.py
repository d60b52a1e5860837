"""Look mail exchangers, addresses and what is said of their TLS up, by dnspython.

The resolver is made per delivery from /etc/resolv.conf as it is then, unless
control/resolvers names others.
"""

import ipaddress
import socket
import time
from typing import NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.resolver

from pyqmail.remote.addresses import Exchanger, IPAddress
from pyqmail.remote.dane import Tlsa

CONFIGURATION = "/etc/resolv.conf"
# A resolver may need a while for a name whose servers are slow; qmail-send tries again.
QUERY_SECONDS = 5.0
LOOKUP_SECONDS = 30.0
DELIVERY_SECONDS = 120.0  # all look-ups of one delivery
RECORD_TYPES = ("A", "AAAA", "CNAME", "MX", "SOA", "TLSA", "TXT")  # that answers have
UDP_SIZE = 1232  # bytes of an answer that come in one piece everywhere


class NoSuchDomainError(Exception):
    """The DNS says that there is no such name, or there can be none."""


class TroubleError(Exception):
    """The DNS gave no answer now."""


class Exchangers(NamedTuple):
    """The mail exchangers of a domain."""

    found: list[Exchanger]
    secure: bool = False  # the answer was validated, even if it is that there are none


class Addresses(NamedTuple):
    """The addresses of a host."""

    found: list[IPAddress]
    secure: bool = False
    name: bytes = b""  # the host's own, behind aliases; only if it is secure


class Servers(NamedTuple):
    """Whom to ask."""

    addresses: tuple[str, ...] = ()  # none: those in /etc/resolv.conf
    trusted: bool = False  # if they say that an answer was validated, it was


SYSTEM = Servers()


def says_trust_ad(configuration: bytes) -> bool:
    """Tell whether a resolv.conf(5) has ``options trust-ad``.

    So says who knows that the resolver validates and that nobody can get in between.
    """
    lines = (line.split() for line in configuration.splitlines())
    return any(words[:1] == [b"options"] and b"trust-ad" in words for words in lines)


def system_trusts_ad() -> bool:
    """Tell whether /etc/resolv.conf has ``options trust-ad``."""
    try:
        with open(CONFIGURATION, "rb") as file:
            return says_trust_ad(file.read())
    except OSError:
        return False


def warm_up() -> None:
    """Have dnspython load, before the first fork, what it loads when it meets it first."""
    for kind in RECORD_TYPES:
        number = dns.rdatatype.from_text(kind)
        dns.rdata.get_rdata_class(dns.rdataclass.IN, number)  # type: ignore[no-untyped-call]
    query = dns.message.make_query("example.org.", "MX", use_edns=0)
    dns.message.from_wire(dns.message.make_response(query).to_wire())
    try:
        Resolver()
    except TroubleError:
        pass  # there may be an /etc/resolv.conf later


class Resolver:
    """Look-ups for one delivery."""

    def __init__(
        self, servers: Servers = SYSTEM, resolver: dns.resolver.Resolver | None = None
    ) -> None:
        """Ask servers.

        Args:
            servers: whom.
            resolver: one that is there already, for tests.

        Raises:
            TroubleError: there is nobody to ask.
        """
        self._trusted = servers.trusted
        try:
            if resolver is None:
                resolver = dns.resolver.Resolver(configure=not servers.addresses)
                if servers.addresses:
                    resolver.nameservers = list(servers.addresses)
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise TroubleError(str(error)) from error
        self._resolver = resolver
        self._resolver.timeout = QUERY_SECONDS
        if self._trusted:
            # AD in a question asks for it in the answer (RFC 6840, 5.7).
            self._resolver.flags = dns.flags.RD | dns.flags.AD
            self._resolver.use_edns(0, 0, UDP_SIZE)
        self._deadline = time.monotonic() + DELIVERY_SECONDS

    @property
    def trusted(self) -> bool:
        """Whether answers can be secure."""
        return self._trusted

    def exchangers(self, domain: bytes) -> Exchangers:
        """Return the mail exchangers of a domain, none if it has none. Aliases are followed.

        Raises:
            NoSuchDomainError, TroubleError: see there.
        """
        answer = self._ask(domain, "MX")
        found = []
        for record in answer:
            host = record.exchange.to_text(omit_final_dot=True)
            found.append(Exchanger(record.preference, host.encode("ascii")))
        return Exchangers(found, self._secure(answer))

    def addresses(self, host: bytes) -> Addresses:
        """Return a host's addresses, IPv4 first, none if it has none.

        Raises:
            NoSuchDomainError, TroubleError: see there. The answer for one family
                is enough; trouble with the other then does not matter.
        """
        found: list[IPAddress] = []
        trouble = None
        secure = True
        name = b""
        for kind in ("A", "AAAA"):
            try:
                answer = self._ask(host, kind)
            except TroubleError as error:
                trouble = error
                continue
            except NoSuchDomainError:
                if not found:
                    raise
                continue  # a server that says so of a name which has the other kind is wrong
            found += [ipaddress.ip_address(record.address) for record in answer]
            secure = secure and self._secure(answer)
            name = answer.canonical_name.to_text(omit_final_dot=True).encode("ascii")
        if not found and trouble is not None:
            raise trouble
        return Addresses(found, secure, name if secure else b"")

    def texts(self, name: bytes) -> list[bytes]:
        """Return the TXT records of a name, each in one piece, none if it has none.

        Raises:
            TroubleError: see there.
        """
        try:
            return [b"".join(record.strings) for record in self._ask(name, "TXT")]
        except NoSuchDomainError:
            return []

    def tlsa(self, name: bytes) -> list[Tlsa]:
        """Return the TLSA records of a name from a validated answer, none if it has none.

        Raises:
            TroubleError: see there. Whether there are any is not known then.
        """
        try:
            answer = self._ask(name, "TLSA")
        except NoSuchDomainError:
            return []
        if not self._secure(answer):
            return []
        return [Tlsa(r.usage, r.selector, r.mtype, bytes(r.cert)) for r in answer]

    def _secure(self, answer: dns.resolver.Answer) -> bool:
        return self._trusted and bool(answer.response.flags & dns.flags.AD)

    def _ask(self, name: bytes, kind: str) -> dns.resolver.Answer:
        try:
            absolute = dns.name.from_text(name.decode("ascii"), dns.name.root)
        except (UnicodeDecodeError, dns.exception.DNSException) as error:
            raise NoSuchDomainError(str(error)) from error
        rest = self._deadline - time.monotonic()
        if rest <= 0:
            raise TroubleError("too many slow look-ups")
        self._resolver.lifetime = min(rest, LOOKUP_SECONDS)
        try:
            return self._resolver.resolve(absolute, kind, search=False, raise_on_no_answer=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.YXDOMAIN) as error:
            raise NoSuchDomainError(str(error)) from error
        except (dns.exception.DNSException, OSError) as error:
            raise TroubleError(str(error)) from error


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
