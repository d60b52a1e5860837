"""The directory of MTA-STS policies: a file per domain, made and used by deliveries.

qmailr's own. Whoever can write there can keep mail from being sent, or have it sent to a
server that the domain does not vouch for.
"""

import fcntl
import os
import re
import time
import zlib
from collections.abc import Callable

from pyqmail import maildir
from pyqmail.remote import mtasts
from pyqmail.remote.mtasts import Entry, Policy

LOCK = ".lock"  # no domain begins with a dot
_DOMAIN = re.compile(rb"[a-z0-9_][a-z0-9_.-]{0,252}\Z")  # what is safe as a file's name


class FetchError(Exception):
    """The policy could not be had."""


def find(
    directory: str, domain: bytes, live: bytes | None, fetch: Callable[[], bytes]
) -> Policy | None:
    """Return the policy that counts for a domain, fetched if it has to be.

    A policy that was fetched once counts until it is too old, whether or not the DNS
    still tells of it and whether or not it can be fetched again: who can suppress both
    must not be able to switch it off.

    Args:
        directory: where the policies are.
        domain: in lower case.
        live: the id in the DNS now, None if there is none, or no telling.
        fetch: returns the policy's text.

    Raises of fetch:
        FetchError: it cannot be had; that is remembered for a while.
    """
    if not _DOMAIN.match(domain):
        return None
    path = os.path.join(directory, domain.decode("ascii"))
    entry = read(path)
    if not mtasts.is_due(entry, live, int(time.time())):
        return entry.policy(int(time.time()))
    assert live is not None
    try:
        lock = _lock(directory, domain)
    except OSError:
        return _fetched(entry, live, fetch).policy(int(time.time()))
    try:
        entry = read(path)  # another delivery may have been at it
        if mtasts.is_due(entry, live, int(time.time())):
            entry = _fetched(entry, live, fetch)
            write(path, entry)
    finally:
        os.close(lock)
    return entry.policy(int(time.time()))


def _fetched(entry: Entry, live: bytes, fetch: Callable[[], bytes]) -> Entry:
    try:
        body = fetch()
        mtasts.parse_policy(body)
    except (FetchError, mtasts.PolicyError):
        return entry._replace(failed=int(time.time()))
    return Entry(live, int(time.time()), 0, body)


def _lock(directory: str, domain: bytes) -> int:
    """Return a descriptor; while it is open nobody else fetches this domain's policy."""
    lock = os.open(os.path.join(directory, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX, 1, zlib.crc32(domain))
    except BaseException:
        os.close(lock)
        raise
    return lock


def read(path: str) -> Entry:
    """Return what a file remembers; an empty entry if there is no file that can be read."""
    try:
        with open(path, "rb") as file:
            return mtasts.decode(file.read(2 * mtasts.BODY_LIMIT))
    except OSError:
        return Entry()


def write(path: str, entry: Entry) -> None:
    """Write a file whole or not at all; its mtime is when the entry ends to be of use."""
    new = f"{os.path.dirname(path)}/.{os.getpid()}"
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            maildir.write_all(fd, mtasts.encode(entry))
            os.utime(fd, (entry.expires(), entry.expires()))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(new, path)
    except OSError:
        pass  # the next delivery fetches it again


def clean(directory: str) -> None:
    """Remove what is of no use any more; done when qmail-rspawn starts."""
    now = time.time()
    try:
        with os.scandir(directory) as files:
            for file in files:
                if file.name != LOCK and file.stat().st_mtime < now:
                    os.unlink(file.path)
    except OSError:
        pass
