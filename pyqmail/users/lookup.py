"""Look an address up in users/cdb (qmail-users(5)), qmail-lspawn's way.

Keys of the database: ``!LOCAL\\0`` for a simple assignment, ``!PREFIX`` for a wildcard,
both in lower case, and the empty key, whose data are the last characters of all wildcard
prefixes: only a prefix that ends in one of them needs to be looked for. The data:
``USER\\0UID\\0GID\\0HOME\\0DASH\\0EXT``; a wildcard's EXT is what the rest of the address is
appended to.
"""

from typing import NamedTuple, Protocol

from ucspi import cdb

CDB = "users/cdb"


class DamagedError(Exception):
    """users/cdb is not what qmail-newu writes."""


class Assignment(NamedTuple):
    """The user who controls an address, and how the user's .qmail files are named."""

    user: bytes
    uid: int
    gid: int
    home: bytes
    dash: bytes
    ext: bytes


class Database(Protocol):
    """What is needed of a constant database."""

    def get(self, key: bytes) -> bytes | None:
        """Return the data of the first record with key."""
        ...


def find(database: Database, local: bytes) -> Assignment | None:
    """Return the assignment of the address, None if it is not listed.

    A simple assignment comes before any wildcard, a longer wildcard before a shorter.

    Args:
        database: users/cdb.
        local: the address without its host; case matters only in what becomes the
            extension.

    Raises:
        DamagedError: the database has no list of wildcard characters, or a record that is none.
    """
    wildcards = database.get(b"")
    if wildcards is None:
        raise DamagedError("users/cdb: no list of wildcard characters")
    lower = local.lower()
    data = database.get(b"!" + lower + b"\0")
    if data is not None:
        return parse(data)
    # Strangers write addresses that have a wildcard's last character in every place.
    key = b"!" + lower
    hashes = cdb.prefix_hashes(key)
    for end in range(len(lower), -1, -1):
        if end and lower[end - 1 : end] not in wildcards:
            continue
        data = database.get(cdb.prefix(key, end + 1, hashes))
        if data is not None:
            found = parse(data)
            return found._replace(ext=found.ext + local[end:])
    return None


def parse(data: bytes) -> Assignment:
    """Return the assignment in a record.

    Raises:
        DamagedError: it does not have six fields, or its ids are not numbers.
    """
    fields = data.split(b"\0")
    if len(fields) < 6 or not (fields[1].isdigit() and fields[2].isdigit()):
        raise DamagedError("users/cdb: a record that is no assignment")
    user, uid, gid, home, dash, ext = fields[:6]
    return Assignment(user, int(uid), int(gid), home, dash, ext)
