"""The signing keys on the volume, as dkimsignd reads them; root makes them (postern dkim).

DIRECTORY/DOMAIN/SELECTOR.pem   a private key
DIRECTORY/DOMAIN/use            the selectors that are signed with, one in a line
"""

import os
import re
import threading
from collections.abc import Callable

from pyqmail.mailauth import signing
from pyqmail.mailauth.signing import Key, UnusableKeyError
from ucspi import control

USE = "use"
NAME = re.compile(rb"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?\Z")
MOST_KEYS = 4  # signatures of one message

Signature = tuple[int, int, int]


class KeyStore:
    """The keys of each domain, read again when its list of selectors has changed."""

    def __init__(self, directory: str, log: Callable[[str], None]) -> None:
        """Read from directory, and tell log of what cannot be used."""
        self._directory = directory
        self._log = log
        self._lock = threading.Lock()
        self._known: dict[bytes, tuple[Signature, list[Key]]] = {}

    def of(self, domain: bytes) -> list[Key]:
        """Return the keys to sign with for a domain in small letters, none if there are none."""
        if not NAME.match(domain) or b".." in domain:
            return []
        path = os.path.join(self._directory, os.fsdecode(domain))
        try:
            found = os.stat(os.path.join(path, USE))
        except OSError:
            return []
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        with self._lock:
            known = self._known.get(domain)
            if known is None or known[0] != seen:
                known = self._known[domain] = (seen, self._read(domain, path))
            return known[1]

    def _read(self, domain: bytes, path: str) -> list[Key]:
        keys = []
        for selector in self._selectors(path)[:MOST_KEYS]:
            name = os.path.join(path, os.fsdecode(selector) + ".pem")
            try:
                with open(name, "rb") as file:
                    keys.append(signing.load(domain, selector, file.read()))
            except OSError as error:
                self._log(f"{name}: {error.strerror}")
            except UnusableKeyError as error:
                self._log(f"{name}: {error}")
        return keys

    def _selectors(self, path: str) -> list[bytes]:
        try:
            with open(os.path.join(path, USE), "rb") as file:
                return [line for line in control.parse_lines(file.read()) if NAME.match(line)]
        except OSError as error:
            self._log(f"{path}: {error}")
            return []
