"""fnmatch(3) without flags, against a table and against the C library itself."""

import ctypes
import ctypes.util
import locale
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acceptutils.fixsmtpio.glob import CLASSES, Glob

MATCHING = [
    (b"*", b""),
    (b"*", b"250-anything / at all"),
    (b"2*", b"250 ok"),
    (b"250?AUTH*", b"250-AUTH LOGIN PLAIN"),
    (b"250?AUTH*", b"250 AUTH=LOGIN"),
    (b"*/*", b"a/b"),
    (b"?hidden", b".hidden"),
    (b"*hidden", b".hidden"),
    (b"[.]x", b".x"),
    (b"[a-c]x", b"bx"),
    (b"[!a-c]x", b"dx"),
    (b"[^a-c]x", b"dx"),
    (b"[]a]", b"]"),
    (b"[!]a]", b"b"),
    (b"[a-]", b"-"),
    (b"[-a]", b"-"),
    (b"[[:digit:]]*", b"250"),
    (b"[![:digit:]]*", b"x250"),
    (b"[[:digit:][:alpha:]_]", b"_"),
    (b"[\\]]", b"]"),
    (b"\\*", b"*"),
    (b"\\[a]", b"[a]"),
    (b"[a", b"[a"),
    (b"x[", b"x["),
    (b"[[.a.]-c]", b"b"),
    (b"[[=a=]]", b"a"),
    (b"*a*b*c", b"xxaxxbxxc"),
    (b"a*ab", b"aab"),
    (b"*\xe9*", b"caf\xe9 \xff"),
    (b"", b""),
]

DIFFERING = [
    (b"250", b"250 ok"),
    (b"250?AUTH*", b"250AUTH"),
    (b"2*", b""),
    (b"?", b""),
    (b"A*", b"a"),
    (b"[a-c]", b"B"),
    (b"[c-a]", b"b"),
    (b"[!a]", b"a"),
    (b"[[:bogus:]]", b"b"),
    (b"[![:bogus:]]", b"b"),
    (b"trailing\\", b"trailing\\"),
    (b"[a[.b]", b"a"),
    (b"a*ab", b"ab"),
    (b"", b"x"),
]


@pytest.mark.parametrize(("pattern", "text"), MATCHING)
def test_pattern_matches(pattern: bytes, text: bytes) -> None:
    assert Glob(pattern).match(text)


@pytest.mark.parametrize(("pattern", "text"), DIFFERING)
def test_pattern_does_not_match(pattern: bytes, text: bytes) -> None:
    assert not Glob(pattern).match(text)


def test_many_stars_do_not_take_exponential_time() -> None:
    # A matcher that backtracks over every star would not come back from this.
    assert not Glob(b"*a" * 60 + b"b").match(b"a" * 4096)
    assert not Glob(b"*?[a]" * 60 + b"b").match(b"a" * 4096)


@pytest.fixture(scope="module")
def c_fnmatch() -> Iterator[Callable[[bytes, bytes], bool]]:
    library = ctypes.util.find_library("c")
    if library is None:
        pytest.skip("no C library to compare with")
    fnmatch = ctypes.CDLL(library).fnmatch
    before = locale.setlocale(locale.LC_ALL)
    locale.setlocale(locale.LC_ALL, "C")
    yield lambda pattern, text: fnmatch(pattern, text, 0) == 0
    locale.setlocale(locale.LC_ALL, before)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_classes_have_the_members_that_c_gives_them(
    name: bytes, c_fnmatch: Callable[[bytes, bytes], bool]
) -> None:
    pattern = b"[[:" + name + b":]]"
    # No NUL: it ends a C string.
    for byte in range(1, 256):
        text = bytes([byte])
        assert Glob(pattern).match(text) == c_fnmatch(pattern, text), text


SETS = st.lists(
    st.sampled_from(
        [b"a", b"z", b"5", b".", b"a-c", b"0-9", b"z-a", b"\\]", b"\\-", b"[:alpha:]"]
        + [b"[:digit:]", b"[=a=]", b"[.b.]", b"\xff", b"*", b"?"]
    ),
    min_size=1,
    max_size=4,
).map(b"".join)

TOKENS = st.one_of(
    st.sampled_from([b"*", b"?", b"a", b"b", b".", b"/", b"\\*", b"\\a", b"[", b"]", b"\xff"]),
    SETS.map(lambda inner: b"[" + inner + b"]"),
    SETS.map(lambda inner: b"[!" + inner + b"]"),
    SETS.map(lambda inner: b"[^]" + inner + b"]"),
)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(TOKENS, max_size=6).map(b"".join),
    st.lists(st.sampled_from(list(b"abcz59.]-[/*\xff")), max_size=6).map(bytes),
)
def test_agrees_with_the_c_library(
    c_fnmatch: Callable[[bytes, bytes], bool], pattern: bytes, text: bytes
) -> None:
    assert Glob(pattern).match(text) == c_fnmatch(pattern, text)
