"""Lines: whole, bounded, and the same however the bytes arrive."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptutils.authup.lines import AUTH_LIMIT, COMMAND_LIMIT, LineReader, LineTooLong


def limit(_: bytes) -> int:
    return 20


def take_all(reader: LineReader) -> list[bytes]:
    lines = []
    while (line := reader.take(limit)) is not None:
        lines.append(line)
    return lines


def test_line_end_is_crlf_or_lf() -> None:
    reader = LineReader()
    reader.feed(b"one\r\ntwo\n\r\nfour\r\r\n")
    assert take_all(reader) == [b"one", b"two", b"", b"four\r"]


def test_partial_line_waits() -> None:
    reader = LineReader()
    reader.feed(b"QUI")
    assert reader.take(limit) is None
    assert len(reader) == 3
    reader.feed(b"T\r\nrest")
    assert reader.take(limit) == b"QUIT"
    assert reader.take(limit) is None
    assert len(reader) == 4


def test_longest_line_passes_and_one_byte_more_does_not() -> None:
    reader = LineReader()
    reader.feed(b"x" * 18 + b"\r\n")
    assert reader.take(limit) == b"x" * 18
    reader.feed(b"x" * 19 + b"\r\n")
    with pytest.raises(LineTooLong):
        reader.take(limit)


def test_line_without_end_is_refused_as_soon_as_it_is_too_long() -> None:
    reader = LineReader()
    reader.feed(b"x" * 20)
    assert reader.take(limit) is None
    reader.feed(b"x")
    with pytest.raises(LineTooLong):
        reader.take(limit)


def test_long_line_behind_short_ones_does_not_swallow_them() -> None:
    reader = LineReader()
    reader.feed(b"a\nb\n" + b"x" * 30)
    assert [reader.take(limit), reader.take(limit)] == [b"a", b"b"]
    with pytest.raises(LineTooLong):
        reader.take(limit)


@pytest.mark.parametrize("data", [b"a\0b\r\n", b"a\0", b"\0"])
def test_nul_is_refused_with_and_without_line_end(data: bytes) -> None:
    reader = LineReader()
    reader.feed(data)
    with pytest.raises(LineTooLong):
        reader.take(limit)


def test_nul_in_the_next_line_does_not_spoil_this_one() -> None:
    reader = LineReader()
    reader.feed(b"ok\n\0")
    assert reader.take(limit) == b"ok"
    with pytest.raises(LineTooLong):
        reader.take(limit)


def test_forget_drops_whole_and_partial_lines() -> None:
    reader = LineReader()
    reader.feed(b"partial")
    assert reader.take(limit) is None
    reader.feed(b" NOOP\r\nQUIT\r\n")
    reader.forget()
    assert reader.take(limit) is None
    reader.feed(b"NOOP\r\n")
    assert reader.take(limit) == b"NOOP"


def test_limits_hold_what_the_rfcs_ask_for() -> None:
    assert COMMAND_LIMIT >= 512  # RFC 5321, 4.5.3.1.4
    assert 12288 + len(b"AUTH PLAIN \r\n") <= AUTH_LIMIT  # RFC 4954, 4


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_any_split_gives_the_same_lines(data: bytes, cuts: list[int]) -> None:
    def outcome(pieces: list[bytes]) -> tuple[list[bytes], bool]:
        reader, lines = LineReader(), []
        try:
            for piece in pieces:
                reader.feed(piece)
                while (line := reader.take(limit)) is not None:
                    lines.append(line)
        except LineTooLong:
            return lines, True
        return lines, False

    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    assert outcome(pieces) == outcome([data])
