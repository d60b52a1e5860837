"""Append a message to an mbox file (mbox(5)), under a lock."""

import fcntl
import os
import re
import signal
from collections.abc import Iterable, Iterator
from types import FrameType

from pyqmail import maildir
from pyqmail.local.failure import Failure, because, temporary

LOCK_DEADLINE = 30  # seconds
SLOW_LOCK = "File has been locked for 30 seconds straight. (#4.3.0)"
LINE_LIMIT = 65536  # bytes of an unfinished line that are held back

_FROM = re.compile(rb"^(?=>*From )", re.MULTILINE)


def quoted(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a message with ``>`` before each line that starts with From_, quoted or not.

    A missing final newline is added. Chunks may be cut anywhere.
    """
    held = b""  # the beginning of a line
    inside = False  # the beginning of the current line has been passed on already
    for chunk in chunks:
        data = held + chunk
        if inside:
            end = data.find(b"\n") + 1
            yield data[:end] if end else data
            if not end:
                continue
            data = data[end:]
            inside = False
        end = data.rfind(b"\n") + 1
        if end:
            yield _FROM.sub(b">", data[:end])
        held = data[end:]
        if len(held) >= LINE_LIMIT:
            yield _FROM.sub(b">", held)
            held = b""
            inside = True
    if held or inside:
        yield _FROM.sub(b">", held) + b"\n"


def deliver(path: bytes, heading: bytes, source: int) -> None:
    """Append a message to the file at path, which is made if it does not exist.

    Args:
        path: the mbox.
        heading: the From_ line and the lines to put in front of the message.
        source: seekable descriptor of the message; read from its start.

    Raises:
        Failure: (temporary) the file is as long as it was before, if it could be locked.
    """
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(path, flags, 0o600)
    except OSError as error:
        raise temporary(because(b"Unable to open ", path, error, "(#4.2.1)")) from error
    try:
        locked = _lock(fd)
        before = os.fstat(fd).st_size
        try:
            maildir.write_all(fd, _separator(path, before) + heading)
            for block in quoted(maildir.chunks(source)):
                maildir.write_all(fd, block)
            maildir.write_all(fd, b"\n")
            os.fsync(fd)
            if not before:
                _sync_name(path)
        except (OSError, maildir.ReadError) as error:
            if locked:
                _truncate(fd, before)
            raise _failed(path, error) from error
    finally:
        os.close(fd)


def _separator(path: bytes, size: int) -> bytes:
    """Return what the file lacks so that a From_ line may follow: mostly nothing.

    A delivery that was killed leaves the beginning of a message. Without an empty line
    after it the next message would be taken for the rest of it.
    """
    if not size:
        return b""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""  # a file that can only be written
    try:
        end = os.pread(fd, 2, max(0, size - 2))
    finally:
        os.close(fd)
    return b"" if end == b"\n\n" else b"\n" if end.endswith(b"\n") else b"\n\n"


def _sync_name(path: bytes) -> None:
    """Wait until the name of a new file is on disk, in a directory that may be read."""
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        directory = os.open(os.path.dirname(path) or b".", flags)
    except PermissionError:
        return
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _lock(fd: int) -> bool:
    """Lock the file; return False where it cannot be locked at all: mail goes on then."""
    signal.signal(signal.SIGALRM, _too_slow)
    signal.alarm(LOCK_DEADLINE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError:
        return False
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return True


def _too_slow(_number: int, _frame: FrameType | None) -> None:
    raise temporary(SLOW_LOCK)


def _truncate(fd: int, size: int) -> None:
    try:
        os.ftruncate(fd, size)
    except OSError:
        pass  # the failure that led here is what gets reported


def _failed(path: bytes, error: OSError | maildir.ReadError) -> Failure:
    if isinstance(error, maildir.ReadError):
        return temporary(f"Unable to read message: {error}. (#4.3.0)")
    return temporary(because(b"Unable to write ", path, error, "(#4.3.0)"))
