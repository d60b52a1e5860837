"""Lay out the volume and the runtime directories, with the owners they need.

Root here has neither CAP_DAC_OVERRIDE nor CAP_FOWNER: it may give files away, but once
given away it may not change or enter them. So everything is made first and given away
last, and whatever is found later is taken back by owner before its mode is changed.
"""

import os
import stat
from typing import NamedTuple

from appliance.errors import ApplianceError
from appliance.layout import (
    ALIAS,
    CHECKPW,
    DKIM,
    METRICS,
    QMAILL,
    QMAILQ,
    QMAILR,
    ROOT,
    Layout,
    Owner,
)


class DataError(ApplianceError):
    """A directory cannot be made or used; the text says which and why."""


class Directory(NamedTuple):
    """A directory as it must be."""

    path: str
    mode: int
    owner: Owner


def volume(places: Layout) -> list[Directory]:
    """Return the directories of the data volume, parents first; the queue has its own tool."""
    return [
        Directory(places.accounts, 0o750, Owner(0, CHECKPW.gid)),
        Directory(places.tls, 0o700, ROOT),
        Directory(places.srs, 0o700, ROOT),
        Directory(places.dkim, 0o750, Owner(0, DKIM.gid)),
        Directory(places.users, 0o755, ROOT),
        # Root's, so that nobody who is made to run as alias can change whom mail goes to.
        Directory(places.alias, 0o755, ROOT),
        # An account can enter its own home and cannot see whose others there are.
        Directory(places.homes, 0o711, ROOT),
        # For everybody to write; nobody sees what others have there.
        Directory(places.spool, 0o1733, ROOT),
        Directory(places.cache, 0o755, ROOT),
        Directory(places.sts_policies, 0o700, QMAILR),
    ]


def runtime(places: Layout) -> list[Directory]:
    """Return the directories that last as long as the container."""
    return [
        Directory(places.runtime, 0o755, ROOT),
        Directory(places.queue_runtime, 0o755, QMAILQ),
        Directory(places.metrics, 0o750, Owner(QMAILL.uid, METRICS.gid)),
    ]


def ensure(directory: Directory) -> None:
    """Make a directory, or give the one that is there its owner and mode.

    Raises:
        DataError: it cannot be made, or something else is in its place.
    """
    path, mode, owner = directory
    try:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode):
            raise DataError(f"{path}: not a directory")
        if stat.S_IMODE(found.st_mode) != mode:
            _give(path, found, ROOT)
            os.chmod(path, mode)
            found = os.lstat(path)
        _give(path, found, owner)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def _give(path: str, found: os.stat_result, owner: Owner) -> None:
    if (found.st_uid, found.st_gid) != owner:
        os.chown(path, *owner, follow_symlinks=False)


def make_maildir(path: str, owner: Owner) -> None:
    """Make a Maildir for owner, unless there is one; the parent belongs to root.

    Raises:
        DataError: it cannot be made.
    """
    try:
        if os.path.lexists(path) and os.lstat(path).st_uid == owner.uid:
            return  # given away last, so it is complete
        os.makedirs(path, 0o700, exist_ok=True)
        for part in ("tmp", "new", "cur"):
            ensure(Directory(f"{path}/{part}", 0o700, owner))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    ensure(Directory(path, 0o700, owner))


def make_home(places: Layout, address: str, owner: Owner) -> None:
    """Make the home of a new account with an empty Maildir.

    A home of root's is one whose making was interrupted; it is finished.

    Raises:
        DataError: it cannot be made, or there is one that belongs to another uid.
    """
    home = places.home(address)
    ensure(Directory(os.path.dirname(home), 0o711, ROOT))
    try:
        os.mkdir(home, 0o700)
    except FileExistsError:
        found = os.lstat(home).st_uid
        if found == owner.uid:
            return
        if found != 0:
            raise DataError(f"{home}: belongs to uid {found}, not {owner.uid}") from None
    except OSError as error:
        raise DataError(f"{home}: {error.strerror}") from error
    make_maildir(home + "/Maildir", owner)
    ensure(Directory(home, 0o700, owner))


def prepare_volume(places: Layout) -> None:
    """Make every directory of the volume but the queue's.

    Raises:
        DataError: one of them cannot be made; the text names it.
    """
    for directory in volume(places):
        ensure(directory)
    make_maildir(places.alias + "/Maildir", ALIAS)


def prepare_runtime(places: Layout) -> None:
    """Make the directories for sockets and services.

    Raises:
        DataError: one of them cannot be made; the text names it.
    """
    for directory in runtime(places):
        ensure(directory)
