"""Unpack a backup, believing nothing of it.

Everything is made as root's, in directories that nobody else can enter, and given to its
owner last: so there is no link to be led astray by, and no right is needed but to give away.
"""

import hashlib
import json
import os
import tarfile
from typing import IO, Any

from appliance import backup_format, data, store
from appliance.backup_format import FIRST, FORMAT, LAST, FormatError
from appliance.backup_progress import Progress
from appliance.layout import QMAIL, Layout, Owner

HEADERS_LIMIT = 1 << 20  # bytes of what stands before a member; no backup has a hundredth of it
OWN_LIMIT = 65536  # bytes of our own members
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

TRUNCATED = "the backup ends too early: it is truncated, or was not finished"
DAMAGED = "the backup is damaged"
FOREIGN = "not a backup made by postern backup"


class Source:
    """A stream with the digest of what was read, as far as the last mark."""

    def __init__(self, file: IO[bytes]) -> None:
        """Read from file, which may be a pipe."""
        self._file = file
        self._digest = hashlib.sha256()
        self._offset = 0
        self._marked = self._digest

    def read(self, size: int) -> bytes:
        """Return size bytes, fewer at the end of the stream.

        Raises:
            FormatError: so many that no backup asks for them.
        """
        if not 0 <= size <= HEADERS_LIMIT:
            raise FormatError("not a backup: a header of impossible size")
        got = self._file.read(size)
        self._digest.update(got)
        self._offset += len(got)
        return got

    def seek(self, offset: int) -> None:
        """Refuse: whoever wants to go elsewhere has read a member to another end than its own.

        Raises:
            FormatError: always.
        """
        raise FormatError(DAMAGED)

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._offset

    def mark(self) -> None:
        """Remember the digest of what was read until now."""
        self._marked = self._digest.copy()

    @property
    def marked(self) -> str:
        """The digest of everything before the last mark."""
        return self._marked.hexdigest()

    def content(self, size: int) -> bytes:
        """Return a part of a member.

        Raises:
            FormatError: the stream ends before its end.
        """
        got = self.read(size)
        if len(got) < size:
            raise FormatError(TRUNCATED)
        return got

    def rest_is_empty(self) -> bool:
        """Whether nothing but zeros follows; reads to the end."""
        while got := self._file.read(backup_format.BATCH):
            if got.strip(b"\0"):
                return False
        return True


class Unpacked:
    """What is being made on the stage."""

    def __init__(self, stage: Layout) -> None:
        """Begin with an empty stage, whose directory is there."""
        self._stage = stage
        self._directories: dict[str, tarfile.TarInfo] = {}  # in the order of their making
        self._numbers: dict[int, int] = {}  # of messages: in the backup, and here
        self._enveloped: set[int] = set()
        os.mkdir(stage.data, 0o700)
        os.mkdir(stage.queue, 0o700)
        for place in backup_format.queue_places():
            os.mkdir(f"{stage.queue}/{place.path}", 0o700)

    def member(self, member: tarfile.TarInfo, source: Source) -> None:
        """Make one member.

        Raises:
            FormatError: it is none that a backup has.
            OSError: it cannot be made.
        """
        name = backup_format.check_name(member.name)
        if name.startswith("queue/"):
            self._queue_file(member, source)
            return
        piece, _, below = name.partition("/")
        if below and os.path.dirname(name) not in self._directories:
            raise FormatError(f"{name!r}: comes before its directory")
        if piece == "queue" or (not below and not member.isdir()):
            raise FormatError(f"{name!r}: must be a directory of files")
        owner = Owner(member.uid, member.gid)
        if not backup_format.may_own(piece, owner):
            raise FormatError(f"{name!r}: belongs to {owner.uid}:{owner.gid}, nobody here")
        if member.mode & ~backup_format.MODES:
            raise FormatError(f"{name!r}: has mode {member.mode:o}")
        path = f"{self._stage.data}/{name}"
        try:
            self._make(path, name, member, source)
        except FileExistsError:
            raise FormatError(f"{name!r}: is there twice") from None

    def _make(self, path: str, name: str, member: tarfile.TarInfo, source: Source) -> None:
        if member.isdir():
            os.mkdir(path, 0o700)
            self._directories[name] = member
        elif member.type == tarfile.SYMTYPE:
            if not backup_format.is_inside(name, member.linkname):
                raise FormatError(f"{name!r}: a link that leads elsewhere")
            os.symlink(member.linkname, path)
            os.chown(path, member.uid, member.gid, follow_symlinks=False)
        elif member.type == tarfile.REGTYPE:
            descriptor = os.open(path, NEW, 0o600)
            owner = Owner(member.uid, member.gid)
            _fill(descriptor, member, source, member.mode, owner)
        else:
            raise FormatError(f"{name!r}: neither a file, a directory nor a symbolic link")

    def _queue_file(self, member: tarfile.TarInfo, source: Source) -> None:
        """Make a file of the queue; a message gets the number that its file's inode has here.

        netqmail needs that, and new messages get no number twice.
        """
        kind, number = backup_format.queue_file(member.name)
        if member.type != tarfile.REGTYPE:
            raise FormatError(f"{member.name!r}: must be a file")
        mode, owner = backup_format.queue_owner(kind)
        try:
            if kind == "mess":
                if number in self._numbers:
                    raise FileExistsError
                temporary = f"{self._stage.queue}/pid/new"
                descriptor = os.open(temporary, NEW, 0o600)
                here = os.fstat(descriptor).st_ino
                self._numbers[number] = here
                _fill(descriptor, member, source, mode, owner)
                os.rename(temporary, self._queue_path(kind, here))
                return
            if number not in self._numbers:
                raise FormatError(f"{member.name!r}: comes before its message")
            here = self._numbers[number]
            descriptor = os.open(self._queue_path(kind, here), NEW, 0o600)
            _fill(descriptor, member, source, mode, owner)
        except FileExistsError:
            raise FormatError(f"{member.name!r}: is there twice") from None
        if kind in ("todo", "info"):
            self._enveloped.add(number)

    def _queue_path(self, kind: str, number: int) -> str:
        return f"{self._stage.queue}/{backup_format.queue_path(kind, number)}"

    def finish(self) -> None:
        """Check what there is, add what every volume has, and give directories away.

        Raises:
            FormatError: the accounts cannot be read, or a message has no envelope.
            ApplianceError, OSError: something cannot be made.
        """
        if lost := self._numbers.keys() - self._enveloped:
            raise FormatError(f"message {min(lost)} of the queue has no envelope")
        if not os.path.exists(self._stage.store):
            raise FormatError("there are no accounts in it")
        accounts = store.load(self._stage)
        for name, member in reversed(self._directories.items()):
            path = f"{self._stage.data}/{name}"
            os.chmod(path, member.mode)
            os.utime(path, (member.mtime, member.mtime))
            os.chown(path, member.uid, member.gid)
        for place in reversed(backup_format.queue_places()):
            path = f"{self._stage.queue}/{place.path}"
            os.chmod(path, place.mode)
            os.chown(path, *place.owner)
        os.chmod(self._stage.queue, 0o750)
        # Root's until it is in its place: nobody else may move it there.
        os.chown(self._stage.queue, 0, QMAIL)
        data.prepare_volume(self._stage)
        for address, account in accounts.accounts.items():
            # Deleted while the backup was made, perhaps, after the accounts were read.
            data.make_home(self._stage, address, Owner(account.uid, account.gid))


