"""The steps by which a restored volume takes its place, and what an interrupted one left.

/data/.restore    what is being unpacked; worth nothing until it is whole
/data/.restored   whole and on the disk: it takes the place of what is on the volume
/data/.replaced   what was there before; to be removed

The rename of the first to the second decides. After it the rest is done by whoever comes
first: the same restore, the next one, or the next start.
"""

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from appliance import durable
from appliance.errors import ApplianceError
from appliance.layout import QMAIL, QMAILQ, QMAILS, Layout

STAGE = ".restore"
WHOLE = ".restored"
REPLACED = ".replaced"
OURS = (STAGE, WHOLE, REPLACED)


class VolumeError(ApplianceError):
    """The volume is not to be restored to now; the text says why."""


def stage(places: Layout) -> Layout:
    """Return the places of the volume that is being unpacked."""
    return Layout(f"{places.data}/{STAGE}")


def holds_something(places: Layout) -> bool:
    """Whether there is anything on the volume but what restores left."""
    return bool(set(os.listdir(places.data)) - {*OURS, "lost+found"})


@contextmanager
def alone(places: Layout) -> Iterator[None]:
    """Keep other restores from this volume, and appliances from starting on it.

    Raises:
        VolumeError: another one is at work.
    """
    descriptor = os.open(places.data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise VolumeError(f"{places.data}: a restore is running") from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def stopped(places: Layout) -> Iterator[None]:
    """Keep qmail-send, in whatever container, from the queue that is replaced.

    Raises:
        VolumeError: it runs.
    """
    mutex = f"{places.queue}/lock/sendmutex"
    descriptor = _open_mutex(mutex) if os.path.isdir(places.queue) else None
    try:
        if descriptor is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise VolumeError(f"{places.data}: the appliance is running: stop it") from None
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _open_mutex(path: str) -> int | None:
    """Open qmail-send's lock as qmails, who alone may."""
    gid = os.getegid()
    os.setegid(QMAIL)
    os.seteuid(QMAILS.uid)
    try:
        return os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    finally:
        os.seteuid(0)
        os.setegid(gid)


def commit(places: Layout) -> None:
    """Make the unpacked volume the one that counts, and put it in place.

    Raises:
        OSError: the disk fails; a later `settle` goes on, if it was made to count.
    """
    sync(places.data)
    os.rename(f"{places.data}/{STAGE}", f"{places.data}/{WHOLE}")
    durable.sync_directory(places.data)
    _put_in_place(places)


def settle(places: Layout) -> str:
    """Finish what an interrupted restore left; return what to say about it, "" for nothing.

    Raises:
        VolumeError: a restore is running.
        OSError: the volume cannot be written.
    """
    if not set(os.listdir(places.data)) & set(OURS):
        return ""
    with alone(places):
        return finish(places)


def finish(places: Layout) -> str:
    """Do what `settle` does, where this process is `alone`."""
    said = ""
    if os.path.lexists(f"{places.data}/{STAGE}"):
        discard(f"{places.data}/{STAGE}")
        said = "a restore was interrupted before its end; nothing was restored"
    if os.path.lexists(f"{places.data}/{WHOLE}"):
        said = "finished a restore that was interrupted at its end"
    _put_in_place(places)
    return said


def _put_in_place(places: Layout) -> None:
    whole, replaced = f"{places.data}/{WHOLE}", f"{places.data}/{REPLACED}"
    source = f"{whole}/data"
    # The last to go is the directory itself: a name that is still in it has not been moved.
    for name in sorted(os.listdir(source)) if os.path.isdir(source) else ():
        target = f"{places.data}/{name}"
        if os.path.lexists(target):
            os.makedirs(replaced, 0o700, exist_ok=True)
            # Without the right to override, only the owner of a directory may move it.
            os.chown(target, 0, 0, follow_symlinks=False)
            discard(f"{replaced}/{name}")
            os.rename(target, f"{replaced}/{name}")
        os.chown(f"{source}/{name}", 0, -1, follow_symlinks=False)
        os.rename(f"{source}/{name}", target)
        if name == "queue":
            os.chown(target, *QMAILQ)  # the next start does it, too
    sync(places.data)
    discard(whole)
    discard(replaced)
    durable.sync_directory(places.data)


def discard(path: str) -> None:
    """Remove what is at path, with all that is below it, whoever owns it.

    Raises:
        OSError: it cannot be removed.
    """
    try:
        waiting = [path] if stat.S_ISDIR(os.lstat(path).st_mode) else []
    except FileNotFoundError:
        return
    if not waiting:
        os.unlink(path)
        return
    while waiting:
        directory = waiting.pop()
        # Taken back first: root may neither enter nor change what is somebody else's.
        os.chown(directory, 0, 0, follow_symlinks=False)
        os.chmod(directory, 0o700)
        with os.scandir(directory) as entries:
            waiting += [e.path for e in entries if e.is_dir(follow_symlinks=False)]
    shutil.rmtree(path)


def sync(directory: str) -> None:
    """Wait until everything on the file system of directory is on the disk.

    Raises:
        OSError: the disk has failed to keep something.
    """
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if library.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), directory)
    finally:
        os.close(descriptor)
