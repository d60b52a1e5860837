"""``postern backup``: everything that must not be lost, as a tar stream on standard output.

The services may run. The queue comes first and the homes last: a message that leaves the
one for the other meanwhile is in both, and never in neither. Each part is read by a child
process that has become its owner, as root may not enter what is somebody else's.
"""

import argparse
import hashlib
import io
import json
import os
import signal
import stat
import sys
import tarfile
import time
from collections.abc import Callable, Iterable

from appliance import backup_format, backup_queue, store, version
from appliance.backup_files import Members, Tree
from appliance.backup_format import FIRST, FORMAT, LAST, PIECES, SMALL
from appliance.backup_progress import Progress
from appliance.errors import ApplianceError, complain
from appliance.layout import QMAILS, ROOT, Layout, Owner

EXIT_INCOMPLETE = 1
EXIT_USAGE = 100
EXIT_TEMPORARY = 111
# What a child may end with; anything else, and the backup cannot go on.
EXIT_LOSS = 3

DESCRIPTION = """\
Write a backup of the data volume to standard output, as a tar stream: accounts, keys, homes
with their mail, and the queue. The services may run. It holds private keys and password
hashes: whoever can read it can read everything.
"""
EXITS = """\
exit status: 0 done; 1 done, but something could not be read, and standard error says what;
100 wrong usage, or standard output is a terminal; 111 not done, and what was written is
no backup.
"""


class BackupError(ApplianceError):
    """The backup cannot go on."""


class Output:
    """Standard output, with the digest of what went there."""

    def __init__(self, descriptor: int) -> None:
        """Write to descriptor, which may be a pipe."""
        self._descriptor = descriptor
        self._digest = hashlib.sha256()
        self.size = 0
        self.progress = Progress()

    @property
    def digest(self) -> str:
        """Return the digest of all that was written."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Write all of data.

        Raises:
            OSError: nobody reads, or the disk is full.
        """
        self._digest.update(data)
        self.size += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self.progress.show(self.size)


