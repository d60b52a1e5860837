"""What a backup is: a tar stream with a first and a last member of our own.

    postern-backup.json       {"format": 1, "version": ..., "time": ...}
    queue/mess/5/1234, ...    everything, by its name on the volume
    postern-backup-end.json   {"format": 1, "sha256": of all bytes before this member}

Who writes it and who reads it agree here on names, on links, and on whose a file may be.
"""

import posixpath
import re
import stat
import tarfile
from typing import NamedTuple

from appliance.errors import ApplianceError
from appliance.layout import (
    ALIAS,
    CHECKPW,
    DKIM,
    FIRST_ACCOUNT_UID,
    LAST_ACCOUNT_UID,
    QMAILQ,
    QMAILS,
    Owner,
)

FORMAT = 1
FIRST = "postern-backup.json"
LAST = "postern-backup-end.json"
RECORD = 10240  # bytes; a tar stream's length is a multiple of it
BLOCK = 512

SMALL = ("accounts", "dkim", "srs", "tls", "alias")  # root's, and read in one piece
PIECES = ("queue", *SMALL, "home")
# Made anew from the accounts, or may be thrown away.
DERIVED = ("users", "cache", "tmp", "lost+found")

# A user can make paths that no other program can name; the volume's own is in front of it.
NAME_LIMIT = 3000  # bytes
MODES = 0o1777  # no setuid, no setgid; a sticky home makes mail wait (dot-qmail(5))
BATCH = 1 << 20  # bytes read at a time

SPLIT = 23  # netqmail's conf-split
QUEUE_NAME = re.compile(r"queue/(?:(mess|info|local|remote)/(\d{1,2})|(todo|bounce))/(\d{1,20})")


class FormatError(ApplianceError):
    """That is no backup that can be restored; the text says why."""


class QueueFile(NamedTuple):
    """A file of the queue: mess, todo, info, local, remote or bounce of a message."""

    kind: str
    number: int


class Place(NamedTuple):
    """A directory of the queue, relative to it, as an empty queue has it."""

    path: str
    mode: int
    owner: Owner


def queue_places() -> list[Place]:
    """Return the directories of the queue that hold messages, parents first."""
    places = [Place("pid", 0o700, QMAILQ), Place("intd", 0o700, QMAILQ)]
    places += [Place("todo", 0o750, QMAILQ), Place("bounce", 0o700, QMAILS)]
    for kind in ("mess", "info", "local", "remote"):
        owner, mode = (QMAILQ, 0o750) if kind == "mess" else (QMAILS, 0o700)
        places.append(Place(kind, mode, owner))
        places += [Place(f"{kind}/{number}", mode, owner) for number in range(SPLIT)]
    return places


def queue_path(kind: str, number: int) -> str:
    """Return the path of a message's file, relative to the queue."""
    if kind in ("todo", "bounce"):
        return f"{kind}/{number}"
    return f"{kind}/{number % SPLIT}/{number}"


def queue_owner(kind: str) -> tuple[int, Owner]:
    """Return mode and owner of a file of the queue."""
    return (0o644, QMAILQ) if kind in ("mess", "todo") else (0o600, QMAILS)


def queue_file(name: str) -> QueueFile:
    """Return which file of the queue a member is.

    Raises:
        FormatError: there is no such file in a queue.
    """
    found = QUEUE_NAME.fullmatch(name)
    if not found:
        raise FormatError(f"{name!r}: not a file of a queue")
    kind, number = found[1] or found[3], int(found[4])
    if queue_path(kind, number) != name.removeprefix("queue/"):
        raise FormatError(f"{name!r}: not a file of a queue")
    return QueueFile(kind, number)


def check_name(name: str) -> str:
    """Return a member's name when it stands for something below one of our directories.

    Raises:
        FormatError: it does not.
    """
    parts = name.split("/")
    if {"", ".", ".."} & set(parts) or "\0" in name:
        raise FormatError(f"{name!r}: a name that leads elsewhere")
    if parts[0] not in PIECES:
        raise FormatError(f"{name!r}: not among what a backup holds")
    if is_too_long(name):
        raise FormatError("a name that is too long")
    return name


def is_too_long(name: str) -> bool:
    """Whether the name cannot be restored anywhere."""
    return len(name.encode("utf-8", "surrogateescape")) > NAME_LIMIT


def is_inside(name: str, target: str) -> bool:
    """Whether a symbolic link stays where it is: in one home, or in one of our directories.

    Args:
        name: of the link.
        target: what is in it.
    """
    if not target or target.startswith("/") or "\0" in target:
        return False
    unit = 3 if name.startswith("home/") else 1
    home = name.split("/")[:unit]
    led = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    return len(name.split("/")) > unit and led.split("/")[:unit] == home


def may_own(piece: str, owner: Owner) -> bool:
    """Whether something below one of PIECES may be owner's.

    A home is the account's; an administrator may have put something there. Files of the
    queue are its own users' in any case.
    """
    if piece == "queue":
        return True
    if piece == "home":
        known = owner.uid == 0 or FIRST_ACCOUNT_UID <= owner.uid <= LAST_ACCOUNT_UID
        return known and (owner.gid == 0 or FIRST_ACCOUNT_UID <= owner.gid <= LAST_ACCOUNT_UID)
    groups = {"accounts": CHECKPW.gid, "dkim": DKIM.gid}
    known_owners = {Owner(0, 0), Owner(0, groups.get(piece, 0))}
    if piece == "alias":
        known_owners.add(ALIAS)
    return owner in known_owners


def header(
    name: str,
    kind: bytes,
    mode: int,
    owner: Owner,
    mtime: float,
    size: int = 0,
    target: str = "",
    real_size: int | None = None,
) -> bytes:
    """Return what stands before a member's content.

    Args:
        name: of the member; as from the file system, with surrogates for odd bytes.
        kind: one of tarfile's types.
        mode: its permissions.
        owner: whose it is.
        mtime: seconds; fractions are left out, they would cost a kilobyte each.
        size: bytes of its content.
        target: of a symbolic link.
        real_size: bytes of a file with holes; its content begins with `sparse_map` then.
    """
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.linkname = kind, mode & MODES, size, target
    info.uid, info.gid, info.mtime = owner.uid, owner.gid, int(mtime)
    if real_size is not None:
        info.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.realsize": str(real_size),
        }
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def sparse_map(segments: list[tuple[int, int]]) -> bytes:
    """Return what says where the data of a file with holes belongs (GNU tar, sparse 1.0).

    Args:
        segments: offset and length of each.
    """
    numbers = [len(segments), *(number for segment in segments for number in segment)]
    text = "".join(f"{number}\n" for number in numbers).encode()
    return text + padding(len(text))


def kind_of(mode: int) -> bytes | None:
    """Return the type of member for a file's mode, None for what is left out."""
    if stat.S_ISREG(mode):
        return tarfile.REGTYPE
    if stat.S_ISDIR(mode):
        return tarfile.DIRTYPE
    return tarfile.SYMTYPE if stat.S_ISLNK(mode) else None


def padding(size: int) -> bytes:
    """Return what fills a member's last block."""
    return bytes(-size % BLOCK)
