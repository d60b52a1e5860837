"""The HTTP of the metrics: what is answered, and that nobody can keep it busy."""

import socket
import threading
from collections.abc import Iterator

import pytest

from appliance import metrics_http
from appliance.metrics_http import Page, Request, Server, parse, respond

METRICS = Page(b"a_total 1\n", "text/plain; version=0.0.4")


def pages(path: str) -> Page | None:
    return METRICS if path == "/metrics" else None


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Request("GET", "/metrics")),
        (b"HEAD /metrics?x=y HTTP/1.0\n\n", Request("HEAD", "/metrics")),
        (b"GET /metrics\r\n\r\n", None),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", None),
        (b"GET /metrics HTTP/2\r\n\r\n", None),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", None),
        (b"\r\n\r\n", None),
    ],
)
def test_what_is_asked_for(head: bytes, wanted: Request | None) -> None:
    assert parse(head) == wanted


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"200 OK"),
        (b"GET /etc/passwd HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"GET /metrics/../x HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405 Method Not Allowed"),
        (b"EHLO client.example\r\n\r\n", b"400 Bad Request"),
    ],
)
def test_every_answer_is_whole(head: bytes, status: bytes) -> None:
    answer = respond(head, pages)
    assert answer.startswith(b"HTTP/1.1 " + status + b"\r\n")
    fields, _, body = answer.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in fields
    assert b"Connection: close" in fields
    assert (b"Allow: GET, HEAD" in fields) == (status[:3] == b"405")


def test_head_is_told_the_length_and_no_content() -> None:
    whole = respond(b"GET /metrics HTTP/1.1\r\n\r\n", pages)
    assert respond(b"HEAD /metrics HTTP/1.1\r\n\r\n", pages) + METRICS.content == whole


@pytest.fixture
def port() -> Iterator[int]:
    """A server that runs until the end of the test process."""
    listener = metrics_http.listen("127.0.0.1", 0)
    server = Server(listener, pages)
    threading.Thread(target=server.serve, daemon=True).start()
    yield listener.getsockname()[1]


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def everything(connection: socket.socket) -> bytes:
    """Return what comes until the end of a connection, which is closed."""
    received = b""
    with connection:
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass
    return received


def fetch(port: int, head: bytes = b"GET /metrics HTTP/1.1\r\n\r\n") -> bytes:
    connection = connect(port)
    connection.sendall(head)
    return everything(connection)


def test_a_request_in_pieces_is_answered(port: int) -> None:
    connection = connect(port)
    for piece in (b"GET /met", b"rics HTTP/1.1\r\n", b"Host: x\r\n", b"\r", b"\n"):
        connection.sendall(piece)
    assert everything(connection).endswith(METRICS.content)


def test_an_endless_request_is_cut_off(port: int) -> None:
    connection = connect(port)
    try:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nX: " + b"y" * metrics_http.HEAD_LIMIT)
    except OSError:
        pass
    assert everything(connection) == b""


def test_who_says_nothing_is_cut_off(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_http, "SECONDS", 0.1)
    assert everything(connect(port)) == b""


def test_a_byte_now_and_then_pushes_no_deadline_on(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_http, "SECONDS", 0.3)
    with connect(port) as connection:
        connection.settimeout(0.02)
        for _ in range(500):
            try:
                connection.send(b"x")
                if not connection.recv(1):
                    return
            except TimeoutError:
                continue
            except OSError:
                return
    pytest.fail("still connected")


def test_stallers_keep_nobody_out(port: int) -> None:
    stallers = [connect(port) for _ in range(3 * metrics_http.CLIENT_LIMIT)]
    try:
        assert fetch(port).endswith(METRICS.content)
        assert everything(stallers[0]) == b""
    finally:
        for staller in stallers:
            staller.close()


def test_a_client_that_goes_away_is_forgotten(port: int) -> None:
    for _ in range(50):
        connection = connect(port)
        connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        connection.close()
    assert fetch(port).endswith(METRICS.content)


def test_all_addresses_are_those_of_both_families() -> None:
    with metrics_http.listen("0", 0) as listener:
        port = listener.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
