"""SRS addresses: made as others make them, turned back only when they are ours and fresh.

The expected addresses were made with the reference implementation, Mail::SRS 0.31.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyqmail import srs
from pyqmail.srs import Scheme, SrsError

NOW = 1_700_000_000
DOMAIN = b"our.example"

VECTORS = [
    (4, b"user@example.com", b"SRS0=X/82=G3=example.com=user"),
    (8, b"user@example.com", b"SRS0=X/82O8VL=G3=example.com=user"),
    (
        4,
        b"User.Name+tag@Sub.Example.COM",
        b"SRS0=bDjD=G3=Sub.Example.COM=User.Name+tag",
    ),
    (
        4,
        b"SRS0=abcd=XY=orig.example=who@fwd.example",
        b"SRS1=J0xo=fwd.example==abcd=XY=orig.example=who",
    ),
    (
        8,
        b"SRS0+abcd=XY=orig.example=who@fwd.example",
        b"SRS1=I9Kp+HyO=fwd.example=+abcd=XY=orig.example=who",
    ),
    (
        4,
        b"SRS1=zzzz=first.example==abcd=XY=orig.example=who@second.example",
        b"SRS1=ptnW=first.example==abcd=XY=orig.example=who",
    ),
]


@pytest.fixture
def scheme() -> Scheme:
    return Scheme(DOMAIN, [b"secret", b"older"])


@pytest.mark.parametrize(("length", "sender", "box"), VECTORS)
def test_addresses_are_those_of_the_reference(length: int, sender: bytes, box: bytes) -> None:
    scheme = Scheme(DOMAIN, [b"secret"], hash_length=length)
    assert scheme.forward(sender, NOW) == box + b"@" + DOMAIN


@pytest.mark.parametrize(
    ("sender", "back"),
    [
        (b"user@example.com", b"user@example.com"),
        (b"a=b=c@example.com", b"a=b=c@example.com"),
        (b'"odd box"@example.com', b'"odd box"@example.com'),
        (b"SRS0=a=b=c.d=e@first.example", b"SRS0=a=b=c.d=e@first.example"),
        (b"SRS0+a=b=c.d=e@first.example", b"SRS0+a=b=c.d=e@first.example"),
        (b"SRS1=h=first.example==a=b=c.d=e@second.example", b"SRS0=a=b=c.d=e@first.example"),
    ],
)
def test_there_and_back(scheme: Scheme, sender: bytes, back: bytes) -> None:
    made = scheme.forward(sender, NOW)
    assert made != sender and scheme.is_ours(made)
    assert scheme.reverse(made, NOW) == back
    assert scheme.reverse(made.lower(), NOW).lower() == back.lower()
    assert scheme.reverse(made.replace(b"our.example", b"OUR.example"), NOW) == back


@given(
    box=st.binary(min_size=1, max_size=60).filter(lambda b: not b.upper().startswith(b"SRS")),
    host=st.from_regex(rb"[a-z0-9]{1,20}(\.[a-z0-9]{1,20}){0,3}", fullmatch=True),
)
def test_any_sender_comes_back(box: bytes, host: bytes) -> None:
    scheme = Scheme(DOMAIN, [b"secret"])
    assert scheme.reverse(scheme.forward(box + b"@" + host, NOW), NOW) == box + b"@" + host


@pytest.mark.parametrize(
    "sender",
    [b"", b"nohost", b"@host", b"user@", b"u@a b", b"SRS1=x@h", b"u" * 900 + b"@h.example"],
)
def test_sender_that_cannot_be_rewritten_is_left_alone(scheme: Scheme, sender: bytes) -> None:
    assert scheme.forward(sender, NOW) == sender


def test_every_part_is_protected(scheme: Scheme) -> None:
    made = scheme.forward(b"user@example.com", NOW)
    box = made.partition(b"@")[0]
    parts = box.split(b"=")
    for number in range(1, len(parts)):
        other = [*parts]
        other[number] = b"AA" if number == 2 else other[number][:-1] + b"!"
        with pytest.raises(SrsError):
            scheme.reverse(b"=".join(other) + b"@" + DOMAIN, NOW)


def test_srs1_is_protected(scheme: Scheme) -> None:
    made = scheme.forward(b"SRS0=a=b=c.d=e@first.example", NOW)
    for change in ((b"first", b"other"), (b"=e@", b"=f@"), (b"SRS1=", b"SRS1=x")):
        with pytest.raises(SrsError):
            scheme.reverse(made.replace(*change), NOW)


@pytest.mark.parametrize(
    "address",
    [
        b"user@our.example",
        b"SRS0@our.example",
        b"SRS0=@our.example",
        b"SRS0=a=b@our.example",
        b"SRS0====@our.example",
        b"SRS1=a=b@our.example",
        b"SRS2=a=b=c=d@our.example",
        b"SRS0=X/82=G3=example.com=user@their.example",
        b"SRS0=\xff\xff=G3=example.com=user@our.example",
    ],
)
def test_nothing_else_is_turned_back(scheme: Scheme, address: bytes) -> None:
    with pytest.raises(SrsError):
        scheme.reverse(address, NOW)


def test_shorter_hash_is_no_hash(scheme: Scheme) -> None:
    for length in (0, 1, 4, 5, 7):
        made = Scheme(DOMAIN, [b"secret"], hash_length=length).forward(b"user@example.com", NOW)
        with pytest.raises(SrsError):
            scheme.reverse(made, NOW)


def test_replaced_secret_is_accepted_and_no_longer_used(scheme: Scheme) -> None:
    before = Scheme(DOMAIN, [b"older"]).forward(b"user@example.com", NOW)
    assert scheme.reverse(before, NOW) == b"user@example.com"
    assert scheme.forward(b"user@example.com", NOW) != before
    with pytest.raises(SrsError, match="forged"):
        Scheme(DOMAIN, [b"newest", b"secret"]).reverse(before, NOW)


def test_no_secret_is_an_error() -> None:
    with pytest.raises(ValueError, match="no secret"):
        Scheme(DOMAIN, [])


def test_address_expires(scheme: Scheme) -> None:
    made = scheme.forward(b"user@example.com", NOW)
    assert scheme.reverse(made, NOW + srs.MAX_AGE * srs.DAY) == b"user@example.com"
    with pytest.raises(SrsError, match="expired"):
        scheme.reverse(made, NOW + (srs.MAX_AGE + 1) * srs.DAY)


def test_address_of_tomorrow_is_none(scheme: Scheme) -> None:
    with pytest.raises(SrsError, match="expired"):
        scheme.reverse(scheme.forward(b"user@example.com", NOW + srs.DAY), NOW)


def test_timestamp_goes_round() -> None:
    end = srs.PERIOD * srs.DAY
    assert (srs.timestamp(end - 1), srs.timestamp(end)) == (b"77", b"AA")
    assert srs.age(b"77", end) == 1
