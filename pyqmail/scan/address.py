"""Where a scanner listens, and a connection to it with one deadline for everything."""

import socket
import time
from typing import NamedTuple


class ScannerError(Exception):
    """A scanner that cannot be reached, or does not answer as it should."""


class TooLargeError(Exception):
    """The message is longer than the scanner takes."""


class Place(NamedTuple):
    """A scanner's kind and address."""

    kind: str  # clamd or rspamd
    host: str  # a path when it begins with a slash
    port: int


CONNECT_SECONDS = 10.0  # a host that is gone says nothing; its neighbours need no longer
PORTS = {"clamd": 3310, "rspamd": 11333}


def parse(text: str) -> Place:
    """Return the place that ``clamd:HOST:PORT``, ``clamd:/PATH`` or ``rspamd:http://HOST:PORT`` is.

    Raises:
        ValueError: it is none.
    """
    kind, colon, rest = text.partition(":")
    if kind not in PORTS or not colon:
        raise ValueError(f"not a scanner: {text}")
    if kind == "rspamd":
        rest = rest.removeprefix("http://").removesuffix("/")
    if rest.startswith("/"):
        return Place(kind, rest, 0)
    host, port = rest, ""
    if rest.startswith("["):
        host, _, port = rest[1:].partition("]")
        port = port.removeprefix(":")
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    if not host or "/" in host or (port and not 0 < int(port) < 65536):
        raise ValueError(f"not a scanner: {text}")
    return Place(kind, host, int(port) if port else PORTS[kind])


class Connection:
    """A connection to a scanner. Everything must be done before the deadline."""

    def __init__(self, place: Place, seconds: float) -> None:
        """Connect.

        Raises:
            ScannerError: it cannot be reached.
        """
        self._deadline = time.monotonic() + seconds
        connecting = min(seconds, CONNECT_SECONDS)
        try:
            if place.port:
                self._socket = socket.create_connection((place.host, place.port), connecting)
            else:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._socket.settimeout(connecting)
                self._socket.connect(place.host)
        except OSError as error:
            raise ScannerError(str(error)) from error

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _hurry(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise ScannerError("took too long")
        self._socket.settimeout(left)

    def send(self, data: bytes) -> bool:
        """Send data; return whether the scanner has not closed the connection yet.

        Raises:
            ScannerError: it did not take it in time.
        """
        self._hurry()
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False  # it may have said why
        except OSError as error:
            raise ScannerError(str(error)) from error
        return True

    def receive(self, limit: int) -> bytes:
        """Return all that the scanner says until it closes the connection.

        Raises:
            ScannerError: that did not come in time, or is more than limit.
        """
        data = b""
        while True:
            self._hurry()
            try:
                part = self._socket.recv(65536)
            except ConnectionResetError:
                part = b""
            except OSError as error:
                raise ScannerError(str(error)) from error
            data += part
            if len(data) > limit:
                raise ScannerError("said too much")
            if not part:
                return data
