"""The end of a message and the lines in it, for any split of the bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyqmail.smtp.data import Decoder, HopCounter, StrayLineEnd

PIECES = st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"a", b"..", b"\r\n.\r\n", b"\0", b"xyz"]),
    max_size=24,
)
SPLITS = st.lists(st.integers(1, 5), max_size=40)


def reference(data: bytes) -> tuple[str, bytes, bytes]:
    """Decode byte by byte, as RFC 5321 says: outcome, message, rest."""
    message = b""
    line = b""
    position = 0
    while position < len(data):
        code = data[position : position + 1]
        if code == b"\n":
            return "stray", message, b""
        if code != b"\r":
            line += code
            position += 1
            continue
        if position + 1 == len(data):
            break
        if data[position + 1 : position + 2] != b"\n":
            return "stray", message, b""
        position += 2
        if line == b".":
            return "end", message, data[position:]
        message += line.removeprefix(b".") + b"\n"
        line = b""
    return "open", message, b""


def decode(data: bytes, sizes: list[int]) -> tuple[str, bytes, bytes]:
    decoder = Decoder()
    message = b""
    sizes = list(sizes)
    try:
        while data and decoder.rest is None:
            size = sizes.pop() if sizes else len(data)
            message += decoder.feed(data[:size])
            data = data[size:]
    except StrayLineEnd:
        return "stray", message, b""
    if decoder.rest is None:
        return "open", message, b""
    return "end", message, decoder.rest + data


@given(PIECES, SPLITS)
def test_decoder_agrees_with_the_rfc(pieces: list[bytes], sizes: list[int]) -> None:
    data = b"".join(pieces)
    outcome, message, rest = decode(data, sizes)
    expected, whole, after = reference(data)
    assert outcome == expected
    if outcome == "end":
        assert (message, rest) == (whole, after)
    if outcome == "open":
        assert (message + b"\n").startswith(whole)  # the last line end may be held back


@given(PIECES, SPLITS)
def test_hops_do_not_depend_on_the_split(pieces: list[bytes], sizes: list[int]) -> None:
    words = [b"Received: x\n", b"\n", b"delivered", b"X-Received:\n", b"received", b"y"]
    text = b"".join(words[sum(piece) % len(words)] for piece in pieces) + b"\n"
    header = (b"\n" + text).split(b"\n\n")[0].lower()
    counter = HopCounter()
    sizes = list(sizes)
    while text:
        size = sizes.pop() if sizes else len(text)
        counter.feed(text[:size])
        text = text[size:]
    lines = header.split(b"\n")[1:]
    assert counter.hops == sum(line.startswith((b"received", b"delivered")) for line in lines)


@pytest.mark.parametrize("offset", range(1, 5))
def test_the_end_split_at_every_offset(offset: int) -> None:
    end = b"\r\n.\r\n"
    decoder = Decoder()
    assert decoder.feed(b"x" + end[:offset]) == b"x"
    assert decoder.feed(end[offset:] + b"QUIT") == b"\n"
    assert decoder.rest == b"QUIT"


def test_bytes_of_all_values_are_kept() -> None:
    line = bytes(code for code in range(256) if code not in b"\r\n")
    assert Decoder().feed(line + b"\r\n.\r\n") == line + b"\n"
