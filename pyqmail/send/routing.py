"""Where a recipient's mail goes: local or remote, and under which address.

The rules are those of qmail-send(8), virtualdomains, locals and percenthack. Domains and
the keys of virtualdomains are compared without regard to ASCII case.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pyqmail.send.schedule import LOCAL, REMOTE


class Route(NamedTuple):
    """Channel and address under which a recipient is delivered to."""

    channel: int
    address: bytes


class Routing:
    """The tables, ready for look-ups."""

    __slots__ = ("_locals", "_no_at_host", "_percent", "_virtual")

    def __init__(
        self,
        local_domains: Iterable[bytes],
        virtual_domains: Iterable[bytes],
        percent_hack: Iterable[bytes] = (),
        no_at_host: bytes = b"envnoathost",
    ) -> None:
        """Take the lines of the control files locals, virtualdomains and percenthack."""
        self._locals = frozenset(line.lower() for line in local_domains)
        self._percent = frozenset(line.lower() for line in percent_hack)
        self._no_at_host = no_at_host
        self._virtual: dict[bytes, bytes] = {}
        for line in virtual_domains:
            key, colon, prepend = line.partition(b":")
            if colon:  # a line without a colon says nothing
                self._virtual[key.lower()] = prepend

    def route(self, recipient: bytes) -> Route:
        """Return where an envelope recipient goes."""
        address = recipient if b"@" in recipient else recipient + b"@" + self._no_at_host
        box, _, domain = address.rpartition(b"@")
        while domain.lower() in self._percent and b"%" in box:
            box, _, domain = box.rpartition(b"%")
            address = box + b"@" + domain
        if domain.lower() in self._locals:
            return Route(LOCAL, address)
        for key in _keys(address.lower(), domain.lower()):
            prepend = self._virtual.get(key)
            if prepend is not None:
                if prepend:
                    return Route(LOCAL, prepend + b"-" + address)
                break  # an exception: not virtual
        return Route(REMOTE, address)

    def without_prepend(self, address: bytes) -> bytes:
        """Return a local address as the sender knew it, for a bounce."""
        _, at, domain = address.rpartition(b"@")
        if not at:
            return address
        for key in _domain_keys(domain.lower()):
            prepend = self._virtual.get(key)
            if prepend is not None:
                if prepend and address.startswith(prepend + b"-"):
                    return address[len(prepend) + 1 :]
                break
        return address


def _keys(address: bytes, domain: bytes) -> Iterator[bytes]:
    """Yield the keys that virtualdomains may have for an address, the strongest first."""
    yield address
    yield from _domain_keys(domain)


def _domain_keys(domain: bytes) -> Iterator[bytes]:
    yield domain
    at = domain.find(b".", 1)
    while at >= 0:
        yield domain[at:]
        at = domain.find(b".", at + 1)
    yield b""
