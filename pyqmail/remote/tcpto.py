"""queue/lock/tcpto: hosts that did not answer, not to be tried again too soon.

The file is netqmail's: 64 records of 16 bytes. Bytes 0 to 3 are an IPv4 address, byte 4
counts the time-outs (up to 10), bytes 8 to 11 are the time of the last one, little-endian.
A host that timed out at least twice is left alone for an hour or so. There is no room
for IPv6 addresses; they are always tried.
"""

import fcntl
import ipaddress
import os
from collections.abc import Iterator

FILE = "queue/lock/tcpto"
RECORD = 16
SIZE = 64 * RECORD
MOST_ERRORS = 10
DEAD_AFTER = 2  # time-outs
QUIET_SECONDS = 120  # after a time-out, another one says nothing new


def is_dead(table: bytes, address: bytes, now: int, spread: int) -> bool:
    """Tell whether a host is not to be tried now.

    Args:
        table: the content of the file.
        address: IPv4, packed.
        now: seconds since 1970.
        spread: any number; makes hosts come back at different times.
    """
    for offset in _records(table):
        if table[offset : offset + 4] == address:
            errors, when = _read(table, offset)
            return errors >= DEAD_AFTER and now - when < (60 + (spread & 31)) << 6
    return False


def change(table: bytes, address: bytes, now: int, *, timed_out: bool) -> tuple[int, bytes] | None:
    """Return the offset and the content of the record to write, None if there is none.

    Args:
        table: the content of the file.
        address: IPv4, packed.
        now: seconds since 1970.
        timed_out: the host did not answer; else it did.
    """
    for offset in _records(table):
        if table[offset : offset + 4] == address:
            errors, when = _read(table, offset)
            if not timed_out:
                return (offset, _record(address, 0, when)) if errors else None
            if errors and now < when + QUIET_SECONDS:
                return None
            return offset, _record(address, min(errors + 1, MOST_ERRORS), now)
    if not timed_out or len(table) < RECORD:
        return None
    free = [offset for offset in _records(table) if not table[offset + 4]]
    offset = free[0] if free else min(_records(table), key=lambda o: _worth(table, o))
    return offset, _record(address, 1, now)


def entries(table: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield address, number of time-outs, and time of the last, for each host with any."""
    for offset in _records(table):
        errors, when = _read(table, offset)
        if errors:
            yield table[offset : offset + 4], errors, when


def _records(table: bytes) -> range:
    return range(0, len(table) - RECORD + 1, RECORD)


def _read(table: bytes, offset: int) -> tuple[int, int]:
    return table[offset + 4], int.from_bytes(table[offset + 8 : offset + 12], "little")


def _record(address: bytes, errors: int, when: int) -> bytes:
    time = (when & 0xFFFFFFFF).to_bytes(4, "little")
    return address + bytes([errors, 0, 0, 0]) + time + bytes(4)


def _worth(table: bytes, offset: int) -> int:
    """Return how much it is worth to keep a record: newer ones with more errors more."""
    errors, when = _read(table, offset)
    return when + (errors << 10)


def look(address: ipaddress.IPv4Address | ipaddress.IPv6Address, now: int) -> bool:
    """Tell whether a host is not to be tried now, by the file below the qmail home."""
    if address.version != 4:
        return False
    try:
        with open(FILE, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            return is_dead(file.read(SIZE), address.packed, now, os.getpid())
    except OSError:
        return False  # without the file every host is tried


def note(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, now: int, *, timed_out: bool
) -> None:
    """Remember in the file that a host answered or timed out."""
    if address.version != 4:
        return
    try:
        with open(FILE, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            table = file.read(SIZE) or b""
            changed = change(table, address.packed, now, timed_out=timed_out)
            if changed is not None:
                offset, record = changed
                os.pwrite(file.fileno(), record, offset)
    except OSError:
        pass  # the next delivery finds out for itself


def clean(path: str) -> None:
    """Forget all hosts; done when qmail-rspawn starts."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(fd, bytes(SIZE))
    except OSError:
        pass
    finally:
        os.close(fd)
