"""Fetch a policy's file from servers of every kind, all on this host."""

import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyqmail.remote import https
from pyqmail.remote.https import HttpsError, Page

DEADLINE = 20
HOST = b"mx.example.net"  # for whom the certificate is
LOCAL = [ipaddress.ip_address("127.0.0.1")]
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"


class Server(threading.Thread):
    """Answers every request with the same bytes."""

    def __init__(self, certificate: Path) -> None:
        super().__init__(daemon=True)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(DEADLINE)
        self.answer = b""
        self.clean = True  # the end is said in TLS, too
        self.requests: list[bytes] = []
        self.stop = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            plain.settimeout(DEADLINE)
            try:
                with self.context.wrap_socket(plain, server_side=True) as connection:
                    self.requests.append(connection.recv(4096))
                    connection.sendall(self.answer)
                    if self.clean:
                        connection.unwrap()
            except OSError:
                pass

    def end(self) -> None:
        self.stop.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.join(DEADLINE)


@pytest.fixture
def server(certificate: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server(certificate)
    monkeypatch.setattr(https, "PORT", made.listener.getsockname()[1])
    (home / "control/tlsauthorities.pem").write_bytes(certificate.read_bytes())
    monkeypatch.chdir(home)
    yield made
    made.end()


Fetch = Callable[..., Page]


@pytest.fixture
def fetch(server: Server) -> Fetch:
    def run(answer: bytes, host: bytes = HOST, limit: int = 100) -> Page:
        server.answer = answer
        return https.fetch(host, LOCAL, b"/file", limit, 5.0)

    return run


@pytest.mark.parametrize(
    "answer",
    [
        PLAIN + b"Content-Length: 4\r\n\r\ntext",
        PLAIN + b"\r\ntext",
        PLAIN + b"Transfer-Encoding: chunked\r\n\r\n2\r\nte\r\n2\r\nxt\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Type: TEXT/plain\r\n\r\ntext",
    ],
)
def test_answers(fetch: Fetch, server: Server, answer: bytes) -> None:
    assert fetch(answer) == Page("text/plain", b"text")
    assert server.requests[0].startswith(b"GET /file HTTP/1.1\r\nHost: mx.example.net\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"text",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ntext",
        b"HTTP/1.1 301 Moved\r\nLocation: https://mx.example.net/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        PLAIN + b"Content-Length: 5\r\n\r\ntext",
        PLAIN + b"Content-Length: 101\r\n\r\n" + b"x" * 101,
        PLAIN + b"Transfer-Encoding: chunked\r\n\r\n5\r\nte",
        PLAIN + b"\r\n" + b"x" * 200_000,
        PLAIN + b"X: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
)
def test_answers_that_are_none(fetch: Fetch, answer: bytes) -> None:
    with pytest.raises(HttpsError):
        fetch(answer)


def test_an_answer_that_is_cut_off_is_none(fetch: Fetch, server: Server) -> None:
    """Without a length, only the end of TLS tells that nothing is missing."""
    server.clean = False
    with pytest.raises(HttpsError):
        fetch(PLAIN + b"\r\nte")
    assert fetch(PLAIN + b"Content-Length: 4\r\n\r\ntext").body == b"text"


def test_the_certificate_has_to_be_right(
    fetch: Fetch, server: Server, home: Path, tmp_path: Path
) -> None:
    with pytest.raises(HttpsError):
        fetch(PLAIN + b"\r\ntext", host=b"other.example.net")
    os.unlink(home / "control/tlsauthorities.pem")
    with pytest.raises(HttpsError):
        fetch(PLAIN + b"\r\ntext")
    assert server.requests == []


def test_another_address_is_tried(server: Server) -> None:
    server.answer = PLAIN + b"\r\ntext"
    nobody = ipaddress.ip_address("127.0.0.9")
    assert https.fetch(HOST, [nobody, *LOCAL], b"/file", 100, 5.0).body == b"text"
    with pytest.raises(HttpsError):
        https.fetch(HOST, [], b"/file", 100, 5.0)


def test_a_server_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.chdir(home)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(https, "PORT", listener.getsockname()[1])
        with pytest.raises(HttpsError):
            https.fetch(HOST, LOCAL, b"/file", 100, 0.2)


def test_a_byte_now_and_then_does_not_push_the_deadline(
    fetch: Fetch, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(https.time, "monotonic", lambda: float(next(clock)))
    with pytest.raises(HttpsError):
        fetch(PLAIN + b"\r\n" + b"x" * 40)
