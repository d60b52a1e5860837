"""The buffers of a dialogue: lines, chunks, replies that wait, deadlines."""

from collections.abc import Generator
from typing import TypeVar

import pytest

from ucspi.dialogue import OUTPUT_LIMIT, LineTooLong, Talk, Wait

T = TypeVar("T")


def hold(step: Generator[Wait, bytes, T], *pieces: bytes) -> tuple[T, list[Wait]]:
    """Feed pieces to a step; return its result and what it waited for."""
    waits = []
    left = list(pieces)
    try:
        waits.append(next(step))
        while True:
            assert left, "it waits for more"
            waits.append(step.send(left.pop(0)))
    except StopIteration as end:
        assert not left
        result: T = end.value
        return result, waits


def test_lines_and_chunks() -> None:
    talk = Talk(10)
    assert hold(talk.line(100), b"one\r\ntwo\nthree\rfour\r\nrest")[0] == b"one"
    assert [hold(talk.line(100))[0] for _ in range(2)] == [b"two", b"three\rfour"]
    assert hold(talk.chunk())[0] == b"rest"
    talk.unread(b"back")
    assert hold(talk.chunk())[0] == b"back"
    assert hold(talk.chunk(), b"new")[0] == b"new"


def test_a_line_may_come_byte_by_byte() -> None:
    line, waits = hold(Talk(10).line(100), *(bytes([byte]) for byte in b"slow\r\n"))
    assert line == b"slow"
    assert len(waits) == 6


def test_replies_are_given_out_before_waiting_and_once() -> None:
    talk = Talk(10)
    talk.say(b"a")
    talk.say(b"b")
    _, waits = hold(talk.line(100), b"x", b"\n")
    assert [wait.output for wait in waits] == [b"ab", b""]


def test_nothing_is_given_out_while_there_are_lines() -> None:
    talk = Talk(10)
    hold(talk.line(100), b"one\ntwo\n")
    talk.say(b"reply")
    assert hold(talk.line(100)) == (b"two", [])
    assert talk.said() == b"reply"
    assert talk.said() == b""


def test_a_line_has_one_deadline_and_each_chunk_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1
        return now[0]

    monkeypatch.setattr("time.monotonic", clock)
    talk = Talk(10)
    _, waits = hold(talk.line(100), b"x", b"y", b"\n")
    assert {wait.deadline for wait in waits} == {11.0}
    assert [hold(talk.chunk(), b"x")[1][0].deadline for _ in range(2)] == [12.0, 13.0]


def test_line_limit() -> None:
    talk = Talk(10)
    assert hold(talk.line(9), b"12345678\n123456789\n")[0] == b"12345678"
    with pytest.raises(LineTooLong):
        next(talk.line(9))


def test_much_output_is_to_be_flushed_without_reading() -> None:
    talk = Talk(10)
    talk.say(bytes(OUTPUT_LIMIT - 1))
    assert not talk.is_full
    talk.say(b"x")
    assert talk.is_full
    _, waits = hold(talk.flush(), b"")
    assert waits[0].deadline is None
    assert len(waits[0].output) == OUTPUT_LIMIT
    assert not talk.is_full
