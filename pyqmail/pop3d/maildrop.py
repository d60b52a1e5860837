"""A Maildir as a POP3 session sees it: a list made at its start (maildir(5)).

Other programs may deliver, move and remove messages meanwhile: a message is known by
the unique part of its name, and looked for again when it is not where it was.
"""

import os
import stat
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pyqmail import maildirsize

TMP_SECONDS = 36 * 3600  # what is left in tmp for longer will never be delivered


class MaildropError(Exception):
    """The Maildir cannot be entered or listed."""


class Message(NamedTuple):
    """One message: where it was, its size in bytes, and when it came."""

    directory: str  # new or cur
    name: str
    size: int
    arrived: float

    @property
    def unique(self) -> str:
        """Its name without the flags."""
        return unique(self.name)


def unique(name: str) -> str:
    """Return the part of a Maildir file name that never changes."""
    return name.partition(":")[0]


def seen_name(name: str) -> str:
    """Return the name in cur of a message that has been read."""
    base, _, info = name.partition(":")
    flags = set(info.removeprefix("2,")) if info.startswith("2,") else set()
    return f"{base}:2,{''.join(sorted(flags | {'S'}))}"


class Maildrop:
    """The messages of the Maildir that is the working directory, the oldest first."""

    def __init__(self) -> None:
        """List the messages.

        Raises:
            MaildropError: new or cur cannot be listed.
        """
        found = [message for directory in ("new", "cur") for message in _scan(directory)]
        found.sort(key=lambda message: (message.arrived, message.name))
        self.messages = found

    def open(self, message: Message) -> int:
        """Return a descriptor to read message from.

        Raises:
            OSError: it is gone or cannot be read.
        """
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        try:
            return os.open(f"{message.directory}/{message.name}", flags)
        except FileNotFoundError:
            return os.open(_places()[message.unique], flags)

    def remove(self, messages: Iterable[Message]) -> list[OSError]:
        """Delete messages; return why some of them are still there. Gone ones are no error.

        The quota of the Maildir, if it has one, gets to know what was deleted.
        """
        failures = []
        size = count = 0
        places: dict[str, str] | None = None  # where they may have been moved to
        for message in messages:
            path = f"{message.directory}/{message.name}"
            try:
                try:
                    os.unlink(path)
                except FileNotFoundError:
                    places = _places() if places is None else places
                    path = places[message.unique]
                    os.unlink(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                failures.append(error)
                continue
            counted = maildirsize.counted(os.fsencode(path), message.size)
            if counted is not None:
                size += counted
                count += 1
        if count:
            maildirsize.removed(b".", size, count)
        return failures

    def mark_read(self, message: Message) -> None:
        """Move a new message to cur, with the flag for seen; if that fails it stays new."""
        if message.directory != "new":
            return
        target = "cur/" + seen_name(message.name)
        try:
            if not os.path.lexists(target):
                os.rename("new/" + message.name, target)
        except OSError:
            pass


def enter(directory: str) -> None:
    """Make a Maildir the working directory.

    Raises:
        MaildropError: it does not exist or must not be entered.
    """
    try:
        os.chdir(directory)
    except OSError as error:
        raise MaildropError(f"unable to chdir to {directory}: {error.strerror}") from error


def clean_tmp(now: float | None = None) -> None:
    """Remove what deliveries that died long ago have left in tmp."""
    latest = (time.time() if now is None else now) - TMP_SECONDS
    try:
        with os.scandir("tmp") as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    _remove_old(entry, latest)
    except OSError:
        pass  # the next session tries again


def _remove_old(entry: os.DirEntry[str], latest: float) -> None:
    try:
        status = entry.stat(follow_symlinks=False)
        if max(status.st_mtime, status.st_atime) < latest:
            os.unlink(entry.path)
    except OSError:
        pass  # gone already, or no file: the others must not wait for it


def _scan(directory: str) -> Iterator[Message]:
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield Message(directory, entry.name, status.st_size, status.st_mtime)
    except OSError as error:
        raise MaildropError(f"unable to scan {directory}: {error.strerror}") from error


def _places() -> "_Places":
    """Return where each message is now, by its unique name.

    Raises:
        OSError: a directory cannot be listed; from the look-up: there is no such message.
    """
    found = _Places()
    for directory in ("new", "cur"):
        with os.scandir(directory) as entries:
            found.update((unique(entry.name), entry.path) for entry in entries)
    return found


class _Places(dict[str, str]):
    def __missing__(self, name: str) -> str:
        raise FileNotFoundError(name)
