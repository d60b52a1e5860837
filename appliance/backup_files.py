"""Directories and Maildirs, as members of a backup.

Runs as whoever owns them, so it reads nothing that the owner could not read.
"""

import errno
import fcntl
import os
import stat
import sys
import tarfile
import time
from collections.abc import Callable

from appliance import backup_format
from appliance.layout import ROOT, Owner

ROUNDS = 10  # through a directory whose files are renamed meanwhile
LOCK_PATIENCE = 2.0  # seconds in one home, for whoever appends to a mailbox file
LOCK_INTERVAL = 0.01
HOLES_FROM = 256 << 20  # bytes; no message is as large
MOST_SEGMENTS = 10_000  # of a file with holes
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Members:
    """Writes members, and says on standard error what cannot be one."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        """Begin; write takes all that it is given."""
        self._write = write
        self.is_complete = True  # nothing that should be here could not be read

    def directory(self, name: str, found: os.stat_result) -> None:
        """Add a directory."""
        self._head(name, tarfile.DIRTYPE, found)

    def link(self, name: str, found: os.stat_result, target: str) -> None:
        """Add a symbolic link."""
        self._head(name, tarfile.SYMTYPE, found, target=target)

    def content(self, name: str, found: os.stat_result, content: bytes) -> None:
        """Add a file that has been read."""
        self._head(name, tarfile.REGTYPE, found, len(content))
        self._write(content + backup_format.padding(len(content)))

    def file(self, name: str, found: os.stat_result, descriptor: int) -> None:
        """Add an open file, as long as it was when it was looked at.

        Raises:
            OSError: it cannot be read; the backup cannot go on.
        """
        segments = data_of(descriptor, found)
        size = sum(length for _, length in segments)
        if len(segments) > MOST_SEGMENTS:
            self.note(name, "left out: too many holes")
            return
        if size == found.st_size:
            self._head(name, tarfile.REGTYPE, found, size)
        else:
            where = backup_format.sparse_map([*segments, (found.st_size, 0)])
            whole = len(where) + size
            self._head(name, tarfile.REGTYPE, found, whole, real_size=found.st_size)
            self._write(where)
        for offset, length in segments:
            self._segment(name, descriptor, offset, length)
        self._write(backup_format.padding(size))

    def _segment(self, name: str, descriptor: int, offset: int, left: int) -> None:
        while left:
            chunk = os.pread(descriptor, min(left, backup_format.BATCH), offset)
            if not chunk:
                self.note(name, "became shorter while it was read")
                chunk = bytes(min(left, backup_format.BATCH))
            left -= len(chunk)
            offset += len(chunk)
            self._write(chunk)

    def note(self, name: str, why: str, *, is_loss: bool = True) -> None:
        """Say that something is left out, or not as it was."""
        self.is_complete = self.is_complete and not is_loss
        shown = ascii(name)[1:-1]
        sys.stderr.write(f"postern: {shown}: {why}\n")

    def _head(
        self,
        name: str,
        kind: bytes,
        found: os.stat_result,
        size: int = 0,
        target: str = "",
        real_size: int | None = None,
    ) -> None:
        owner = Owner(found.st_uid, found.st_gid)
        if not backup_format.may_own(name.partition("/")[0], owner):
            # A stranger's file in a home is the account's, a stranger's home is nobody's.
            reader = Owner(os.geteuid(), os.getegid())
            owner = reader if backup_format.may_own(name.partition("/")[0], reader) else ROOT
        self._write(
            backup_format.header(
                name, kind, found.st_mode, owner, found.st_mtime, size, target, real_size
            )
        )


class Tree:
    """Copies a directory with all that is below it."""

    def __init__(self, members: Members, leave_out: Callable[[str], bool]) -> None:
        """Begin.

        Args:
            members: where to.
            leave_out: whether to pass by what has this name (a member's name).
        """
        self._members = members
        self._leave_out = leave_out
        self._waiting: list[tuple[str, str]] = []
        self._patience = LOCK_PATIENCE

    def copy(self, path: str, name: str) -> list[tuple[str, str, Owner]]:
        """Copy the directory at path as the member name, parents before children.

        Returns:
            What root may not enter: path, name and owner of somebody else's directories.
        """
        foreign = []
        self._waiting = [(path, name)]
        while self._waiting:
            path, name = self._waiting.pop()
            try:
                found = os.lstat(path)
                if os.geteuid() == 0 != found.st_uid:
                    foreign.append((path, name, Owner(found.st_uid, found.st_gid)))
                    continue
                names = sorted(os.listdir(path))
            except FileNotFoundError:
                continue  # removed meanwhile
            except OSError as error:
                self._members.note(name, f"left out: {error.strerror}")
                continue
            self._members.directory(name, found)
            if {"tmp", "new", "cur"} <= set(names):
                names = [entry for entry in names if entry not in ("tmp", "new", "cur")]
                self._maildir(path, name)
            for entry in names:
                self._entry(f"{path}/{entry}", f"{name}/{entry}")
        return foreign

    def _maildir(self, path: str, name: str) -> None:
        """Copy the messages; what is in tmp/ is not delivered yet.

        A message may be renamed, into cur/ or within it, between being seen and being
        read. So both are looked at again until nothing is new; a message keeps its inode
        and the part of its name before the colon.
        """
        for part in ("tmp", "new", "cur"):
            try:
                self._members.directory(f"{name}/{part}", os.lstat(f"{path}/{part}"))
            except FileNotFoundError:
                return  # the Maildir is being removed
        seen: set[tuple[str, int]] = set()
        for turn in range(ROUNDS):
            was_new = turn == 0
            for part in ("new", "cur"):
                for entry, inode in _listing(f"{path}/{part}"):
                    message = (entry.partition(":")[0], inode)
                    if message in seen:
                        continue
                    was_new = True
                    if self._entry(f"{path}/{part}/{entry}", f"{name}/{part}/{entry}"):
                        seen.add(message)
            if not was_new:
                return

    def _entry(self, path: str, name: str) -> bool:
        """Copy a file or a link, put a directory on the list; False when it has vanished."""
        if self._leave_out(name):
            return True
        try:
            found = os.lstat(path)
            kind = backup_format.kind_of(found.st_mode)
            if backup_format.is_too_long(name):
                self._members.note(name[:60] + "...", "left out: its name is too long")
            elif kind == tarfile.DIRTYPE:
                self._waiting.append((path, name))
            elif kind == tarfile.SYMTYPE:
                self._link(path, name, found)
            elif kind == tarfile.REGTYPE:
                self._file(path, name)
            else:
                self._members.note(name, "left out: no file", is_loss=False)
        except FileNotFoundError:
            return False
        return True

    def _link(self, path: str, name: str, found: os.stat_result) -> None:
        target = os.readlink(path)
        if backup_format.is_inside(name, target):
            self._members.link(name, found, target)
        else:
            self._members.note(name, "left out: a link that leads elsewhere")

    def _file(self, path: str, name: str) -> None:
        try:
            descriptor = os.open(path, READ)
        except FileNotFoundError:
            raise
        except OSError as error:
            self._members.note(name, f"left out: {error.strerror}")
            return
        try:
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode):
                if "/new/" not in name and "/cur/" not in name:
                    found = self._settled(descriptor)
                self._members.file(name, found, descriptor)
        finally:
            os.close(descriptor)

    def _settled(self, descriptor: int) -> os.stat_result:
        """Look at a file at a moment when nobody is appending to it (mbox(5): flock)."""
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if self._patience <= 0:
                    return os.fstat(descriptor)
                self._patience -= LOCK_INTERVAL
                time.sleep(LOCK_INTERVAL)
                continue
            found = os.fstat(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            return found


def data_of(descriptor: int, found: os.stat_result) -> list[tuple[int, int]]:
    """Return offset and length of what is in a file; nothing of its holes.

    It costs nothing to make a file with a hole that would take years to write. Of all smaller
    ones every byte is read: some file systems have been wrong about holes in new files.
    """
    if found.st_size < HOLES_FROM or found.st_blocks * 512 >= found.st_size:
        return [(0, found.st_size)] if found.st_size else []
    segments: list[tuple[int, int]] = []
    end = 0
    while end < found.st_size and len(segments) <= MOST_SEGMENTS:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break  # nothing but a hole
            raise
        end = min(os.lseek(descriptor, start, os.SEEK_HOLE), found.st_size)
        if start < end:
            segments.append((start, end - start))
    return segments


def _listing(path: str) -> list[tuple[str, int]]:
    """Return names and inodes; nothing of a directory that is gone."""
    try:
        with os.scandir(path) as entries:
            return sorted((entry.name, entry.inode()) for entry in entries)
    except FileNotFoundError:
        return []
