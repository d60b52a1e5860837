"""Fetch a small file by HTTPS, from a server that may be anybody's.

No redirect is followed, nothing but the one answer is believed, and size and time are
limited: all of the answer is read first, and then understood by ``http.client``.
"""

import io
import socket
import ssl
import time
from typing import NamedTuple

from pyqmail.remote import tls
from pyqmail.remote.addresses import IPAddress

PORT = 443
HEAD_LIMIT = 16384  # bytes of status and header
READ_SIZE = 16384


class HttpsError(Exception):
    """The file could not be had."""


class Page(NamedTuple):
    """A file from the web."""

    kind: str  # media type, in lower case, without parameters
    body: bytes


def fetch(host: bytes, addresses: list[IPAddress], path: bytes, limit: int, seconds: float) -> Page:
    """Return a file of a server whose certificate is right.

    Args:
        host: the server's name, which its certificate must have.
        addresses: of the server, tried one after the other.
        path: of the file.
        limit: bytes that the file may have.
        seconds: for everything.

    Raises:
        HttpsError: it cannot be had.
    """
    deadline = time.monotonic() + seconds
    problem = HttpsError("no address")
    for address in addresses:
        try:
            with _connect(host, address, deadline) as connection:
                answer, whole = _ask(connection, host, path, limit + HEAD_LIMIT, deadline)
            return understand(answer, whole, limit)
        except (OSError, ValueError) as error:
            problem = HttpsError(str(error))
        except HttpsError as error:
            problem = error
    raise problem


def _connect(host: bytes, address: IPAddress, deadline: float) -> ssl.SSLSocket:
    name = host.decode("ascii")
    context = tls.verifying_context()
    context.check_hostname = True
    plain = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6)
    try:
        plain.settimeout(_rest(deadline))
        plain.connect((str(address), PORT))
        plain.settimeout(_rest(deadline))
        return context.wrap_socket(plain, server_hostname=name, suppress_ragged_eofs=False)
    except BaseException:
        plain.close()
        raise


def _ask(
    connection: ssl.SSLSocket, host: bytes, path: bytes, limit: int, deadline: float
) -> tuple[bytes, bool]:
    """Return the whole answer, and whether the server said itself that it was whole."""
    request = b"GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/plain\r\nConnection: close\r\n\r\n"
    connection.sendall(request % (path, host))
    answer = b""
    while len(answer) <= limit:
        connection.settimeout(_rest(deadline))
        try:
            data = connection.recv(READ_SIZE)
        except ssl.SSLEOFError:
            return answer, False
        if not data:
            return answer, True
        answer += data
    raise HttpsError("too long")


def _rest(deadline: float) -> float:
    rest = deadline - time.monotonic()
    if rest <= 0:
        raise HttpsError("no answer in time")
    return rest


class _Replay:
    """Stands where http.client expects a socket."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def makefile(self, mode: str) -> io.BytesIO:
        """Return the answer as a file."""
        return io.BytesIO(self._answer)


def understand(answer: bytes, whole: bool, limit: int) -> Page:
    """Return the file in a server's answer.

    Args:
        answer: all that came.
        whole: the server said that it was all.
        limit: bytes that the file may have.

    Raises:
        HttpsError: there is none.
    """
    import http.client  # only here: a policy is fetched once in many deliveries

    try:
        response = http.client.HTTPResponse(_Replay(answer), method="GET")  # type: ignore[arg-type]
        response.begin()
        told = response.chunked or response.length is not None
        body = response.read()
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise HttpsError("no answer that makes sense") from error
    if response.status != 200:
        raise HttpsError(f"status {response.status}")
    if not told and not whole:
        raise HttpsError("cut short")
    if len(body) > limit:
        raise HttpsError("too long")
    kind = response.getheader("Content-Type") or ""
    return Page(kind.partition(";")[0].strip().lower(), body)
