"""The queue server's protocol: any split of the bytes gives the same message."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyqmail.queue import wire
from pyqmail.queue.errors import Result

CHUNKS = st.lists(st.binary(max_size=30), max_size=4)


@given(CHUNKS, CHUNKS, st.lists(st.integers(0, 300)))
def test_any_split(message: list[bytes], envelope: list[bytes], cuts: list[int]) -> None:
    data = (
        wire.KIND_PROGRAM
        + b"".join(map(wire.chunk, message))
        + wire.END
        + b"".join(map(wire.chunk, envelope))
        + wire.END
    )
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    reader = wire.FrameReader()
    got_message = got_envelope = b""
    for start, end in itertools.pairwise(edges):
        assert reader.part is not wire.Part.END
        pieces = reader.feed(data[start:end])
        got_message += b"".join(pieces[0])
        got_envelope += b"".join(pieces[1])
    assert reader.part is wire.Part.END
    assert (got_message, got_envelope) == (b"".join(message), b"".join(envelope))
    assert reader.feed(b"more") == ([], [])


def test_an_empty_chunk_is_no_end() -> None:
    assert wire.chunk(b"") == b""


def test_unknown_kind() -> None:
    with pytest.raises(wire.ProtocolError):
        wire.FrameReader().feed(b"X")


def test_reply() -> None:
    assert wire.decode_reply(wire.encode_reply(53, 1 << 40, 7)) == Result(53, 1 << 40)
    with pytest.raises(wire.ProtocolError):
        wire.decode_reply(b"\0")
