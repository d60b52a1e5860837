"""Whose mail it is: users/cdb, then the users of the system, then alias."""

from pyqmail.local import exitcodes, getpw
from pyqmail.users import lookup
from pyqmail.users.lookup import Assignment
from ucspi import cdb


class LookupFailure(Exception):
    """Whose mail it is cannot be said now; ``status`` is the exit status that says why."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(status)


def find(local: bytes) -> Assignment:
    """Return the user who controls an address.

    Works in the qmail home, as root: the users' homes need not be open to anybody else.

    Args:
        local: the address without its host.

    Raises:
        LookupFailure: users/cdb is damaged, a home is out of reach, or there is no alias.
    """
    try:
        with cdb.Reader(lookup.CDB) as database:
            found = lookup.find(database, local)
    except FileNotFoundError:
        found = None
    except (OSError, cdb.FormatError, lookup.DamagedError):
        raise LookupFailure(exitcodes.CDB) from None
    if found is not None:
        return found
    try:
        return getpw.find(local)
    except getpw.GetpwError as error:
        raise LookupFailure(error.status) from None
