"""Addresses in MAIL and RCPT commands, read as netqmail reads them (addresses(5)).

An envelope address is kept unquoted: ``"a b"@example.org`` is the address ``a b@example.org``.
"""

from typing import NamedTuple

ADDRESS_LIMIT = 900  # bytes; qmail-queue takes 1003 with what RELAYCLIENT may append


class Path(NamedTuple):
    """The argument of MAIL or RCPT."""

    address: bytes
    parameters: tuple[bytes, ...]


def parse_path(argument: bytes) -> Path | None:
    """Return the address and the parameters of an argument such as ``FROM:<a@b> SIZE=1``.

    As in netqmail the word before the colon does not matter, the angle brackets may be
    missing, and a source route is dropped.

    Returns:
        None for a syntax error: an address that is too long, or one with control
        characters (no mailbox has one, and in a header or on the way out they would
        be read as line ends).
    """
    start = argument.find(b"<") + 1
    if start:
        terminator = ord(">")
    else:
        terminator = ord(" ")
        start = argument.find(b":") + 1
        start = start or len(argument)
        while argument[start : start + 1] == b" ":
            start += 1
    if argument[start : start + 1] == b"@":
        route = argument.find(b":", start)
        start = len(argument) if route < 0 else route + 1
    address, end = _unquote(argument, start, terminator)
    if len(address) > ADDRESS_LIMIT or has_control(address):
        return None
    return Path(address, tuple(argument[end:].split()))


def _unquote(text: bytes, start: int, terminator: int) -> tuple[bytes, int]:
    """Return what lies before the terminator, without quoting, and the offset behind it."""
    address = bytearray()
    escaped = quoted = False
    for offset in range(start, len(text)):
        code = text[offset]
        if escaped:
            address.append(code)
            escaped = False
        elif code == terminator and not quoted:
            return bytes(address), offset + 1
        elif code == ord("\\"):
            escaped = True
        elif code == ord('"'):
            quoted = not quoted
        else:
            address.append(code)
    return bytes(address), len(text)


def has_control(address: bytes) -> bool:
    """Say whether an address has a control character in it, such as a line end."""
    return any(code < 32 or code == 127 for code in address)


def domain(address: bytes) -> bytes | None:
    """Return what follows the last @ of an address, None when it has none."""
    _, at, host = address.rpartition(b"@")
    return host if at else None


def literal(address: bytes) -> bytes | None:
    """Return the IP address in ``box@[192.0.2.1]`` or ``box@[IPv6:2001:db8::1]``, else None."""
    host = domain(address)
    if host is None or not (host.startswith(b"[") and host.endswith(b"]")):
        return None
    inner = host[1:-1]
    return inner[5:] if inner[:5].lower() == b"ipv6:" else inner
