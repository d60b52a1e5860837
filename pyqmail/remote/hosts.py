"""To which addresses mail for a domain may go, the best first."""

import random

from pyqmail.remote import addresses, report, resolve
from pyqmail.remote.addresses import Candidate, IPAddress
from pyqmail.remote.resolve import Resolver
from pyqmail.remote.routes import Route
from pyqmail.smtp.localaddress import is_local

CANDIDATE_LIMIT = 30  # addresses that are tried; a domain may list thousands


def of_route(route: Route) -> list[Candidate]:
    """Return the addresses of a relay.

    Raises:
        Outcome: there are none.
    """
    address = addresses.literal(route.relay)
    try:
        found = [address] if address else resolve.relay_addresses(route.relay)
    except resolve.TroubleError as error:
        raise report.outcome(report.DNS_TROUBLE) from error
    return [Candidate(0, route.relay, address) for address in found]


def of_literal(literal: bytes, address: IPAddress, mine: frozenset[IPAddress]) -> list[Candidate]:
    """Return what a domain stands for that is an address itself.

    Raises:
        Outcome: it is one of this host.
    """
    return _without_mine([Candidate(0, literal, address)], mine)


def of_domain(domain: bytes, resolver: Resolver, mine: frozenset[IPAddress]) -> list[Candidate]:
    """Return the addresses of a domain that are better than this host's own.

    Args:
        domain: the domain.
        resolver: to look up with.
        mine: addresses of this host beside its interfaces'.

    Raises:
        Outcome: there are none, or the mail would come back here.
    """
    try:
        found = look_up(domain, resolver)
    except resolve.NoSuchDomainError as error:
        raise report.outcome(report.no_host(domain)) from error
    except resolve.TroubleError as error:
        raise report.outcome(report.DNS_TROUBLE) from error
    return _without_mine(found, mine)[:CANDIDATE_LIMIT]


def _without_mine(found: list[Candidate], mine: frozenset[IPAddress]) -> list[Candidate]:
    def is_mine(address: IPAddress) -> bool:
        return address in mine or is_local(str(address).encode("ascii"))

    usable = addresses.usable(found, is_mine)
    if not usable:
        raise report.outcome(report.LOOPING)
    return usable


def look_up(domain: bytes, resolver: Resolver) -> list[Candidate]:
    """Return the addresses of a domain's mail exchangers, or its own, the best first.

    Raises:
        Outcome: it takes no mail, or has no address.
        NoSuchDomainError, TroubleError: of the domain itself.
    """
    exchangers, secure = resolver.exchangers(domain)
    if addresses.is_null_mx(exchangers):
        raise report.outcome(report.NULL_MX)
    if not exchangers:
        exchangers = [addresses.Exchanger(0, domain)]
    random.shuffle(exchangers)
    exchangers.sort(key=lambda exchanger: exchanger.preference)
    found: list[Candidate] = []
    trouble = None
    for preference, host in exchangers[:CANDIDATE_LIMIT]:
        try:
            of_host = resolver.addresses(host)
        except resolve.NoSuchDomainError:
            continue
        except resolve.TroubleError as error:
            trouble = error
            continue
        bases: tuple[bytes, ...] = ()
        if secure and of_host.secure:
            bases = tuple(dict.fromkeys((of_host.name or host, host)))
        found += [Candidate(preference, host, address, bases) for address in of_host.found]
    if not found:
        raise trouble or report.outcome(report.NO_EXCHANGER)
    return found
