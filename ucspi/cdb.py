"""Constant databases: Bernstein's cdb format, read by pread, written whole.

Layout (cdb(5)): 256 pairs of little-endian 32-bit (position, slots) for the hash
tables; then records (key length, data length, key, data); then the tables, whose slots
hold (hash, record position). A database is at most 4 GiB.
"""

import os
import struct
from collections.abc import Iterable, Iterator
from types import TracebackType

_PAIR = struct.Struct("<II")
HEADER_SIZE = 256 * _PAIR.size
SIZE_LIMIT = 1 << 32
RECORD_LIMIT = 1 << 24  # bytes of key and data that are read; a damaged file may say more


class FormatError(Exception):
    """The file is not a cdb, or it was cut off."""


class Key(bytes):
    """A key whose hash is known already (see `prefix_hashes`)."""

    hashed: int


def hash_key(key: bytes) -> int:
    """Return the cdb hash of key: start at 5381, h = ((h << 5) + h) ^ byte, 32 bits."""
    if isinstance(key, Key):
        return key.hashed
    value = 5381
    for byte in key:
        value = ((value << 5) + value & 0xFFFFFFFF) ^ byte
    return value


def prefix_hashes(key: bytes) -> list[int]:
    """Return the hashes of all beginnings of key, the empty one first.

    Who looks for many beginnings of what a stranger wrote need not read it once for each.
    """
    value = 5381
    hashes = [value]
    for byte in key:
        value = ((value << 5) + value & 0xFFFFFFFF) ^ byte
        hashes.append(value)
    return hashes


def prefix(key: bytes, length: int, hashes: list[int]) -> Key:
    """Return the first length bytes of key, as a key, with their hash from hashes."""
    found = Key(key[:length])
    found.hashed = hashes[length]
    return found


class Reader:
    """An open cdb file, as a context manager.

    A replaced file is not noticed: open it anew, as every program of qmail does.
    """

    def __init__(self, path: str) -> None:
        """Open path.

        Raises:
            OSError: it cannot be opened; FileNotFoundError when there is none.
        """
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> "Reader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def get(self, key: bytes) -> bytes | None:
        """Return the data of the first record with this key, None without one.

        Raises:
            FormatError: the file ends early.
            OSError: it cannot be read.
        """
        return next(self.get_all(key), None)

    def get_all(self, key: bytes) -> Iterator[bytes]:
        """Return the data of every record with this key, in the order written."""
        wanted = hash_key(key)
        position, slots = self._pair((wanted & 255) * _PAIR.size)
        for step in range(slots):
            slot = ((wanted >> 8) + step) % slots
            found, record = self._pair(position + slot * _PAIR.size)
            if not record:
                return
            if found == wanted:
                key_size, data_size = self._pair(record)
                if key_size == len(key):
                    if data_size > RECORD_LIMIT:
                        raise FormatError("cdb record is too long")
                    both = self._bytes(record + _PAIR.size, key_size + data_size)
                    if both.startswith(key):
                        yield both[key_size:]

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Return every record, in the order written."""
        end, _ = min(self._pair(i * _PAIR.size) for i in range(256))
        position = HEADER_SIZE
        while position < end:
            key_size, data_size = self._pair(position)
            both = self._bytes(position + _PAIR.size, key_size + data_size)
            yield both[:key_size], both[key_size:]
            position += _PAIR.size + key_size + data_size

    def _pair(self, position: int) -> tuple[int, int]:
        first, second = _PAIR.unpack(self._bytes(position, _PAIR.size))
        return first, second

    def _bytes(self, position: int, size: int) -> bytes:
        data = os.pread(self._fd, size, position)
        if len(data) != size:
            raise FormatError("cdb file is cut off")
        return data


def encode(items: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the bytes of a cdb with these records, in this order.

    Raises:
        ValueError: the database would be over 4 GiB.
    """
    records: list[bytes] = []
    buckets: list[list[tuple[int, int]]] = [[] for _ in range(256)]
    position = HEADER_SIZE
    for key, data in items:
        hashed = hash_key(key)
        buckets[hashed & 255].append((hashed, position))
        records.append(_PAIR.pack(len(key), len(data)) + key + data)
        position += len(records[-1])
    header: list[bytes] = []
    tables: list[bytes] = []
    for bucket in buckets:
        slots = 2 * len(bucket)
        header.append(_PAIR.pack(position, slots))
        table = [(0, 0)] * slots
        for hashed, record in bucket:
            slot = (hashed >> 8) % slots
            while table[slot][1]:
                slot = (slot + 1) % slots
            table[slot] = (hashed, record)
        tables.extend(_PAIR.pack(*entry) for entry in table)
        position += slots * _PAIR.size
        if position >= SIZE_LIMIT:
            raise ValueError("a cdb cannot hold 4 GiB")
    return b"".join(header + records + tables)


def write(path: str, items: Iterable[tuple[bytes, bytes]], mode: int = 0o644) -> None:
    """Write a cdb so that a reader sees the old file or the new one, also after a crash.

    The new file is made beside path as path + ``.tmp``; concurrent writers must hold a
    lock of their own.

    Raises:
        OSError: it cannot be written; the old file is untouched.
        ValueError: the database would be over 4 GiB.
    """
    content = encode(items)
    temporary = path + ".tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.fchmod(fd, mode)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
