"""Envelopes: any split, any content, the forms of qmail-queue and of the queue's files."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyqmail.queue import errors
from pyqmail.queue.envelope import (
    RECIPIENTS_LIMIT,
    EnvelopeError,
    EnvelopeReader,
    Queued,
    decode_todo,
    encode,
    origin,
)

ADDRESS = st.binary(max_size=30).map(lambda address: address.replace(b"\0", b"."))


@given(ADDRESS, st.lists(ADDRESS, max_size=5), st.lists(st.integers(0, 200)))
def test_any_split_gives_the_fields_of_the_queues_file(
    sender: bytes, recipients: list[bytes], cuts: list[int]
) -> None:
    data = b"".join(encode(sender, recipients))
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    reader = EnvelopeReader()
    kept = b""
    for start, end in itertools.pairwise(edges):
        assert not reader.complete
        kept += reader.feed(data[start:end])
    assert reader.complete
    assert kept == data[:-1]
    assert decode_todo(origin(7, 8) + kept) == Queued(7, 8, sender, recipients)


def test_nothing_after_the_end_is_taken() -> None:
    reader = EnvelopeReader()
    assert reader.feed(b"Fa\0Tb\0\0Tc\0") == b"Fa\0Tb\0"
    assert reader.feed(b"Td\0") == b""


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\0", errors.BAD_ENVELOPE),
        (b"T", errors.BAD_ENVELOPE),
        (b"Fa\0F", errors.BAD_ENVELOPE),
        (b"Fa\0Tb\0D", errors.BAD_ENVELOPE),
        (b"F" + b"x" * 1003, errors.TOO_LONG),
        (b"Fa\0T" + b"x" * 1003, errors.TOO_LONG),
        (b"Fa\0T" + b"x" * 1003 + b"\0", errors.TOO_LONG),
    ],
)
def test_malformed_envelopes_are_refused_as_early_as_possible(data: bytes, status: int) -> None:
    with pytest.raises(EnvelopeError) as caught:
        EnvelopeReader().feed(data)
    assert caught.value.status == status


def test_the_longest_address() -> None:
    reader = EnvelopeReader()
    reader.feed(b"F" + b"x" * 1002 + b"\0T" + b"y" * 1002 + b"\0\0")
    assert reader.complete


def test_there_are_as_many_recipients_as_qmail_send_has_memory_for() -> None:
    reader = EnvelopeReader()
    reader.feed(b"Fa\0")
    for _ in range(100):
        reader.feed(b"Tb\0" * (RECIPIENTS_LIMIT // 100))
    with pytest.raises(EnvelopeError) as caught:
        reader.feed(b"Tb\0")
    assert caught.value.status == errors.REFUSED


def test_a_nul_in_an_address_is_refused_before_it_becomes_two() -> None:
    with pytest.raises(EnvelopeError):
        list(encode(b"a", [b"b\0Troot"]))


@pytest.mark.parametrize("content", [b"", b"u1\0p2\0", b"u1\0p2\0Fa\0Xb\0", b"Fa\0\0"])
def test_todo_files_that_make_no_sense(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"no sender|unknown record"):
        decode_todo(content)


def test_todo_files_of_others_are_read_leniently() -> None:
    assert decode_todo(b"Fa\0p-1\0ux\0Tb\0Tcut") == Queued(0, 0, b"a", [b"b"])
