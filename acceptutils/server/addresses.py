"""Addresses as the programs behind the server see them, and as limits count them."""

import socket

_MAPPED = "::ffff:"
_HOST_PREFIX = 64  # bits of an IPv6 address that one customer has to himself (RFC 6177)


def plain(address: str) -> str:
    """Return address without a zone, an IPv4-mapped one as plain IPv4.

    A dual-stack socket sees IPv4 clients as ``::ffff:192.0.2.1`` (RFC 4291, 2.5.5.2);
    programs and people expect ``192.0.2.1``.
    """
    if ":" not in address:
        return address
    bare = address.partition("%")[0]
    if bare.startswith(_MAPPED) and "." in bare:
        return bare[len(_MAPPED) :]
    return bare


def host_key(address: str) -> str | bytes:
    """Return what connections of one host have in common: the address, or an IPv6 /64."""
    if ":" not in address:
        return address
    return socket.inet_pton(socket.AF_INET6, address)[: _HOST_PREFIX // 8]


def own_key(host: str) -> str | bytes:
    """Return the key of this host's own clients, of a server that listens on host."""
    return host_key("127.0.0.1" if host in ("0", "0.0.0.0", "::") else plain(host))


class Network:
    """A block of addresses in CIDR notation; a bare address is a block of one."""

    def __init__(self, text: str) -> None:
        """Parse text.

        Raises:
            ValueError: it is neither an address nor a block, or has bits beyond its prefix.
        """
        address, slash, prefix = text.partition("/")
        packed = _pack(address)
        if packed is None:
            raise ValueError(f"not an address: {text}")
        self._length = len(packed)
        width = len(packed) * 8
        if slash and not (prefix.isascii() and prefix.isdigit() and int(prefix) <= width):
            raise ValueError(f"not a prefix length: {text}")
        self._shift = width - int(prefix) if slash else 0
        number = int.from_bytes(packed, "big")
        self._number = number >> self._shift
        if self._number << self._shift != number:
            raise ValueError(f"address bits beyond the prefix: {text}")

    def __contains__(self, address: str) -> bool:
        packed = _pack(address)
        if packed is None or len(packed) != self._length:
            return False
        return int.from_bytes(packed, "big") >> self._shift == self._number


def _pack(address: str) -> bytes | None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.inet_pton(family, address)
    except OSError:
        return None
