"""Addresses in MAIL and RCPT, and our own IP addresses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyqmail.smtp.address import Path, domain, literal, parse_path
from pyqmail.smtp.localaddress import is_local


@pytest.mark.parametrize(
    ("argument", "address", "parameters"),
    [
        (b"FROM:<a@b>", b"a@b", ()),
        (b"FROM: <a@b>", b"a@b", ()),
        (b"FROM:<>", b"", ()),
        (b"<a@b>", b"a@b", ()),
        (b"FROM:a@b SIZE=3", b"a@b", (b"SIZE=3",)),
        (b"FROM:   a@b", b"a@b", ()),
        (b"FROM", b"", ()),
        (b"", b"", ()),
        (b"FROM:<a@b> SIZE=3  BODY=7BIT", b"a@b", (b"SIZE=3", b"BODY=7BIT")),
        (b"FROM:<a@b>SIZE=3", b"a@b", (b"SIZE=3",)),
        (b"FROM:<@one,@two:a@b>", b"a@b", ()),
        (b"FROM:@one:a@b", b"a@b", ()),
        (b"FROM:<@nowhere>", b"", ()),
        (b'FROM:<"a b"@c>', b"a b@c", ()),
        (b'FROM:<"a>b"@c> X', b"a>b@c", (b"X",)),
        (b'FROM:<"a\\"b"@c>', b'a"b@c', ()),
        (b"FROM:<a\\>b@c>", b"a>b@c", ()),
        (b"FROM:<a\\ b@c>", b"a b@c", ()),
        (b"FROM:<a@b", b"a@b", ()),
        (b"FROM:<a@b@c>", b"a@b@c", ()),
        (b"FROM:<\xc3\xa4@b>", b"\xc3\xa4@b", ()),
    ],
)
def test_parse_path(argument: bytes, address: bytes, parameters: tuple[bytes, ...]) -> None:
    assert parse_path(argument) == Path(address, parameters)


@pytest.mark.parametrize(
    "argument",
    [b"FROM:<a\tb@c>", b"FROM:<a\x7f@c>", b"FROM:<a\r@c>", b"FROM:<" + b"x" * 901 + b">"],
)
def test_refused_addresses(argument: bytes) -> None:
    assert parse_path(argument) is None


@given(st.binary(max_size=60))
def test_any_argument_gives_an_address_or_a_refusal(argument: bytes) -> None:
    path = parse_path(argument)
    assert path is None or not any(code < 32 for code in path.address)


def test_domain() -> None:
    assert domain(b"a@b@c") == b"c"
    assert domain(b"a") is None
    assert domain(b"") is None


def test_literal() -> None:
    assert literal(b"a@[192.0.2.1]") == b"192.0.2.1"
    assert literal(b"a@[IPv6:::1]") == b"::1"
    assert literal(b"a@[192.0.2.1]x") is None
    assert literal(b"a@b") is None


@pytest.mark.parametrize("address", [b"127.0.0.1", b"0.0.0.0", b"::1"])
def test_own_address(address: bytes) -> None:
    assert is_local(address)


@pytest.mark.parametrize("address", [b"192.0.2.77", b"2001:db8::77", b"", b"x", b"127.1", b"\xff"])
def test_foreign_address(address: bytes) -> None:
    assert not is_local(address)
