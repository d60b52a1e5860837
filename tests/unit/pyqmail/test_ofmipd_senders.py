"""Who may send as which address."""

from pathlib import Path

import pytest

from pyqmail.ofmipd.senders import Ownership
from ucspi import cdb

MAP = {
    b"alice@x.example": b"alice@x.example",
    b"alice-smith@x.example": b"alice-smith@x.example",
    b"sales@x.example": b"alice@x.example\0bob@x.example",
    b"alice-list@x.example": b"bob@x.example",
}


@pytest.fixture
def senders(tmp_path: Path) -> str:
    """A map of senders."""
    path = str(tmp_path / "senders.cdb")
    cdb.write(path, MAP.items())
    return path


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        (b"alice@x.example", True),
        (b"ALICE@X.example", True),
        (b"alice-shop@x.example", True),
        (b"alice-shop-2@x.example", True),
        (b"sales@x.example", True),
        # Somebody else's account, and what extends it, although alice's name comes first.
        (b"alice-smith@x.example", False),
        (b"alice-smith-shop@x.example", False),
        (b"alice-list@x.example", False),
        (b"alice-list-owner@x.example", False),
        (b"sales-x@x.example", False),
        (b"alicex@x.example", False),
        (b"alice@y.example", False),
        (b"alice-x@y.example", False),
        (b"bob@x.example", False),
        (b"@x.example", False),
        (b"alice", False),
    ],
)
def test_alice_may_send_as_what_is_hers(senders: str, address: bytes, allowed: bool) -> None:
    assert Ownership(b"alice@x.example", senders).holds(address) is allowed


def test_without_a_map_entry_the_login_and_its_extensions_are_its_own(tmp_path: Path) -> None:
    nobody_mapped = Ownership(b"alice@x.example", str(tmp_path / "missing.cdb"))
    assert nobody_mapped.holds(b"alice@x.example")
    assert nobody_mapped.holds(b"alice-shop@x.example")
    assert not nobody_mapped.holds(b"bob@x.example")


def test_without_a_map_everything_goes_as_in_the_original() -> None:
    assert Ownership(b"alice@x.example", None).holds(b"anybody@anywhere.example")


def test_without_a_login_nothing_is_owned(senders: str) -> None:
    assert not Ownership(b"", senders).holds(b"alice@x.example")


def test_an_endless_address_is_nobodys_and_looked_up_nowhere(
    senders: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each dash would be a place to look for an owner at, in a From field of any size."""
    monkeypatch.setattr(cdb, "Reader", None)
    address = b"alice" + b"-" * 100_000 + b"@x.example"
    assert not Ownership(b"alice@x.example", senders).holds(address)


def test_a_login_with_a_line_end_in_it_owns_nothing(senders: str) -> None:
    login = b"alice\nFrom: bob@x.example"
    assert not Ownership(login, senders).holds(login)
    assert Ownership(login, senders).login == b""
