"""Base64 and what is inside: one meaning per line, or none."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptutils.authup.credentials import (
    Credentials,
    Malformed,
    Secret,
    decode_base64,
    decode_plain,
    decode_word,
)


def encoded(raw: bytes) -> bytes:
    return base64.b64encode(raw)


@given(st.binary(min_size=1, max_size=100))
def test_base64_of_anything_is_taken(raw: bytes) -> None:
    assert decode_base64(encoded(raw)) == raw


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"=",
        b"==",
        b"====",
        b"A",
        b"AA",
        b"AAA",
        b"YQ",
        b"YQ=",
        b"YQ===",
        b"YQ==YQ==",
        b"=YQ=",
        b"Y=Q=",
        b"YR==",  # bits that no encoder sets
        b" YQ==",
        b"YQ== ",
        b"Y Q==",
        b"YQ\t==",
        b"YQ==\r",
        b"YQ-_",
        b"YQ==*",
        b"*",
        b"\xff\xfe\xfd\xfc",
        b"AGEAYg==AGEAYw==",
    ],
)
def test_odd_base64_is_malformed(text: bytes) -> None:
    with pytest.raises(Malformed):
        decode_base64(text)


@given(st.binary(max_size=40))
def test_whatever_is_taken_encodes_back_to_itself(text: bytes) -> None:
    try:
        decoded = decode_base64(text)
    except Malformed:
        return
    assert encoded(decoded) == text


@pytest.mark.parametrize(
    ("raw", "user", "password"),
    [
        (b"\0alice\0secret", b"alice", b"secret"),
        (b"root\0alice\0secret", b"alice", b"secret"),
        (b"\0al ice\0se cret ", b"al ice", b"se cret "),
        (b"\0a%b\0p%s", b"a%b", b"p%s"),
        ("\0jürgen\0geheim€".encode(), "jürgen".encode(), "geheim€".encode()),
        (b"\0\xff\0\xfe", b"\xff", b"\xfe"),
    ],
)
def test_plain_response(raw: bytes, user: bytes, password: bytes) -> None:
    found = decode_plain(encoded(raw))
    assert (found.user, bytes(found.password.reveal()), found.timestamp) == (user, password, b"")


@pytest.mark.parametrize(
    "raw",
    [
        b"alice",
        b"\0alice",
        b"alice\0secret",
        b"\0alice\0",
        b"\0\0secret",
        b"\0\0",
        b"root\0\0secret",
        b"\0alice\0secret\0",  # a password that ends the field and goes on behind it
        b"\0alice\0secret\0x",
        b"\0\0alice\0secret",
    ],
)
def test_plain_response_with_fields_missing_or_too_many(raw: bytes) -> None:
    with pytest.raises(Malformed):
        decode_plain(encoded(raw))


@pytest.mark.parametrize("raw", [b"\0", b"alice\0", b"\0alice", b"al\0ice"])
def test_nul_inside_a_login_word_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        decode_word(encoded(raw))


def test_secret_shows_in_no_repr() -> None:
    found = Credentials(b"alice", Secret(b"swordfish"), b"")
    for text in (repr(found), str(found), f"{found.password}", f"{found.password!r:>20}"):
        assert "swordfish" not in text


def test_secret_can_be_wiped() -> None:
    secret = Secret(b"swordfish")
    seen = secret.reveal()
    secret.wipe()
    assert seen == bytes(9)
