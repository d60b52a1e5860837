"""The HTTP of the metrics: GET, one answer, end (RFC 9112), within limits.

Few clients at a time, each with seconds for everything. Who is one too many takes the
place of the one that has been there longest, so that nobody keeps the others out.
"""

import select
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

CLIENT_LIMIT = 16
SECONDS = 5.0  # for a request and its answer
HEAD_LIMIT = 8192  # bytes of a request
READ_SIZE = 4096

PLAIN = "text/plain; charset=utf-8"


class Page(NamedTuple):
    """What a path leads to."""

    content: bytes
    kind: str = PLAIN


class Request(NamedTuple):
    """What is asked for."""

    method: str
    path: str


Pages = Callable[[str], Page | None]


def parse(head: bytes) -> Request | None:
    """Return what the head of a request asks for; None when it is none of HTTP/1."""
    words = head.split(b"\n", 1)[0].rstrip(b"\r").decode("latin-1").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return None
    return Request(words[0], words[1].partition("?")[0])


def respond(head: bytes, pages: Pages) -> bytes:
    """Return the whole answer to a request."""
    request = parse(head)
    if request is None:
        return _answer("400 Bad Request", Page(b"This is for HTTP/1.\n"))
    if request.method not in ("GET", "HEAD"):
        refusal = Page(b"There is only GET.\n")
        return _answer("405 Method Not Allowed", refusal, "Allow: GET, HEAD\r\n")
    page = pages(request.path)
    if page is None:
        return _answer("404 Not Found", Page(b"The metrics are at /metrics.\n"))
    answer = _answer("200 OK", page)
    return answer if request.method == "GET" else answer[: -len(page.content) or None]


def _answer(status: str, page: Page, more: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {page.kind}\r\n"
        f"Content-Length: {len(page.content)}\r\nConnection: close\r\n{more}\r\n"
    )
    return head.encode("ascii") + page.content


class _Client:
    """One connection."""

    __slots__ = ("deadline", "head", "socket", "unsent")

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self.socket = connection
        self.deadline = deadline
        self.head = b""
        self.unsent: bytes | None = None  # None: the request is not whole yet


class Server:
    """Answers on a listening socket."""

    def __init__(self, listener: socket.socket, pages: Pages) -> None:
        """Answer the clients of listener with pages."""
        listener.setblocking(False)
        self._listener = listener
        self._pages = pages
        self._clients: dict[int, _Client] = {}  # by descriptor, the oldest first
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)

    def serve(self) -> None:
        """Answer, for ever."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Wait for something to happen and see to it."""
        first = next(iter(self._clients.values()), None)
        left = None if first is None else max(0.0, first.deadline - time.monotonic()) * 1000 + 1
        for descriptor, _ in self._poll.poll(left):
            if descriptor == self._listener.fileno():
                self._accept()
            elif (client := self._clients.get(descriptor)) is not None:
                try:
                    self._go_on(client)
                except BlockingIOError:
                    pass
                except OSError:
                    self._end(client)
        now = time.monotonic()
        for client in [one for one in self._clients.values() if one.deadline <= now]:
            self._end(client)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # gone already; or no descriptor is left, and one will be
        if len(self._clients) >= CLIENT_LIMIT:
            self._end(next(iter(self._clients.values())))
        connection.setblocking(False)
        self._clients[connection.fileno()] = _Client(connection, time.monotonic() + SECONDS)
        self._poll.register(connection, select.POLLIN)

    def _go_on(self, client: _Client) -> None:
        """Read a part of the request, or write a part of the answer.

        Raises:
            OSError: the client is gone, or cannot go on now.
        """
        if client.unsent is None:
            received = client.socket.recv(READ_SIZE)
            client.head += received
            if not received or len(client.head) > HEAD_LIMIT:
                self._end(client)
                return
            if b"\r\n\r\n" not in client.head and b"\n\n" not in client.head:
                return
            client.unsent = respond(client.head, self._pages)
            self._poll.modify(client.socket, select.POLLOUT)
        client.unsent = client.unsent[client.socket.send(client.unsent) :]
        if not client.unsent:
            self._end(client)

    def _end(self, client: _Client) -> None:
        del self._clients[client.socket.fileno()]
        self._poll.unregister(client.socket)
        client.socket.close()


def listen(address: str, port: int) -> socket.socket:
    """Return a listening socket; ``0`` as address stands for all of both families.

    Raises:
        OSError: it cannot be had.
    """
    if address != "0":
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server((address, port), family=family)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("0.0.0.0", port))
