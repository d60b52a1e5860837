"""Find and open the .qmail file that controls an address; check home and file.

Runs as the user, in the user's home directory.
"""

import errno
import os
import stat
from typing import NamedTuple

from pyqmail.local import dotqmail
from pyqmail.local.failure import Failure, because, permanent, temporary

WRITABLE = 0o022  # by group or others: somebody else may say where this user's mail goes

SIZE_LIMIT = 1 << 20  # bytes; strangers have the file read, and it is read whole

NO_MAILBOX = "Sorry, no mailbox here by that name. (#5.1.1)"
HOME_WRITABLE = "Uh-oh: home directory is writable. (#4.7.0)"
FILE_WRITABLE = "Uh-oh: .qmail file is writable. (#4.7.0)"
FILE_TOO_LARGE = "Uh-oh: .qmail file is larger than 1 MiB. (#4.3.0)"
HOME_STICKY = "Home directory is sticky: user is editing his .qmail file. (#4.2.1)"

# System errors that may be gone at the next attempt; the others mean "no such file".
_TEMPORARY = frozenset(
    (
        *(errno.EINTR, errno.EIO, errno.EAGAIN, errno.ENOMEM, errno.EBUSY, errno.ENFILE),
        *(errno.EMFILE, errno.ETXTBSY, errno.EDEADLK, errno.ENOLCK, errno.ETIMEDOUT),
        *(errno.ECONNREFUSED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH),
        *(errno.ENETDOWN, errno.ESTALE, errno.EDQUOT, errno.EFAULT),
    )
)


class DotFile(NamedTuple):
    """What was found: the file's content and what it means for the delivery."""

    content: bytes
    forward_only: bool
    default: bytes | None


def is_temporary(error: OSError) -> bool:
    """Tell whether the same system call may well succeed later."""
    return error.errno in _TEMPORARY


def check_home(*, editing_allowed: bool = False) -> bool:
    """Check the current directory as a home; return whether it is sticky.

    Args:
        editing_allowed: a sticky home only makes the result True (``qmail-local -n``).

    Raises:
        Failure: (temporary) writable by others, sticky, or not to be looked at.
    """
    try:
        mode = os.stat(b".").st_mode
    except OSError as error:
        raise temporary(
            because(b"Unable to stat home directory", b"", error, "(#4.3.0)")
        ) from error
    if mode & WRITABLE:
        raise temporary(HOME_WRITABLE)
    sticky = bool(mode & stat.S_ISVTX)
    if sticky and not editing_allowed:
        raise temporary(HOME_STICKY)
    return sticky


def find(dash: bytes, ext: bytes) -> DotFile | None:
    """Return the .qmail file for an address, None for the default delivery.

    Raises:
        Failure: permanent when there is no such mailbox; temporary when a file could
            not be read or is writable by others.
    """
    for candidate in dotqmail.candidates(dash, ext):
        found = _open(candidate)
        if found is not None:
            return found
    if dash:
        raise permanent(NO_MAILBOX)
    return None


def exists(name: bytes) -> bool:
    """Tell whether the file exists.

    Raises:
        Failure: (temporary) for now, it cannot be said.
    """
    try:
        os.stat(name)
    except OSError as error:
        if is_temporary(error):
            raise _unable_to_open(name, error) from error
        return False
    return True


def _open(candidate: dotqmail.Candidate) -> DotFile | None:
    name = candidate.name
    try:
        # Non-blocking: a FIFO of that name must not hold the delivery up.
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        # A file that is there but cannot be read is not the same as no file: falling
        # back to .qmail-default would send the mail where it must not go.
        if is_temporary(error) or error.errno in (errno.EPERM, errno.EACCES):
            raise _unable_to_open(name, error) from error
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        if status.st_mode & WRITABLE:
            raise temporary(FILE_WRITABLE)
        content = b""
        while chunk := os.read(fd, 65536):
            content += chunk
            if len(content) > SIZE_LIMIT:
                raise temporary(FILE_TOO_LARGE)
    except OSError as error:
        raise _unable_to_open(name, error) from error
    finally:
        os.close(fd)
    return DotFile(content, bool(status.st_mode & stat.S_IXUSR), candidate.default)


def _unable_to_open(name: bytes, error: OSError) -> Failure:
    return temporary(because(b"Unable to open ", name, error, "(#4.3.0)"))
