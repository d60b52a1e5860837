"""The queue directory as netqmail 1.06 lays it out: names, owners, modes.

Paths are relative to the queue directory, in which the queue's programs run.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from stat import S_IFDIR, S_IFIFO, S_IFMT, S_IFREG
from typing import NamedTuple

from pyqmail.queue.ids import Ids

SPLIT = 23  # subdirectories of mess, info, local and remote (conf-split)
SPLIT_DIRECTORIES = ("mess", "info", "local", "remote")
TRIGGER = "lock/trigger"
MUTEX = "lock/sendmutex"
TCPTO = "lock/tcpto"
TCPTO_SIZE = 1024


def split(directory: str, number: int) -> str:
    """Return the file of message number in one of the split directories."""
    return f"{directory}/{number % SPLIT}/{number}"


def mess(number: int) -> str:
    """Return the file that holds message number; its inode is that number."""
    return f"mess/{number % SPLIT}/{number}"


def intd(number: int) -> str:
    """Return the file in which qmail-queue builds the envelope of message number."""
    return f"intd/{number}"


def todo(number: int) -> str:
    """Return the file whose existence says that message number is queued."""
    return f"todo/{number}"


def info(number: int) -> str:
    """Return the file that holds the sender; its mtime is the message's birth."""
    return f"info/{number % SPLIT}/{number}"


def bounce(number: int) -> str:
    """Return the file that collects permanent failures of message number."""
    return f"bounce/{number}"


class Entry(NamedTuple):
    """One directory or file of an empty queue."""

    path: str
    kind: int  # S_IFDIR, S_IFREG, S_IFIFO
    mode: int
    owner: str  # a field of Ids
    size: int = 0


def entries() -> Iterator[Entry]:
    """Yield everything an empty queue consists of, parents first."""
    yield Entry(".", S_IFDIR, 0o750, "qmailq")
    yield Entry("pid", S_IFDIR, 0o700, "qmailq")
    yield Entry("intd", S_IFDIR, 0o700, "qmailq")
    yield Entry("todo", S_IFDIR, 0o750, "qmailq")
    yield Entry("bounce", S_IFDIR, 0o700, "qmails")
    for name in SPLIT_DIRECTORIES:
        owner, mode = ("qmailq", 0o750) if name == "mess" else ("qmails", 0o700)
        yield Entry(name, S_IFDIR, mode, owner)
        for number in range(SPLIT):
            yield Entry(f"{name}/{number}", S_IFDIR, mode, owner)
    yield Entry("lock", S_IFDIR, 0o750, "qmailq")
    yield Entry(TCPTO, S_IFREG, 0o644, "qmailr", TCPTO_SIZE)
    yield Entry(MUTEX, S_IFREG, 0o600, "qmails")
    yield Entry(TRIGGER, S_IFIFO, 0o622, "qmails")


class LayoutError(Exception):
    """Something is in the way of the queue directory."""


def prepare(directory: str, ids: Ids) -> list[str]:
    """Make what is missing in a queue directory and give it to its owners.

    A complete queue, netqmail's or ours, is only looked at. As root it needs no more than
    the capabilities to change owners and ids: each entry is made by the owner of the
    directory it stands in, and given away last. As another user no owners are set.

    Args:
        directory: the queue; its parent must exist and be writable for the caller.
        ids: the owners.

    Returns:
        What was made or given to another owner.

    Raises:
        LayoutError: an entry is of the wrong type.
        OSError: an entry cannot be made, looked at, or given away.
    """
    done: list[str] = []
    old_umask = os.umask(0)
    # Of every directory so far. What stands in one of another user's may be a trap: a
    # symbolic link, or a directory that is exchanged while we look, would have us give
    # somebody else's file away.
    opened: dict[str, int] = {}
    try:
        for entry in entries():
            parent = None if entry.path == "." else os.path.dirname(entry.path) or "."
            maker = 0 if parent is None else _owner_of(parent, ids)
            name = directory if parent is None else os.path.basename(entry.path)
            within = None if parent is None else opened[parent]
            with _acting_as(maker, ids.group if maker else 0):
                made = _make(name, entry, within)
                descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
            opened[entry.path] = descriptor
            _require_kind(descriptor, entry, directory)
            if _give(descriptor, getattr(ids, entry.owner), ids.group) or made:
                done.append(entry.path)
    except OSError as error:
        error.filename = _path(directory, entry)
        raise
    finally:
        os.umask(old_umask)
        for descriptor in opened.values():
            os.close(descriptor)
    return done


def _owner_of(path: str, ids: Ids) -> int:
    owner: int = next(getattr(ids, e.owner) for e in entries() if e.path == path)
    return owner


@contextmanager
def _acting_as(uid: int, gid: int) -> Iterator[None]:
    """Run the body as uid and gid where this process is root, else as it is."""
    if os.geteuid() or not uid:
        yield
        return
    old_gid = os.getegid()
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(old_gid)


def _make(name: str, entry: Entry, within: int | None) -> bool:
    """Make an entry in the directory within unless something has its name; say if it was made."""
    try:
        os.lstat(name) if within is None else os.stat(name, dir_fd=within, follow_symlinks=False)
    except FileNotFoundError:
        pass
    else:
        return False
    if entry.kind == S_IFDIR:
        os.mkdir(name, entry.mode, dir_fd=within)
    elif entry.kind == S_IFIFO:
        os.mkfifo(name, entry.mode, dir_fd=within)
    else:
        new = name + ".new"  # whole or not at all
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(new, flags, entry.mode, dir_fd=within)
        try:
            os.write(descriptor, bytes(entry.size))
        finally:
            os.close(descriptor)
        os.rename(new, name, src_dir_fd=within, dst_dir_fd=within)
    return True


def _require_kind(descriptor: int, entry: Entry, directory: str) -> None:
    status = os.fstat(descriptor)
    # A second link would be another name of a file that is somebody else's.
    if S_IFMT(status.st_mode) != entry.kind or (entry.kind != S_IFDIR and status.st_nlink > 1):
        raise LayoutError(f"{_path(directory, entry)} is in the way")


def _path(directory: str, entry: Entry) -> str:
    return os.path.normpath(os.path.join(directory, entry.path))


def _give(descriptor: int, uid: int, gid: int) -> bool:
    """Give a file to its owner, as root; say whether it was another's."""
    if os.geteuid():
        return False
    status = os.fstat(descriptor)
    if (status.st_uid, status.st_gid) == (uid, gid):
        return False
    # By descriptor: root may not search the directories of others without DAC_OVERRIDE.
    os.chown(f"/proc/self/fd/{descriptor}", uid, gid)
    return True
