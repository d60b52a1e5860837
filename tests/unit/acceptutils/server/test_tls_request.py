"""The channel between connections and the TLS zygote."""

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from acceptutils.tls import request


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ours, theirs
    ours.close()
    theirs.close()


def opened() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_facts_survive_and_nothing_else_does() -> None:
    env = {"TCPREMOTEIP": "2001:db8::1", "SESSION_ID": "a-1", "PASSWORD": "x"}
    assert request.decode(request.encode(env)) == {
        "TCPREMOTEIP": "2001:db8::1",
        "SESSION_ID": "a-1",
    }
    assert request.decode(b"\xff\0=\0TCPREMOTEIP\0OTHER=1\0") == {}


def test_asking_connects_the_two_sides_and_leaves_no_descriptor(
    channel: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = channel
    before = opened()
    application = request.ask(os.dup(ours.fileno()), {"SESSION_ID": "a-1"})
    received = request.receive(theirs)
    assert received is not None
    ends, facts = received
    assert facts == {"SESSION_ID": "a-1"}
    for source, target in (
        (application.write, ends.from_application),
        (ends.to_application, application.read),
        (application.control, ends.control),
        (ends.control, application.control),
    ):
        os.write(source, b"x")
        assert os.read(target, 10) == b"x"
    for descriptor in (*application, *ends):
        assert not os.get_inheritable(descriptor)
        os.close(descriptor)
    assert opened() == before


def test_a_zygote_that_is_gone_is_an_error_and_leaves_no_descriptor(
    channel: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = channel
    theirs.close()
    before = opened()
    with pytest.raises(OSError, match=r"pipe|reset"):
        request.ask(os.dup(ours.fileno()), {})
    assert opened() == before


def test_a_request_that_the_zygote_never_takes_ends_the_control_socket(
    channel: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = channel
    application = request.ask(ours.detach(), {})
    theirs.close()
    assert os.read(application.control, 10) == b""
    for descriptor in application:
        os.close(descriptor)


def test_malformed_requests_are_dropped_with_what_came_with_them(
    channel: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = channel
    before = opened()

    def send(record: bytes, descriptors: list[int]) -> None:
        rights = struct.pack(f"{len(descriptors)}i", *descriptors)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
        ours.sendmsg([record], ancillary)

    send(b"no descriptors", [])
    send(b"too few", [0, 1])
    send(b"too many", [0, 1, 2, 0, 1, 2, 0])
    send(b"", [])  # is not the end of the channel, though it reads like it
    application = request.ask(os.dup(ours.fileno()), {"SESSION_ID": "good"})
    received = request.receive(theirs)
    assert received is not None
    assert received[1] == {"SESSION_ID": "good"}
    for descriptor in (*application, *received[0]):
        os.close(descriptor)
    assert opened() == before


def test_the_channel_ends_when_nobody_is_left(channel: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = channel
    ours.close()
    assert request.receive(theirs) is None
