"""The channel on real descriptors: deadlines, back pressure, both kinds of descriptor."""

import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from pyqmail.channel import Channel, ConnectionEnded, LineTooLong, TimedOut

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


def test_lines_and_chunks(pair: Pair) -> None:
    channel = Channel(pair[0], pair[1], 10)
    os.write(pair[3], b"one\r\ntwo\nthree\rfour\r\nrest")
    assert channel.read_line(100) == b"one"
    assert channel.read_line(100) == b"two"
    assert channel.read_line(100) == b"three\rfour"
    assert channel.read_chunk() == b"rest"
    channel.unread(b"back")
    assert channel.read_chunk() == b"back"


def test_replies_are_written_before_waiting(pair: Pair) -> None:
    channel = Channel(pair[0], pair[1], 0.05)
    channel.write(b"a")
    channel.write(b"b")
    with pytest.raises(TimedOut):
        channel.read_line(100)
    assert os.read(pair[2], 10) == b"ab"


def test_line_has_a_deadline_of_its_own(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    channel = Channel(pair[0], pair[1], 10)
    receive = channel._receive

    def dribble(deadline: float) -> bytes:
        now[0] += 1
        os.write(pair[3], b"x")
        return receive(deadline)

    monkeypatch.setattr(Channel, "_receive", lambda self, deadline: dribble(deadline))
    with pytest.raises(TimedOut):
        channel.read_line(100)
    assert now[0] <= 11


def test_line_limit(pair: Pair) -> None:
    channel = Channel(pair[0], pair[1], 10)
    os.write(pair[3], b"12345678\n123456789\n")
    assert channel.read_line(9) == b"12345678"
    with pytest.raises(LineTooLong):
        channel.read_line(9)


def test_much_output_reaches_a_slow_reader(pair: Pair) -> None:
    channel = Channel(pair[0], pair[1], 10)
    data = bytes(range(256)) * 8192
    received: list[bytes] = []

    def drain() -> None:
        while sum(map(len, received)) < len(data):
            received.append(os.read(pair[2], 1000))

    reader = threading.Thread(target=drain)
    reader.start()
    channel.write(data)
    channel.flush()
    reader.join(20)
    assert b"".join(received) == data


def test_reader_that_does_not_read_is_given_up(pair: Pair) -> None:
    channel = Channel(pair[0], pair[1], 0.05)
    with pytest.raises(TimedOut):
        channel.send(bytes(1 << 22))


@pytest.mark.parametrize(
    "use", [lambda c: c.read_chunk(), lambda c: c.read_line(10), lambda c: c.send(b"x")]
)
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
