"""The canonical body: RFC 6376's examples, any split, and no long wait for blanks."""

import hashlib
import itertools

import dkim.canonicalization as reference
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyqmail.mailauth.bodyhash import BodyHash

CANONICAL = {True: reference.Relaxed, False: reference.Simple}

lines = st.lists(st.text("ab \t", max_size=6).map(str.encode), max_size=8)
bodies = lines.map(lambda found: b"".join(line + b"\n" for line in found))


def digest(relaxed: bool, *parts: bytes, limit: int | None = None) -> bytes:
    body = BodyHash(relaxed, limit)
    for part in parts:
        body.feed(part)
    return body.digest()


@pytest.mark.parametrize("relaxed", [True, False])
@given(body=bodies, cuts=st.lists(st.integers(0, 60), max_size=4))
def test_any_split_gives_what_dkimpy_makes_of_the_whole(
    relaxed: bool, body: bytes, cuts: list[int]
) -> None:
    places = [0, *sorted(cuts), len(body)]
    parts = [body[a:b] for a, b in itertools.pairwise(places)]
    wire = body.replace(b"\n", b"\r\n")
    wanted = hashlib.sha256(CANONICAL[relaxed].canonicalize_body(wire)).digest()
    assert digest(relaxed, *parts) == wanted
    places = [0, *sorted(cuts), len(wire)]
    parts = [wire[a:b] for a, b in itertools.pairwise(places)]
    assert digest(relaxed, *parts) == wanted


@pytest.mark.parametrize("relaxed", [True, False])
@given(body=bodies, limit=st.integers(0, 40))
def test_a_limit_counts_canonical_bytes(relaxed: bool, body: bytes, limit: int) -> None:
    whole = CANONICAL[relaxed].canonicalize_body(body.replace(b"\n", b"\r\n"))
    limited = BodyHash(relaxed, limit)
    limited.feed(body)
    assert limited.digest() == hashlib.sha256(whole[:limit]).digest()
    assert limited.size == len(whole)


def test_an_empty_body() -> None:
    """RFC 6376, 3.4.3 and 3.4.4 give these two hashes."""
    import base64

    assert base64.b64encode(digest(False)) == b"frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY="
    assert base64.b64encode(digest(True)) == b"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


def test_a_last_line_without_its_end_is_ended() -> None:
    assert digest(True, b"a ") == digest(True, b"a\n") == digest(True, b"a", b" ", b"\n\n")
    assert digest(False, b"a") == digest(False, b"a\r\n")


def test_a_line_of_a_megabyte_of_blanks_takes_no_longer_than_another() -> None:
    """A regular expression for blanks at a line's end needs the square of their number."""
    blanks = b" " * (1 << 20) + b"x\n"
    assert digest(True, blanks * 4) == digest(True, b" x\n" * 4)
    assert digest(True, b"\n" * (1 << 20)) == digest(True)
