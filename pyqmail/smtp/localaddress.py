"""Which IP addresses are this host's own (netqmail's ipme)."""

import socket
import struct

SIOCGIFCONF = 0x8912
IFREQ_SIZE = 40  # of struct ifreq: 16 bytes of name, then a sockaddr
IPV4 = slice(20, 24)  # the address in the sockaddr_in of an ifreq
INTERFACES = 256

# 0.0.0.0 and :: reach the host itself, too, and loopback may have no interface listed.
ALWAYS = frozenset(
    {bytes(4), bytes((127, 0, 0, 1)), bytes(16), bytes(15) + b"\x01"},
)


def packed_address(address: bytes) -> bytes | None:
    """Return the packed form of a textual IPv4 or IPv6 address, None for any other text."""
    text = address.decode("ascii", "replace")
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
    return None


def is_local(address: bytes) -> bool:
    """Say whether a textual IP address is one of this host's; asks the kernel each time."""
    packed = packed_address(address)
    if packed is None:
        return False
    if packed in ALWAYS:
        return True
    return packed in (_interfaces4() if len(packed) == 4 else _interfaces6())


def _interfaces4() -> set[bytes]:
    import array
    import fcntl

    room = array.array("B", bytes(IFREQ_SIZE * INTERFACES))
    location, _ = room.buffer_info()
    request = struct.pack("iP", len(room), location)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            filled, _ = struct.unpack("iP", fcntl.ioctl(probe, SIOCGIFCONF, request))
        except OSError:
            return set()
    found = room.tobytes()[:filled]
    return {found[start : start + IFREQ_SIZE][IPV4] for start in range(0, filled, IFREQ_SIZE)}


def _interfaces6() -> set[bytes]:
    try:
        with open("/proc/net/if_inet6", "rb") as table:
            return {bytes.fromhex(line.split()[0].decode("ascii")) for line in table}
    except (OSError, ValueError, IndexError):
        return set()
