"""Time limits: what a client can push on, and what it cannot."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from acceptutils.authup import client as module
from acceptutils.authup.client import Client, ClientGone, ClientTimeout, Limits


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that a Client reads."""
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def test_nearest_limit_counts(clock: Clock) -> None:
    client = Client(Limits(single=50, line=20, preauth=60))
    assert client.seconds_left() == 50
    client.line_begun(True)
    assert client.seconds_left() == 20
    clock.now += 45
    client.line_ended()
    assert client.seconds_left() == 15


def test_bytes_do_not_push_a_line_s_deadline_on(clock: Clock) -> None:
    client = Client(Limits(single=50, line=20, preauth=600))
    for _ in range(19):
        client.line_begun(True)
        clock.now += 1
    assert client.seconds_left() == 1
    clock.now += 1
    with pytest.raises(ClientTimeout):
        client.seconds_left()


def test_next_line_has_its_own_time(clock: Clock) -> None:
    client = Client(Limits(single=50, line=20, preauth=600))
    client.line_begun(True)
    clock.now += 15
    client.line_ended()
    client.line_begun(True)
    assert client.seconds_left() == 20


def test_idle_client_has_the_single_limit_only(clock: Clock) -> None:
    client = Client(Limits(single=50, line=20, preauth=600))
    client.line_begun(False)
    assert client.seconds_left() == 50


def test_commands_do_not_push_the_end_of_everything_on(clock: Clock) -> None:
    client = Client(Limits(single=50, line=20, preauth=60))
    for _ in range(59):
        client.line_begun(True)
        clock.now += 1
        client.line_ended()
    assert client.seconds_left() == 1
    clock.now += 1
    with pytest.raises(ClientTimeout):
        client.seconds_left()


@contextmanager
def pipes() -> Iterator[tuple[int, int]]:
    """Pipes on 0 and 1, as TLS leaves them: what the client's side reads and writes."""
    saved = os.dup(0), os.dup(1)
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    os.dup2(in_read, 0)
    os.dup2(out_write, 1)
    os.close(in_read)
    os.close(out_write)
    try:
        yield out_read, in_write
    finally:
        for number, descriptor in enumerate(saved):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.close(out_read)
        os.close(in_write)


def test_pipes_are_as_good_as_a_socket() -> None:
    with pipes() as (reading, writing):
        client = Client(Limits(20))
        os.write(writing, b"hello")
        assert client.read() == b"hello"
        client.write(b"x" * 10000)
        assert os.read(reading, 20000) == b"x" * 10000
        os.dup2(0, writing)  # no writer is left
        assert client.read() == b""
        client.see_off()
        os.dup2(1, reading)  # no reader is left
        with pytest.raises(ClientGone):
            client.write(b"x")
        client.last_words(b"x")


def test_silence_is_a_timeout() -> None:
    with pipes(), pytest.raises(ClientTimeout):
        Client(Limits(0)).read()


def test_reader_that_does_not_read_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    with pipes():
        client = Client(Limits(20))
        client.write(b"x" * 65536)  # a pipe's worth
        monkeypatch.setattr(client, "seconds_left", lambda: 0.01)
        with pytest.raises(ClientTimeout):
            client.write(b"x")
        client.last_words(b"never waits")


def test_non_blocking_descriptors_work_as_well() -> None:
    with pipes() as (reading, writing):
        os.set_blocking(0, False)
        os.set_blocking(1, False)
        client = Client(Limits(20))
        os.write(writing, b"hello")
        assert client.read() == b"hello"
        client.write(b"hello")
        assert os.read(reading, 9) == b"hello"
