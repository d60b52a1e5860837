"""The PROXY protocol, versions 1 and 2: who the client behind a proxy is.

The specification is HAProxy's proxy-protocol.txt. A header is taken from
listed networks only, must be the very first bytes, and is read exactly: not one byte
of what the client said after it.
"""

import os
import select
import socket
import struct
import time
from typing import NamedTuple

from acceptutils import identity

HEADER_SECONDS = 5.0

NOBODY = 65534
_REPORT_LIMIT = 200  # bytes; two addresses and two ports, or an error

_V1_START = b"PROXY "
_V1_LIMIT = 107  # bytes, the line end included (2.1)
_V2_START = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED = 16
_V2_LIMIT = 536  # bytes after the fixed ones that every receiver must take (2.2)
_V2_ADDRESSES = {
    # family and transport -> address family, struct of the addresses and ports
    0x11: (socket.AF_INET, struct.Struct("!4s4sHH")),
    0x21: (socket.AF_INET6, struct.Struct("!16s16sHH")),
}


class ProxyError(Exception):
    """What came was no PROXY header, or did not come in time."""


class Header(NamedTuple):
    """A parsed header: how long it is, and whom it speaks of."""

    length: int
    # Source address and port, destination address and port; None: the proxy itself.
    ends: tuple[str, int, str, int] | None


def parse(received: bytes) -> Header | None:
    """Return the header that received starts with, None when more bytes are to come.

    Raises:
        ProxyError: no continuation of received is a header.
    """
    if received.startswith(_V2_START):
        return _parse_v2(received)
    if received.startswith(_V1_START):
        return _parse_v1(received)
    if _V1_START.startswith(received) or _V2_START.startswith(received):
        return None
    raise ProxyError("not a PROXY header")


def _parse_v1(received: bytes) -> Header | None:
    end = received.find(b"\r\n", 0, _V1_LIMIT)
    if end < 0:
        if len(received) >= _V1_LIMIT:
            raise ProxyError("PROXY line without an end")
        return None
    words = received[:end].split(b" ")
    if words[1] == b"UNKNOWN":
        return Header(end + 2, None)
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise ProxyError("malformed PROXY line")
    family = socket.AF_INET if words[1] == b"TCP4" else socket.AF_INET6
    source, destination = (_address(family, word) for word in words[2:4])
    source_port, destination_port = (_port(word) for word in words[4:6])
    return Header(end + 2, (source, source_port, destination, destination_port))


def _address(family: int, word: bytes) -> str:
    try:
        text = word.decode("ascii")
        return socket.inet_ntop(family, socket.inet_pton(family, text))
    except (OSError, ValueError) as error:
        raise ProxyError("malformed address in PROXY line") from error


def _port(word: bytes) -> int:
    if not (word.isdigit() and len(word) <= 5 and int(word) <= 65535):
        raise ProxyError("malformed port in PROXY line")
    if word != b"%d" % int(word):
        raise ProxyError("malformed port in PROXY line")
    return int(word)


def _parse_v2(received: bytes) -> Header | None:
    if len(received) < _V2_FIXED:
        return None
    version_command, family, length = struct.unpack("!BBH", received[12:_V2_FIXED])
    if version_command not in (0x20, 0x21):
        raise ProxyError("unknown PROXY version or command")
    if length > _V2_LIMIT:
        raise ProxyError("PROXY header too long")
    if len(received) < _V2_FIXED + length:
        return None
    total = _V2_FIXED + length
    if version_command == 0x20 or family not in _V2_ADDRESSES:
        return Header(total, None)  # LOCAL, or a family that has no TCP addresses
    address_family, layout = _V2_ADDRESSES[family]
    if length < layout.size:
        raise ProxyError("PROXY header too short for its addresses")
    source, destination, source_port, destination_port = layout.unpack_from(received, _V2_FIXED)
    return Header(
        total,
        (
            socket.inet_ntop(address_family, source),
            source_port,
            socket.inet_ntop(address_family, destination),
            destination_port,
        ),
    )


def learn(connection: int) -> tuple[str, int, str, int] | None:
    """Take the header off connection; return whom it speaks of, None for the proxy itself.

    A root process has it read by a child that is nobody: no byte from outside is looked at
    as root, and what the child says of it is read as carefully as the header.

    Raises:
        ProxyError: see `read`.
    """
    if os.geteuid() != 0:
        return read(connection).ends
    result, report = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            identity.become(NOBODY, NOBODY)
            ends = read(connection).ends
            os.write(report, b"-" if ends is None else "{} {} {} {}".format(*ends).encode())
        except ProxyError as error:
            os.write(report, f"!{error}".encode())
        finally:
            os._exit(0)
    os.close(report)
    said = os.read(result, _REPORT_LIMIT)
    os.close(result)
    os.waitpid(pid, 0)
    if said == b"-":
        return None
    if said.startswith(b"!"):
        raise ProxyError(said[1:].decode("ascii", "replace"))
    words = said.split(b" ")
    if len(words) != 4:
        raise ProxyError("no PROXY header")
    family = socket.AF_INET6 if b":" in words[0] else socket.AF_INET
    return (
        _address(family, words[0]),
        _port(words[1]),
        _address(family, words[2]),
        _port(words[3]),
    )


def read(connection: int, seconds: float = HEADER_SECONDS) -> Header:
    """Take the header off connection, and nothing that follows it.

    Raises:
        ProxyError: see `parse`; or the header was not there within seconds.
    """
    deadline = time.monotonic() + seconds
    client = socket.socket(fileno=os.dup(connection))
    poller = select.poll()
    poller.register(client, select.POLLIN)
    received = b""
    try:
        while True:
            header = parse(received)
            if header is not None:
                return header
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise ProxyError("no PROXY header in time")
            # Looked at first: only what belongs to the header is taken.
            seen = client.recv(_V2_FIXED + _V2_LIMIT, socket.MSG_PEEK)
            if not seen:
                raise ProxyError("connection closed before a PROXY header")
            header = parse(received + seen)
            taken = len(seen) if header is None else header.length - len(received)
            received += client.recv(taken)
    except OSError as error:
        raise ProxyError(str(error.strerror)) from error
    finally:
        client.close()
