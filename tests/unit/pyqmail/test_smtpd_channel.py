"""The channel on real descriptors: deadlines, back pressure, both kinds of descriptor."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pyqmail.channel import Channel
from ucspi.dialogue import ConnectionEnded, Dialogue, Ending, TimedOut, Wait

Pair = tuple[int, int, int, int]  # what the server reads and writes, what the client does


@pytest.fixture(params=["socket", "pipe"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    if request.param == "socket":
        server, client = socket.socketpair()
        ends = (server.detach(), client.detach())
        yield ends[0], os.dup(ends[0]), ends[1], os.dup(ends[1])
        return
    read, client_write = os.pipe()
    client_read, write = os.pipe()
    yield read, write, client_read, client_write


def test_chunks(pair: Pair) -> None:
    channel = Channel(pair[0], pair[1], 10)
    os.write(pair[3], b"one")
    assert channel.read_chunk() == b"one"


def asks_twice(limit: float) -> Dialogue:
    """Say a, hear something, say what it was, and end."""
    heard = yield Wait(b"a", time.monotonic() + limit)
    yield Wait(b"<" + heard + b">", None)
    try:
        yield Wait(b"", time.monotonic() + 0.05)
    except TimedOut:
        return Ending(3, b"late")
    return Ending(4)


def test_a_dialogue_is_held(pair: Pair) -> None:
    channel = Channel(pair[0], pair[1], 10)
    os.write(pair[3], b"x")
    assert channel.hold(asks_twice(10)) == 3
    assert os.read(pair[2], 100) == b"a<x>late"


def test_a_dialogue_may_be_deaf_to_its_end(pair: Pair) -> None:
    channel = Channel(pair[0], pair[1], 10)
    os.close(pair[2])
    os.close(pair[3])
    with pytest.raises(ConnectionEnded):
        channel.hold(asks_twice(10))


def test_last_words_for_nobody_are_no_error(pair: Pair) -> None:
    def ends() -> Dialogue:
        yield Wait(b"", None)
        return Ending(5, b"bye")

    channel = Channel(pair[0], pair[1], 10)
    os.close(pair[2])
    os.close(pair[3])
    assert channel.hold(ends()) == 5


def test_much_output_reaches_a_slow_reader(pair: Pair) -> None:
    channel = Channel(pair[0], pair[1], 10)
    data = bytes(range(256)) * 8192
    received: list[bytes] = []

    def drain() -> None:
        while sum(map(len, received)) < len(data):
            received.append(os.read(pair[2], 1000))

    reader = threading.Thread(target=drain)
    reader.start()
    channel.send(data)
    reader.join(20)
    assert b"".join(received) == data


def test_reader_that_does_not_read_is_given_up(pair: Pair) -> None:
    channel = Channel(pair[0], pair[1], 0.05)
    with pytest.raises(TimedOut):
        channel.send(bytes(1 << 22))


@pytest.mark.parametrize("use", [lambda c: c.read_chunk(), lambda c: c.send(b"x")])
def test_closed_connection(pair: Pair, use: Callable[[Channel], object]) -> None:
    channel = Channel(pair[0], pair[1], 10)
    os.close(pair[2])
    os.close(pair[3])
    with pytest.raises(ConnectionEnded):
        use(channel)


def test_farewell_reads_what_is_in_flight(pair: Pair) -> None:
    channel = Channel(pair[0], pair[1], 10)
    os.write(pair[3], b"x" * 50000)
    channel.farewell(b"bye")
    assert os.read(pair[2], 10) == b"bye"
    os.set_blocking(pair[0], False)
    with pytest.raises(BlockingIOError):
        os.read(pair[0], 1)
