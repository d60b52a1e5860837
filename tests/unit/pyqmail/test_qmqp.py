"""QMQP between two processes over TCP, and the netstrings that it is made of."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyqmail.qmqp import client, netstring

LARGE = b"line\n" * 100_000


def reader(pieces: Iterable[bytes]) -> netstring.Reader:
    """Return a reader of these pieces; at their end it gets no more."""
    left = [piece for piece in pieces if piece]

    def receive() -> bytes:
        if not left:
            raise EOFError
        return left.pop(0)

    return netstring.Reader(receive)


@given(st.binary(max_size=300), st.integers(1, 20))
def test_a_netstring_is_read_back_however_it_is_split(content: bytes, size: int) -> None:
    raw = netstring.encode(content)
    pieces = [raw[i : i + size] for i in range(0, len(raw), size)]
    assert reader(pieces).string(300) == content


@pytest.mark.parametrize(
    "raw", [b":,", b"x:,", b"01:a,", b"-1:,", b"1:ab", b"3:abc;", b"9999999999:a", b"999999999:a"]
)
def test_what_is_no_netstring_is_refused(raw: bytes) -> None:
    with pytest.raises(netstring.NetstringError):
        reader([raw]).string(200_000_000)


@pytest.mark.parametrize(
    ("line", "server"),
    [
        (b"192.0.2.1", ("192.0.2.1", 628)),
        (b"192.0.2.1:6280", ("192.0.2.1", 6280)),
        (b"2001:db8::1", ("2001:db8::1", 628)),
        (b"[2001:db8::1]:6280", ("2001:db8::1", 6280)),
        (b"queue.example", ("queue.example", 628)),
    ],
)
def test_a_server_may_have_a_port(line: bytes, server: tuple[str, int]) -> None:
    assert client.parse_server(line) == server


def serve_once(env: dict[str, str]) -> tuple[int, threading.Thread]:
    """Serve one connection with qmail-qmqpd; return the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener:
            connection, _ = listener.accept()
        with connection:
            subprocess.run(
                [sys.executable, "-m", "ucspi", "qmail-qmqpd"],
                stdin=connection,
                stdout=connection,
                env={**env, "TCPREMOTEIP": "127.0.0.1", "TCPLOCALHOST": "queue.example"},
                timeout=20,
                check=False,
            )

    thread = threading.Thread(target=serve, daemon=True)
    port: int = listener.getsockname()[1]
    thread.start()
    return port, thread


def qmqpc(env: dict[str, str], message: bytes, envelope: bytes) -> int:
    """Run qmail-qmqpc with qmail-queue's interface and return its exit status."""
    read_end, write_end = os.pipe()

    def fill() -> None:
        with os.fdopen(write_end, "wb") as pipe:
            pipe.write(envelope)

    threading.Thread(target=fill, daemon=True).start()
    with os.fdopen(read_end, "rb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "ucspi", "qmail-qmqpc"],
            input=message,
            stdout=pipe,
            env=env,
            timeout=30,
            check=False,
        )
    return done.returncode


@pytest.mark.parametrize("message", [b"Subject: x\n\ntext\n", b"", LARGE])
def test_a_message_goes_from_one_queue_host_to_another(server: Any, message: bytes) -> None:
    port, thread = serve_once(server.env)
    (server.home / "control" / "qmqpservers").write_text(f"127.0.0.1:{port}\n")
    envelope = b"Fa@x.example\0Tb@y.example\0Tc@z.example\0\0"
    assert qmqpc(server.env, message, envelope) == 0
    thread.join(20)
    ((queued, todo),) = server.queued().values()
    assert queued.endswith(message)
    assert b"with QMQP; " in queued
    assert todo.endswith(b"Fa@x.example\0Tb@y.example\0Tc@z.example\0")


def test_the_next_server_is_asked_when_one_is_down(server: Any) -> None:
    port, thread = serve_once(server.env)
    with socket.create_server(("127.0.0.1", 0)) as down:
        dead = down.getsockname()[1]
    (server.home / "control" / "qmqpservers").write_text(f"127.0.0.1:{dead}\n127.0.0.1:{port}\n")
    assert qmqpc(server.env, b"text\n", b"F\0Tb@y.example\0\0") == 0
    thread.join(20)
    assert len(server.queued()) == 1


def test_without_a_server_that_answers_the_sender_may_try_again(queue: Any) -> None:
    assert qmqpc(queue.env, b"text\n", b"F\0Tb@y.example\0\0") == 55
    with socket.create_server(("127.0.0.1", 0)) as down:
        dead = down.getsockname()[1]
    (queue.home / "control" / "qmqpservers").write_text(f"127.0.0.1:{dead}\n")
    assert qmqpc(queue.env, b"text\n", b"F\0Tb@y.example\0\0") == 73


def test_no_other_server_is_asked_once_one_may_have_the_message(queue: Any) -> None:
    second = socket.create_server(("127.0.0.1", 0))
    listener = socket.create_server(("127.0.0.1", 0))
    first, port = (one.getsockname()[1] for one in (listener, second))

    def take_and_hang_up() -> None:
        with listener, listener.accept()[0] as connection:
            taken = b""
            while not taken.endswith(b",,"):
                taken += connection.recv(4096)

    threading.Thread(target=take_and_hang_up, daemon=True).start()
    (queue.home / "control" / "qmqpservers").write_text(f"127.0.0.1:{first}\n127.0.0.1:{port}\n")
    with second:
        assert qmqpc(queue.env, b"text\n", b"F\0Tb@y.example\0\0") == 74
        second.setblocking(False)
        with pytest.raises(BlockingIOError):
            second.accept()


@pytest.mark.parametrize(
    ("sender", "recipients"),
    [
        (b"a" * 1003, [b"b@y.example"]),
        (b"", [b"b@y.example", b"a" * 5000]),
        (b"", [b"a\0b@y.example"]),
    ],
)
def test_an_address_that_cannot_be_queued_is_refused_for_good(
    server: Any, sender: bytes, recipients: list[bytes]
) -> None:
    port, thread = serve_once(server.env)
    pieces = [b"F" + sender, *(b"T" + recipient for recipient in recipients)]
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(client.request(b"text\n", pieces))
        answer = netstring.Reader(lambda: connection.recv(1000)).string(1000)
    assert answer == b"Dsorry, I can't accept addresses like that (#5.1.3)"
    thread.join(20)
    assert server.queued() == {}


def test_a_message_that_is_cut_off_is_not_queued(server: Any) -> None:
    port, thread = serve_once(server.env)
    whole = client.request(b"text\n", [b"Fa@x.example", b"Tb@y.example"])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(whole[:-1])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
    thread.join(20)
    assert server.queued() == {}


def test_a_recipient_that_reaches_past_the_end_is_refused(server: Any) -> None:
    port, thread = serve_once(server.env)
    inner = netstring.encode(b"text\n") + netstring.encode(b"a") + netstring.encode(b"bcd")
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"%d:%b," % (len(inner) - 2, inner))
        assert connection.recv(100) == b""
    thread.join(20)
    assert server.queued() == {}


def test_a_broken_envelope_is_told_from_a_broken_connection(queue: Any) -> None:
    (queue.home / "control" / "qmqpservers").write_text("127.0.0.1\n")
    assert qmqpc(queue.env, b"text\n", b"Xwrong\0\0") == 91
    assert qmqpc(queue.env, b"text\n", b"F" + b"a" * 2000 + b"\0Tb\0\0") == 11
