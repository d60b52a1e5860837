"""Maildir (maildir(5)): make one, and deliver into one.

A message is written to tmp under a name that is used once, synced, linked into new, and
the directory synced: once `deliver` returns, the message survives a power cut, and a
reader never sees a part of one.
"""

import errno
import os
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType

from pyqmail import maildirsize

CHUNK = 65536
DEADLINE = 86400  # seconds; readers may remove files in tmp that are older than 36 hours
ATTEMPTS = 3  # at a name in tmp; the second is never needed, unless the clock was set back

SUBDIRECTORIES = (b"tmp", b"new", b"cur")

_SLASH_AND_COLON = ((b"/", rb"\057"), (b":", rb"\072"))  # not allowed in names; maildir(5)

_delivered = 0  # deliveries of this process, for unique names


class MaildirError(Exception):
    """The message was not delivered; nothing of it is left."""


class NoMaildirError(MaildirError):
    """There is no Maildir at that place, or it cannot be entered."""


class DeadlineError(MaildirError):
    """The delivery took longer than a day."""


class ReadError(MaildirError):
    """The message cannot be read."""


class OverQuotaError(MaildirError):
    """The message does not fit into what the Maildir's quota leaves."""


def unique_name(now_ns: int, pid: int, count: int, host: bytes) -> bytes:
    """Return a file name for a new message: ``TIME.MmicrosecondsPpidQcount.HOST``."""
    seconds, rest = divmod(now_ns, 1_000_000_000)
    for character, escape in _SLASH_AND_COLON:
        host = host.replace(character, escape)
    return b"%d.M%06dP%dQ%d.%s" % (seconds, rest // 1000, pid, count, host)


def chunks(descriptor: int) -> Iterator[bytes]:
    """Yield the content of a seekable descriptor from its start, leaving its offset alone.

    Raises:
        ReadError: it cannot be read, or has no start to go back to.
    """
    position = 0
    while True:
        try:
            chunk = os.pread(descriptor, CHUNK, position)
        except OSError as error:
            raise ReadError(error.strerror) from error
        if not chunk:
            return
        position += len(chunk)
        yield chunk


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of data to a blocking descriptor.

    Raises:
        OSError: as write(2).
    """
    written = os.write(descriptor, data)
    if written < len(data):
        rest = memoryview(data)[written:]
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def deliver(directory: bytes, heading: bytes, source: int) -> bytes:
    """Deliver a message and return its file name in new.

    Args:
        directory: the Maildir.
        heading: lines to put in front of the message.
        source: seekable descriptor of the message; read from its start.

    Raises:
        NoMaildirError, DeadlineError, ReadError, OverQuotaError, MaildirError: the
            message was not delivered.
    """
    try:
        maildir = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NoMaildirError(error.strerror) from error
    signal.signal(signal.SIGALRM, _too_late)
    signal.alarm(DEADLINE)
    try:
        return _deliver_into(maildir, heading, source)
    except OSError as error:
        raise MaildirError(error.strerror) from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        os.close(maildir)


def _too_late(_number: int, _frame: FrameType | None) -> None:
    raise DeadlineError("more than a day")


def _deliver_into(maildir: int, heading: bytes, source: int) -> bytes:
    size = len(heading) + os.fstat(source).st_size
    quota = maildirsize.take(maildir, size)
    if quota is maildirsize.Taken.OVER:
        raise OverQuotaError
    name, fd = _create(maildir)
    temporary = b"tmp/" + name
    try:
        try:
            size = _write_message(fd, heading, source)
            os.fsync(fd)
        finally:
            os.close(fd)
        if quota is maildirsize.Taken.FITS:
            name += b",S=%d" % size  # Maildir++: the size can be summed up without a stat
        _publish(maildir, temporary, b"new/" + name)
    except BaseException:
        _remove(maildir, temporary)
        raise
    if quota is maildirsize.Taken.FITS:
        maildirsize.record(maildir, size, 1)
    return name


def _create(maildir: int) -> tuple[bytes, int]:
    global _delivered
    host = os.fsencode(os.uname().nodename)
    for attempt in range(ATTEMPTS):
        _delivered += 1
        name = unique_name(time.time_ns(), os.getpid(), _delivered, host)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            return name, os.open(b"tmp/" + name, flags, 0o600, dir_fd=maildir)
        except FileExistsError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("not reached")


def _write_message(fd: int, heading: bytes, source: int) -> int:
    size = 0
    for chunk in chunks(source):
        block = heading + chunk if heading else chunk
        heading = b""
        write_all(fd, block)
        size += len(block)
    if heading:
        write_all(fd, heading)
        size = len(heading)
    return size


def _publish(maildir: int, temporary: bytes, final: bytes) -> None:
    """Give the synced file its name in new, durably; the name in tmp is gone afterwards."""
    linked = True
    try:
        os.link(temporary, final, src_dir_fd=maildir, dst_dir_fd=maildir)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS):
            raise
        # A file system without links. The name is unique: nothing is overwritten.
        linked = False
        os.rename(temporary, final, src_dir_fd=maildir, dst_dir_fd=maildir)
    new = os.open(b"new", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=maildir)
    try:
        os.fsync(new)
    except OSError:
        os.unlink(final, dir_fd=maildir)
        raise
    finally:
        os.close(new)
    if linked:
        _remove(maildir, temporary)


def _remove(maildir: int, name: bytes) -> None:
    try:
        os.unlink(name, dir_fd=maildir)
    except OSError:
        pass  # a file in tmp that stays is cleaned away by readers after 36 hours


def make(directory: bytes) -> None:
    """Make an empty Maildir, mode 0700; once it returns it survives a power cut.

    Raises:
        OSError: a directory cannot be made; ``filename`` says which.
    """
    os.mkdir(directory, 0o700)
    for name in SUBDIRECTORIES:
        os.mkdir(directory + b"/" + name, 0o700)
    for name in (directory, os.path.dirname(directory.rstrip(b"/")) or b"."):
        try:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError:
            continue  # a parent that may be written and not be read
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def maildirmake(argv: list[str], env: dict[str, str]) -> int:
    """``maildirmake [-q QUOTA] NAME`` (maildirmake(1)).

    With -q, also for an existing Maildir: set its Maildir++ quota, as ``10000000S,1000C``
    (bytes, messages).

    Returns:
        0; 100 wrong usage; 111 the Maildir cannot be made.
    """
    arguments = argv[1:]
    quota = None
    if arguments[:1] == ["-q"] and len(arguments) > 1:
        quota = maildirsize.parse_quota(os.fsencode(arguments[1]))
        arguments = arguments[2:] if quota is not None else []
    if not arguments:
        return _complain(100, "maildirmake: usage: maildirmake [ -q quota ] name")
    os.umask(0o077)
    name = os.fsencode(arguments[0])
    try:
        make(name)
    except FileExistsError as error:
        if quota is None or error.filename != name:
            return _complain(111, f"maildirmake: fatal: {_unable_to_mkdir(error)}")
    except OSError as error:
        return _complain(111, f"maildirmake: fatal: {_unable_to_mkdir(error)}")
    if quota is not None:
        try:
            maildirsize.set_quota(name, quota)
        except OSError as error:
            text = f"unable to write {arguments[0]}/maildirsize: {error.strerror}"
            return _complain(111, f"maildirmake: fatal: {text}")
    return 0


def _unable_to_mkdir(error: OSError) -> str:
    return f"unable to mkdir {os.fsdecode(error.filename or b'')}: {error.strerror}"


def _complain(status: int, text: str) -> int:
    sys.stderr.write(text + "\n")
    return status