def main(argv: list[str], env: dict[str, str], places: Layout | None = None) -> int:
    """Run ``postern backup``.

    Returns:
        0; 1 when something could not be read and is not in the backup; 100 for wrong usage;
        111 when it could not be done.
    """
    parser = argparse.ArgumentParser(
        prog="postern backup",
        description=DESCRIPTION,
        epilog=EXITS,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    try:
        parser.parse_args(argv[1:])
    except SystemExit as leaving:
        return EXIT_USAGE if leaving.code else 0
    if os.isatty(1):
        sys.stderr.write("postern: not to a terminal: exec -T mail postern backup > FILE\n")
        return EXIT_USAGE
    # A new file in the container would be for everybody to read, and this one is not.
    if stat.S_ISREG(os.fstat(1).st_mode):
        os.fchmod(1, 0o600)
    signal.signal(signal.SIGTERM, _interrupt)
    output = Output(1)
    try:
        is_complete = write(places or Layout(), output)
    except (ApplianceError, OSError) as error:
        output.progress.end()
        complain(error)
        return EXIT_TEMPORARY
    output.progress.end()
    return 0 if is_complete else EXIT_INCOMPLETE


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def write(places: Layout, output: Output) -> bool:
    """Write a backup of the volume; return whether everything could be read.

    Raises:
        ApplianceError, OSError: it cannot be done. What was written has no last member.
    """
    if os.geteuid():
        raise BackupError("must be run as root, in the container")
    if not os.path.exists(places.store):
        raise BackupError(f"{places.store}: there is none: nothing to back up")
    about = {"format": FORMAT, "version": version.installed(), "time": int(time.time())}
    output.write(_own_member(FIRST, about))
    known = {*PIECES, *backup_format.DERIVED}
    is_complete = True
    for name in sorted(os.listdir(places.data)):
        if name not in known and not name.startswith("."):
            sys.stderr.write(f"postern: {ascii(name)[1:-1]}: left out: not postern's\n")
    if os.path.isdir(places.queue):
        output.progress.name = "queue"
        is_complete &= _as(QMAILS, output, lambda members: _queue(places, members))
    small, foreign = _small_pieces(places)
    is_complete &= small.is_complete
    output.write(small.buffer.getvalue())
    # No two accounts have one uid; what is found in a home is read by its owner.
    members = Members(output.write)
    foreign += Tree(members, _is_temporary).copy(places.homes, "home")
    is_complete &= members.is_complete
    for path, name, owner in sorted(foreign):
        output.progress.name = name
        is_complete &= _as(owner, output, _tree(path, name))
    output.write(_own_member(LAST, {"format": FORMAT, "sha256": output.digest}))
    output.write(bytes(2 * backup_format.BLOCK))
    output.write(bytes(-output.size % backup_format.RECORD))
    return is_complete


def _own_member(name: str, content: dict[str, object]) -> bytes:
    text = json.dumps(content).encode() + b"\n"
    head = backup_format.header(name, tarfile.REGTYPE, 0o600, ROOT, time.time(), len(text))
    return head + text + backup_format.padding(len(text))


class _Kept(Members):
    """Members that are kept in memory."""

    def __init__(self) -> None:
        self.buffer = io.BytesIO()
        super().__init__(self.buffer.write)


def _small_pieces(places: Layout) -> tuple[_Kept, list[tuple[str, str, Owner]]]:
    """Copy what changes only under the store's lock, and give the lock back soon."""
    kept = _Kept()
    foreign: list[tuple[str, str, Owner]] = []
    with store.locked(places):
        for piece in SMALL:
            path = f"{places.data}/{piece}"
            if os.path.isdir(path):
                foreign += Tree(kept, _is_temporary).copy(path, piece)
    return kept, foreign


def _is_temporary(name: str) -> bool:
    """Whether a member would be a lock, or a file that durable.replace is writing."""
    base = name.rpartition("/")[2]
    is_half_written = base.startswith(".") and base.endswith(".tmp")
    return name == "accounts/lock" or (is_half_written and not name.startswith("home/"))


def _tree(path: str, name: str) -> Callable[[Members], None]:
    def copy(members: Members) -> None:
        Tree(members, lambda name: False).copy(path, name)

    return copy


def _queue(places: Layout, members: Members) -> None:
    os.chdir(places.queue)
    backup_queue.copy(members)


def _as(owner: Owner, output: Output, copy: Callable[[Members], None]) -> bool:
    """Have a child process become owner and copy; return whether it could read everything.

    Raises:
        BackupError: it failed, perhaps in the middle of a member.
        OSError: what it writes cannot be written on.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        _become_and_copy(owner, writing, copy)
    os.close(writing)
    try:
        for data in _chunks(reading):
            output.write(data)
    finally:
        os.close(reading)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status not in (0, EXIT_LOSS):
        raise BackupError(f"what belongs to uid {owner.uid} could not be read")
    return status == 0


def _chunks(descriptor: int) -> Iterable[bytes]:
    while data := os.read(descriptor, backup_format.BATCH):
        yield data


def _become_and_copy(owner: Owner, writing: int, copy: Callable[[Members], None]) -> None:
    """Run copy as owner, its members going to the descriptor; does not return."""
    code = EXIT_TEMPORARY
    try:
        os.setgroups([owner.gid])
        os.setresgid(owner.gid, owner.gid, owner.gid)
        os.setresuid(owner.uid, owner.uid, owner.uid)
        with open(writing, "wb", buffering=backup_format.BATCH) as file:
            members = Members(file.write)
            copy(members)
        code = 0 if members.is_complete else EXIT_LOSS
    except BaseException as error:
        if not isinstance(error, BrokenPipeError | KeyboardInterrupt):
            sys.stderr.write(f"postern: {error}\n")
    finally:
        os._exit(code)