def _fill(
    descriptor: int, member: tarfile.TarInfo, source: Source, mode: int, owner: Owner
) -> None:
    """Write a member's content to a new file, with its holes, and give it away."""
    try:
        segments = _segments(member)
        for offset, left in segments:
            os.lseek(descriptor, offset, os.SEEK_SET)
            while left:
                chunk = source.content(min(left, backup_format.BATCH))
                left -= len(chunk)
                _write_all(descriptor, chunk)
        source.content(len(backup_format.padding(sum(length for _, length in segments))))
        os.ftruncate(descriptor, member.size)
        os.fchmod(descriptor, mode)
        os.utime(descriptor, (member.mtime, member.mtime))
        os.fchown(descriptor, *owner)
    finally:
        os.close(descriptor)


def _segments(member: tarfile.TarInfo) -> list[tuple[int, int]]:
    """Return offset and length of what is in a member, in the order in which it comes."""
    holes: Any = member.sparse
    segments: list[tuple[int, int]] = [(0, member.size)] if holes is None else holes
    for offset, length in segments:
        if min(offset, length) < 0 or offset + length > member.size:
            raise FormatError(f"{member.name!r}: impossible holes")
    return segments


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def unpack(file: IO[bytes], stage: Layout, progress: Progress) -> None:
    """Unpack a whole backup onto the stage.

    Raises:
        FormatError: it is none, or not whole, or something in it is not as it must be.
        ApplianceError, OSError: it cannot be written.
    """
    source = Source(file)
    archive = _opened(source)
    unpacked = Unpacked(stage)
    try:
        _check_first(archive.next(), source)
        while True:
            source.mark()
            member = archive.next()
            archive.members = []  # type: ignore[attr-defined]  # it would keep them all
            if member is None:
                raise FormatError(TRUNCATED)
            if member.name == LAST:
                break
            _check_filter(member, stage)
            progress.name = member.name
            unpacked.member(member, source)
            progress.show(source.tell())
        _check_last(member, source)
    except (tarfile.TarError, RecursionError, ValueError, OverflowError) as error:
        raise FormatError(f"{DAMAGED}: {error}") from error
    unpacked.finish()


def _opened(source: Source) -> tarfile.TarFile:
    try:
        return tarfile.TarFile(
            fileobj=source,  # type: ignore[arg-type]  # read and tell are all that it needs
            mode="r",
            format=tarfile.PAX_FORMAT,
            encoding="utf-8",
            errors="surrogateescape",
        )
    except (tarfile.TarError, RecursionError, ValueError, OverflowError):
        raise FormatError(f"{FOREIGN}; is it compressed or encrypted?") from None


def _check_filter(member: tarfile.TarInfo, stage: Layout) -> None:
    """Refuse what Python's own filter for data refuses: it knows what archives were made for."""
    tarfile.data_filter(member, stage.data)


def _own_content(member: tarfile.TarInfo, source: Source) -> dict[str, Any]:
    if member.type != tarfile.REGTYPE or member.size > OWN_LIMIT:
        raise FormatError(DAMAGED)
    text = source.content(member.size)
    source.content(len(backup_format.padding(member.size)))
    content = json.loads(text)
    if not isinstance(content, dict):
        raise FormatError(DAMAGED)
    return content


def _check_first(member: tarfile.TarInfo | None, source: Source) -> None:
    if member is None or member.name != FIRST:
        raise FormatError(FOREIGN)
    version = _own_content(member, source).get("format")
    if version != FORMAT:
        raise FormatError(f"a backup of format {version!r}; this postern reads format {FORMAT}")


def _check_last(member: tarfile.TarInfo, source: Source) -> None:
    expected = source.marked
    if _own_content(member, source).get("sha256") != expected:
        raise FormatError(f"{DAMAGED}: its checksum is not right")
    if not source.rest_is_empty():
        raise FormatError(f"{DAMAGED}: something follows its end")
