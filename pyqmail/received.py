"""Received lines and dates, as netqmail and mess822 write them."""

import time
from typing import NamedTuple

MONTHS = (
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun",
    b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
)  # fmt: skip

# What a client says of itself is copied into the header; bytes outside this set become "?".
SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.@%+/=:-")
_SAFE_TABLE = bytes(code if code in SAFE else ord("?") for code in range(256))

# RFC 1035, 2.3.4: a longer name is none, and would only make the line overlong.
NAME_LIMIT = 255


class Peer(NamedTuple):
    """What the connection server says of both ends (tcp-environ(5))."""

    remote_host: bytes
    remote_ip: bytes
    remote_info: bytes | None
    local_host: bytes


def safe(text: bytes) -> bytes:
    """Return text with every byte that has no place in a Received line as a question mark."""
    return text[:NAME_LIMIT].translate(_SAFE_TABLE)


def peer(env: dict[str, str]) -> Peer:
    """Return the peer that the TCP variables of env describe; ``unknown`` where they do not."""

    def known(*names: str) -> bytes:
        for name in names:
            if name in env:
                return env[name].encode("utf-8", "surrogateescape")
        return b"unknown"

    return Peer(
        remote_host=known("TCPREMOTEHOST"),
        remote_ip=known("TCPREMOTEIP"),
        remote_info=known("TCPREMOTEINFO") if "TCPREMOTEINFO" in env else None,
        local_host=known("TCPLOCALHOST", "TCPLOCALIP"),
    )


def date822(seconds: float) -> bytes:
    """Return a time in seconds since the epoch as ``2 Jan 2024 03:04:05 -0000``."""
    year, month, day, hour, minute, second = time.gmtime(seconds)[:6]
    return b"%d %s %d %02d:%02d:%02d -0000" % (day, MONTHS[month - 1], year, hour, minute, second)


def smtp_line(peer: Peer, helo: bytes | None, protocol: bytes, seconds: float) -> bytes:
    """Return qmail-smtpd's Received field.

    Args:
        peer: both ends of the connection.
        helo: the client's name for itself, None when it is remote_host.
        protocol: ``SMTP``.
        seconds: now.
    """
    return b"Received: from %s%s (%s%s)\n  by %s with %s; %s\n" % (
        safe(peer.remote_host),
        b"" if helo is None else b" (HELO %s)" % safe(helo),
        b"" if peer.remote_info is None else safe(peer.remote_info) + b"@",
        safe(peer.remote_ip),
        safe(peer.local_host),
        protocol,
        date822(seconds),
    )


def ofmip_line(peer: Peer, seconds: float) -> bytes:
    """Return ofmipd's Received field."""
    return b"Received: (ofmipd %s%s); %s\n" % (
        b"" if peer.remote_info is None else safe(peer.remote_info) + b"@",
        safe(peer.remote_ip),
        date822(seconds),
    )
