"""From a domain to IP addresses: mail exchangers, hosts, literals (RFC 5321, 5.1).

The look-ups themselves are `pyqmail.remote.resolve`'s; here is what is decided from them.
"""

import ipaddress
from collections.abc import Callable, Iterable
from typing import NamedTuple

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Exchanger(NamedTuple):
    """A mail exchanger of a domain."""

    preference: int
    host: bytes


class Candidate(NamedTuple):
    """An address to try."""

    preference: int
    host: bytes  # the name that its certificate may show
    address: IPAddress
    # Names below which TLSA records may be (RFC 7672, 2.2.2); none where the DNS is not
    # secure all the way.
    bases: tuple[bytes, ...] = ()


def literal(host: bytes) -> IPAddress | None:
    """Return the address in ``[192.0.2.1]``, ``[IPv6:2001:db8::1]`` or a bare one, else None."""
    text = host
    if text.startswith(b"[") and text.endswith(b"]"):
        text = text[1:-1]
        if text[:5].lower() == b"ipv6:":
            text = text[5:]
    try:
        return ipaddress.ip_address(text.decode("ascii"))
    except ValueError:
        return None


def is_null_mx(exchangers: Iterable[Exchanger]) -> bool:
    """Tell whether the domain says that it takes no mail (RFC 7505): one exchanger, ``.``."""
    found = list(exchangers)
    return len(found) == 1 and found[0].host in (b"", b".")


def usable(candidates: list[Candidate], is_mine: Callable[[IPAddress], bool]) -> list[Candidate]:
    """Return the candidates that are better than this host itself, in their order.

    If this host is a mail exchanger of the domain, only those with a smaller preference
    may get the mail from it: anything else would go round in a circle.
    """
    mine = [c.preference for c in candidates if is_mine(c.address)]
    if not mine:
        return candidates
    return [c for c in candidates if c.preference < min(mine)]
