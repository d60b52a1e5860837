"""Whose mail qmail-smtpd takes, and to whom: rcpthosts, badmailfrom, RELAYCLIENT."""

from collections.abc import Iterable

from pyqmail.smtp.address import domain
from ucspi import cdb, control

MORE_RCPTHOSTS = "control/morercpthosts.cdb"
NAME_LIMIT = 255  # bytes of a domain name (RFC 1035, 2.3.4); a longer one is not looked up


class AddressList:
    """control/badmailfrom or badrcptto: addresses and ``@host`` lines, without regard to case."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._entries = frozenset(line.lower() for line in lines)

    def __contains__(self, address: object) -> bool:
        if not isinstance(address, bytes) or not self._entries:
            return False
        lowered = address.lower()
        host = domain(lowered)
        return lowered in self._entries or (host is not None and b"@" + host in self._entries)


class RecipientHosts:
    """control/rcpthosts and morercpthosts.cdb: the domains that mail is taken for.

    Args:
        lines: those of rcpthosts; None when there is no such file, which admits every host.
        more: path of the database with more of them.
    """

    def __init__(self, lines: Iterable[bytes] | None, more: str = MORE_RCPTHOSTS) -> None:
        self._hosts = None if lines is None else frozenset(line.lower() for line in lines)
        self._more = more

    def admits(self, address: bytes) -> bool:
        """Say whether mail for address is taken. An address without a host always is.

        Raises:
            ControlError: morercpthosts.cdb exists and cannot be read.
        """
        host = domain(address)
        if self._hosts is None or host is None:
            return True
        forms = suffixes(host.lower())
        if any(form in self._hosts for form in forms):
            return True
        return len(host) <= NAME_LIMIT and self._in_more(forms)

    def _in_more(self, forms: list[bytes]) -> bool:
        try:
            with cdb.Reader(self._more) as database:
                return any(database.get(form) is not None for form in forms)
        except FileNotFoundError:
            return False
        except (OSError, cdb.FormatError) as error:
            raise control.ControlError(f"unable to read {self._more}: {error}") from error


def suffixes(host: bytes) -> list[bytes]:
    """Return the entries that admit host: ``a.b.c``, ``.b.c``, ``.c``."""
    found = [host]
    start = host.find(b".")
    while start >= 0:
        found.append(host[start:])
        start = host.find(b".", start + 1)
    return found
