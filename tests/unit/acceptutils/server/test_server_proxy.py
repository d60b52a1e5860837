"""PROXY protocol headers: exact, bounded, and only from whom they may come."""

import contextlib
import os
import socket
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptutils.server.proxy import Header, ProxyError, parse

from .conftest import Certificate, Server, children, status, wait_until

Run = Callable[..., Server]

V2 = b"\r\n\r\n\x00\r\nQUIT\n"


def v2(command: int, family: int, body: bytes) -> bytes:
    return V2 + struct.pack("!BBH", command, family, len(body)) + body


V2_IPV4 = v2(0x21, 0x11, bytes([192, 0, 2, 1, 192, 0, 2, 2]) + struct.pack("!HH", 5000, 25))
V2_IPV6 = v2(
    0x21,
    0x21,
    socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    + struct.pack("!HH", 5000, 25),
)

GOOD = [
    (
        b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 25\r\n",
        ("192.0.2.1", 5000, "192.0.2.2", 25),
    ),
    (
        b"PROXY TCP6 2001:db8::1 2001:db8::2 65535 0\r\n",
        ("2001:db8::1", 65535, "2001:db8::2", 0),
    ),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:f::f 1 2 whatever\r\n", None),
    (V2_IPV4, ("192.0.2.1", 5000, "192.0.2.2", 25)),
    (V2_IPV6, ("2001:db8::1", 5000, "2001:db8::2", 25)),
    (v2(0x20, 0x00, b""), None),  # LOCAL: the proxy's own health check
    (v2(0x21, 0x31, bytes(216)), None),  # a Unix socket's address
    (v2(0x21, 0x11, V2_IPV4[16:] + b"\x04\0\1x"), ("192.0.2.1", 5000, "192.0.2.2", 25)),  # TLVs
]

BAD = [
    b"EHLO example.org\r\n",
    b"PROXY \r\n",
    b"proxy TCP4 192.0.2.1 192.0.2.2 5000 25\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 5000\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 25 \r\n",
    b"PROXY TCP4  192.0.2.1 192.0.2.2 5000 25\r\n",
    b"PROXY TCP4 192.0.2.256 192.0.2.2 5000 25\r\n",
    b"PROXY TCP4 2001:db8::1 2001:db8::2 5000 25\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 25\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 +5 25\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 05 25\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 \xc2\xb2 25\r\n",
    b"PROXY TCP5 192.0.2.1 192.0.2.2 5000 25\r\n",
    b"PROXY TCP4 192.0.2.1\0 192.0.2.2 5000 25\r\n",
    b"PROXY " + b"x" * 107,
    V2 + b"\x31\x11\0\0",
    V2 + b"\x22\x11\0\0",
    V2 + b"\x21\x11\xff\xff",
    v2(0x21, 0x11, bytes(11)),
    b"\r\n\r\n\x00\r\nQUIT\r",
]


@pytest.mark.parametrize(("header", "ends"), GOOD)
def test_a_header_is_taken_exactly(header: bytes, ends: tuple[str, int, str, int] | None) -> None:
    assert parse(header) == Header(len(header), ends)
    assert parse(header + b"EHLO x\r\n") == Header(len(header), ends)
    for length in range(len(header)):
        assert parse(header[:length]) is None, "a part of a header is not yet one"


@pytest.mark.parametrize("received", BAD)
def test_anything_else_is_refused(received: bytes) -> None:
    with pytest.raises(ProxyError):
        parse(received)


@given(st.one_of(st.binary(), st.binary().map(V2.__add__), st.binary().map(b"PROXY ".__add__)))
def test_no_bytes_crash_the_parser_or_take_too_many(received: bytes) -> None:
    with contextlib.suppress(ProxyError):
        header = parse(received)
        if header is None:
            assert len(received) < 16 + 536
        else:
            assert 0 < header.length <= len(received)


# Over the wire.


def test_the_client_behind_a_listed_proxy_is_the_client(run: Run) -> None:
    server = run("-p", "127.0.0.0/8")
    for header, address in (V2_IPV4, "192.0.2.1"), (GOOD[1][0], "2001:db8::1"):
        with server.connect() as client:
            client.sock.sendall(header + b"ENV TCPREMOTEIP\r\n")
            assert client.line() == "220 ready"
            assert client.line() == address
            assert client.ask("ENV TCPLOCALPORT") in ("25", "0")
            assert client.ask("ENV PROXYREMOTEIP") == "127.0.0.1"
        server.wait_for_log(f" by way of 127.0.0.1 ip={address} session=")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to beware")
def test_root_has_the_header_read_by_nobody(run: Run) -> None:
    server = run("-p", "127.0.0.1")
    with server.connect() as client:
        client.sock.sendall(b"PROXY TCP4 192.0.2.1")
        server.wait_for_log(" accept ")
        (serving,) = children(server.pid)
        wait_until(lambda: children(serving), "a reader")
        (reader,) = children(serving)
        wait_until(lambda: status(reader)["Uid"].split() == ["65534"] * 4, "nobody reads")
        client.sock.sendall(b" 192.0.2.2 5000 25\r\n")
        assert client.line() == "220 ready"
        assert client.ask("ENV TCPREMOTEIP") == "192.0.2.1"
        assert children(serving) == []


def test_a_header_in_pieces_is_put_together(run: Run) -> None:
    server = run("-p", "127.0.0.1")
    with server.connect() as client:
        for byte in GOOD[0][0]:
            client.sock.sendall(bytes([byte]))
        assert client.line() == "220 ready"
        assert client.ask("ENV TCPREMOTEIP") == "192.0.2.1"


def test_the_proxys_own_check_keeps_the_proxys_address(run: Run) -> None:
    server = run("-p", "127.0.0.1")
    with server.connect() as client:
        client.sock.sendall(v2(0x20, 0, b""))
        assert client.line() == "220 ready"
        assert client.ask("ENV TCPREMOTEIP") == "127.0.0.1"


def test_a_listed_proxy_without_a_header_is_not_served(run: Run) -> None:
    server = run("-p", "127.0.0.1")
    with server.connect() as client:
        client.say("EHLO example.org")
        with contextlib.suppress(ConnectionError):
            assert client.rest() == b""
    server.wait_for_log("acceptserver: not a PROXY header ip=127.0.0.1")


def test_a_header_from_anybody_else_is_no_header(run: Run) -> None:
    server = run("-p", "192.0.2.0/24")
    with server.connect() as client:
        client.sock.sendall(GOOD[0][0])
        assert client.line() == "220 ready"
        assert client.line() == "500 what"
        assert client.ask("ENV TCPREMOTEIP") == "127.0.0.1"


def test_a_proxys_connections_are_not_one_hosts(run: Run) -> None:
    server = run("-C", "1", "-p", "127.0.0.1")
    with server.connect() as first, server.connect() as second:
        for client in first, second:
            client.sock.sendall(GOOD[0][0])
            assert client.line() == "220 ready"


def test_the_header_comes_before_implicit_tls(run: Run, certificate: Certificate) -> None:
    server = run("-T", "-p", "127.0.0.1", env=certificate.env)
    with server.connect() as client:
        client.sock.sendall(GOOD[0][0])
        client.wrap()
        assert client.line() == "220 ready"
        assert client.ask("ENV TCPREMOTEIP") == "192.0.2.1"
