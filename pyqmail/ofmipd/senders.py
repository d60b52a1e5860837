"""Who may send as whom, and under which name.

Two databases, both cdb(5): the names that ofmipname writes (address -> name, NUL,
address), and the map of senders (address in lower case -> logins, each NUL-separated).
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

from pyqmail.smtp.address import ADDRESS_LIMIT, has_control
from pyqmail.smtp.reply import reply
from ucspi import cdb, control

CANNOT_READ = reply(451, b"unable to read cdb (#4.3.0)")
NOT_YOURS = reply(553, b"sorry, that sender does not belong to you (#5.7.1)")
WRITABLE = 0o022  # by group or others


class Identity(NamedTuple):
    """What a name database makes of a sender."""

    name: bytes
    address: bytes
    own_rule: bool  # from the user's database, not the administrator's


def look_up(path: str, key: bytes) -> bytes | None:
    """Return the data of key in the database at path; None without key or database.

    Raises:
        ControlError: it exists and cannot be read.
    """
    try:
        with cdb.Reader(path) as database:
            return database.get(key)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, cdb.FormatError) as error:
        raise control.ControlError(f"unable to read {path}: {error}") from error


def is_there(path: str) -> bool:
    """Say whether a user has a database of their own; see that it is the user's.

    Raises:
        ControlError: somebody else may have written it.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise control.ControlError(f"unable to read {path}: {error.strerror}") from error
    if status.st_uid != os.geteuid() or status.st_mode & WRITABLE:
        raise control.ControlError(f"{path}: not the user's, or writable by others")
    return True


class Names:
    """The user's own name database, and the one on ofmipd's command line.

    Args:
        own: path of the user's, None for a user without a home.
        given: path on the command line, None without one.
    """

    def __init__(self, own: str | None, given: str | None) -> None:
        self._own = own
        self._given = given

    def identity(self, sender: bytes) -> Identity | None:
        """Return what sender is to be replaced by. The user's own word comes first.

        Raises:
            ControlError: a database cannot be read, or an entry is not in the format.
        """
        for path, own_rule in ((self._own, True), (self._given, False)):
            if not path or (own_rule and not is_there(path)):
                continue
            data = look_up(path, sender)
            if data is not None:
                name, separator, address = data.partition(b"\0")
                if not separator:
                    raise control.ControlError(f"{path}: entry without an address")
                if len(address) >= ADDRESS_LIMIT or has_control(address):
                    # With a line end in it, it could bring header fields of its own.
                    raise control.ControlError(f"{path}: entry with no possible address")
                return Identity(name, address, own_rule)
        return None


class Ownership:
    """Which addresses a login may send as.

    Args:
        login: the authenticated user's address; empty when there is none, who owns nothing,
            and neither does one that is no address (a foreign checkpassword may let it in).
        path: the map of senders; None leaves every address to everybody, as the original
            ofmipd does.
    """

    def __init__(self, login: bytes, path: str | None) -> None:
        self.login = b"" if has_control(login) else login.lower()
        self._path = path

    @property
    def required(self) -> bool:
        """True when addresses are checked at all."""
        return self._path is not None

    def holds(self, address: bytes) -> bool:
        """Say whether address is the login's: its own, its own with an extension, or mapped.

        Raises:
            ControlError: the map cannot be read.
        """
        if self._path is None:
            return True
        if not self.login or len(address) >= ADDRESS_LIMIT:
            return False
        address = address.lower()
        if address == self.login:
            return True
        # The longest known address that this one extends owns it, as in delivery: with
        # accounts alice and alice-smith, alice must not send as alice-smith-x.
        for owner in owners(address):
            logins = look_up(self._path, owner)
            if logins is not None:
                mapped = owner == address and self.login in logins.lower().split(b"\0")
                return mapped or owner == self.login
        return is_extension(address, self.login)


def owners(address: bytes) -> Iterator[bytes]:
    """Yield address, then what it may be an extension of, the longest first."""
    box, at, host = address.rpartition(b"@")
    while True:
        yield box + at + host
        box, dash, _ = box.rpartition(b"-")
        if not dash:
            return


def is_extension(address: bytes, login: bytes) -> bool:
    """Say whether address is ``user-anything@host`` for the login ``user@host``."""
    box, _, host = address.rpartition(b"@")
    user, at, login_host = login.rpartition(b"@")
    return bool(at) and host == login_host and box.startswith(user + b"-")
