"""The end of a message, and the look-alikes of it."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from acceptutils.fixsmtpio.message import Scanner, Verdict


def feed(*chunks: bytes, bare_lf: bool = False) -> tuple[bytes, Verdict, bytes]:
    """Return all that was passed on, the last verdict, and what followed the end."""
    scanner = Scanner(bare_lf)
    passed, verdict, rest = b"", Verdict.MORE, b""
    for number, chunk in enumerate(chunks):
        part, verdict, rest = scanner.feed(chunk)
        passed += part
        if verdict is Verdict.END:
            return passed, verdict, rest + b"".join(chunks[number + 1 :])
        if verdict is not Verdict.MORE:
            break
    return passed, verdict, rest


LOOKALIKES = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\n.\r",
    b"\r.\n",
    b"\r.\r\n",
    b"\r.\r",
    b"\r\n.\r",
    b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
    b"\r\r\n.\r\n",
]


@pytest.mark.parametrize("lookalike", LOOKALIKES)
def test_lookalike_of_the_end_is_refused(lookalike: bytes) -> None:
    passed, verdict, _ = feed(b"text" + lookalike + b"MAIL FROM:<smuggler@example.org>\r\n.\r\n")
    assert verdict is Verdict.BARE
    assert not passed.endswith(b"\r\n.\r\n")
    assert b"MAIL" not in passed


@pytest.mark.parametrize("nul", [b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n\0\0.\0\r\n"])
def test_nul_in_place_of_an_end_is_refused(nul: bytes) -> None:
    passed, verdict, _ = feed(b"text" + nul + b"MAIL\r\n.\r\n")
    assert verdict is Verdict.NUL
    assert b"MAIL" not in passed


def test_nul_elsewhere_is_data() -> None:
    message = b"a\0b\0\r\nx\0.\r\n.\r\n"
    assert feed(message) == (message, Verdict.END, b"")


def test_what_follows_the_dot_is_not_the_message() -> None:
    assert feed(b"hello\r\n.\r\nQUIT\r\n") == (b"hello\r\n.\r\n", Verdict.END, b"QUIT\r\n")


def test_dot_alone_ends_an_empty_message() -> None:
    assert feed(b".\r\nQUIT\r\n") == (b".\r\n", Verdict.END, b"QUIT\r\n")


def test_a_stuffed_dot_is_no_end() -> None:
    assert feed(b"..\r\n")[1] is Verdict.MORE


def test_dot_without_its_newline_is_kept_back() -> None:
    assert feed(b"text\r\n.\r") == (b"text", Verdict.MORE, b"")


def test_bare_lf_can_be_let_through_but_not_bare_cr() -> None:
    message = b"a\nb\n.\nc\r\n.\r\n"
    assert feed(message, bare_lf=True) == (message, Verdict.END, b"")
    assert feed(b"a\rb\r\n.\r\n", bare_lf=True)[1] is Verdict.BARE


@pytest.mark.parametrize(
    "stream", [b"hello\r\n.\r\nQUIT\r\n", b".\r\nNOOP\r\n", b"a\r\n..\r\n.\r\nX"]
)
def test_the_end_is_found_across_every_split(stream: bytes) -> None:
    whole = feed(stream)
    for cut in range(len(stream) + 1):
        assert feed(stream[:cut], stream[cut:]) == whole
    assert feed(*(stream[at : at + 1] for at in range(len(stream)))) == whole


STREAMS = st.lists(
    st.sampled_from([b"\r\n", b".", b"\r", b"\n", b"\0", b"x", b"text", b"\r\n.\r\n", b"\r\n."]),
    max_size=12,
).map(b"".join)


@example(b"\n\0", [1], True)
@given(STREAMS, st.lists(st.integers(0, 40)), st.booleans())
def test_any_split_gives_the_same_bytes(stream: bytes, cuts: list[int], bare_lf: bool) -> None:
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    chunks = [stream[a:b] for a, b in pairwise(places)]
    assert feed(*chunks, bare_lf=bare_lf) == feed(stream, bare_lf=bare_lf)


@given(STREAMS)
def test_no_server_sees_another_end(stream: bytes) -> None:
    passed, verdict, _ = feed(stream)
    seen = b"\r\n" + passed
    assert seen.count(b"\r") == seen.count(b"\n") == seen.count(b"\r\n")
    assert (b"\r\n.\r\n" in seen) == (verdict is Verdict.END)
    if verdict is Verdict.END:
        assert seen.index(b"\r\n.\r\n") == len(seen) - 5
    # A reader that drops NULs sees the same number of ends.
    assert (b"\r\n.\r\n" in seen.replace(b"\0", b"")) == (verdict is Verdict.END)
