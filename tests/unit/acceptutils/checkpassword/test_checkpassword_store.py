"""The account store: its format is read strictly, or not at all."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptutils.checkpassword import store
from acceptutils.checkpassword.store import StoreError
from appliance import store as writer

ARGON2 = (
    "$argon2id$v=19$m=19456,t=2,p=1$Bbc7ATUPgaTWtPPxkLZWtw"
    "$agIJmeSlJYWtmgYbwhOksHi8oyt0NE8zSZoQviR4ISk"
)
YESCRYPT = "$y$j9T$abcdefgh$9WNEpu8Mx2S4KNGvbVWKM6clOSoY6.YEl7AYF4DGV04"

GOOD: dict[str, Any] = {
    "version": 1,
    "next_uid": 20002,
    "domains": ["example.org"],
    "accounts": {
        "alice@example.org": {
            "uid": 20000,
            "gid": 20000,
            "home": "/home/example.org/alice",
            "hash": ARGON2,
            "state": "enabled",
            "quota": 0,
        },
        "bob@example.org": {
            "uid": 20001,
            "gid": 20000,
            "home": "/home/example.org/bob",
            "hash": YESCRYPT,
            "state": "send-only",
        },
    },
    "aliases": {"info@example.org": ["alice@example.org", "else@elsewhere.example"]},
}


def parse(value: object) -> store.Accounts:
    return store.parse(json.dumps(value).encode())


def test_store() -> None:
    accounts = parse(GOOD)
    alice = accounts.find(b"alice@example.org")
    assert alice is not None
    assert alice.identity() == (
        "alice@example.org",
        20000,
        20000,
        "/home/example.org/alice",
        "/bin/false",
    )
    assert accounts.domains == ("example.org",)


def test_what_postern_writes_can_be_read() -> None:
    written = writer.Store(
        domains=("example.org", "example.com"),
        accounts={
            "a.b_c+d=e-f@example.org": writer.Account(
                20000, 20000, "/home/example.org/a.b_c+d=e-f", ARGON2, "receive-only", 10**12
            )
        },
        aliases={"info@example.com": ("a.b_c+d=e-f@example.org",)},
        next_uid=20001,
    )
    found = store.parse(writer.encode(written)).find(b"A.B_C+D=E-F@example.org")
    assert found is not None
    assert (found.uid, found.state, found.hash) == (20000, "receive-only", ARGON2)
    assert store.parse(writer.encode(writer.Store())).by_name == {}


def test_empty_store() -> None:
    assert parse({"version": 1, "domains": [], "accounts": {}}).by_name == {}


@pytest.mark.parametrize(
    "login",
    [b"alice@example.org", b"Alice@Example.ORG", b"alice", b"ALICE"],
)
def test_login_names_of_one_account(login: bytes) -> None:
    found = parse(GOOD).find(login)
    assert found is not None
    assert found.name == "alice@example.org"


@pytest.mark.parametrize(
    "login",
    [
        b"",
        b"carol",
        b"alice@",
        b"@example.org",
        b"alice@example.com",
        b"alice@example.org ",
        b"alice@example.org@example.org",
        b"info@example.org",
        "alıce@example.org".encode(),
        "\N{KELVIN SIGN}ate".encode(),
        b"\xff",
    ],
)
def test_login_names_of_nobody(login: bytes) -> None:
    assert parse(GOOD).find(login) is None


@pytest.mark.parametrize("domains", [[], ["example.org", "example.com"]])
def test_bare_local_part_needs_one_domain(domains: list[str]) -> None:
    value = copy.deepcopy(GOOD)
    value["domains"] = domains
    if not domains:
        value["accounts"] = value["aliases"] = {}
    assert parse(value).find(b"alice") is None


@pytest.mark.parametrize(
    ("state", "submission", "pop3", "other"),
    [
        ("enabled", True, True, True),
        ("send-only", True, False, False),
        ("receive-only", False, True, False),
        ("disabled", False, False, False),
    ],
)
def test_state_says_which_service(state: str, submission: bool, pop3: bool, other: bool) -> None:
    value = copy.deepcopy(GOOD)
    value["accounts"]["alice@example.org"]["state"] = state
    alice = parse(value).find(b"alice")
    assert alice is not None
    assert alice.allows(b"submission") is submission
    assert alice.allows(b"pop3") is pop3
    assert alice.allows(b"") is other
    assert alice.allows(b"imap") is other


ALICE = ("accounts", "alice@example.org")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 2),
        (("version",), "1"),
        (("version",), True),
        (("next_uid",), "20000"),
        (("next_uid",), 0),
        (("extra",), 1),
        (("domains",), "example.org"),
        (("domains",), [1]),
        (("domains",), ["Example.org"]),
        (("domains",), ["example.org", "example.org"]),
        (("domains",), ["example.org", "exa mple"]),
        (("domains",), ["example.org", "../etc"]),
        (("domains",), ["example.com"]),
        (("accounts",), []),
        (("accounts", "alice"), GOOD["accounts"]["alice@example.org"]),
        (("accounts", "Carol@example.org"), GOOD["accounts"]["alice@example.org"]),
        (("accounts", "a/../b\n@example.org"), GOOD["accounts"]["alice@example.org"]),
        (("accounts", "carol@example.org"), GOOD["accounts"]["alice@example.org"]),  # uid taken
        (ALICE, None),
        ((*ALICE, "uid"), 0),
        ((*ALICE, "uid"), 999),
        ((*ALICE, "uid"), 7796),
        ((*ALICE, "gid"), 2107),
        ((*ALICE, "uid"), -1),
        ((*ALICE, "uid"), 2**31),
        ((*ALICE, "uid"), True),
        ((*ALICE, "uid"), "20000"),
        ((*ALICE, "uid"), 20000.0),
        ((*ALICE, "gid"), 0),
        ((*ALICE, "home"), "home/alice"),
        ((*ALICE, "home"), "/home/../etc"),
        ((*ALICE, "home"), "/home//alice"),
        ((*ALICE, "home"), "/home/a\0b"),
        ((*ALICE, "home"), "/"),
        ((*ALICE, "home"), 1),
        ((*ALICE, "hash"), ""),
        ((*ALICE, "hash"), "two words"),
        ((*ALICE, "hash"), "x" * 513),
        ((*ALICE, "hash"), ARGON2 + "\n"),
        ((*ALICE, "hash"), None),
        ((*ALICE, "state"), "Enabled"),
        ((*ALICE, "state"), None),
        ((*ALICE, "quota"), -1),
        ((*ALICE, "quota"), "1G"),
        ((*ALICE, "shell"), "/bin/sh"),
        (("aliases",), []),
        (("aliases", "info@example.com"), []),
        (("aliases", "info@example.org"), "alice@example.org"),
    ],
)
def test_anything_wrong_makes_it_no_store(path: tuple[str, ...], value: object) -> None:
    broken = copy.deepcopy(GOOD)
    place = broken
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(StoreError) as caught:
        parse(broken)
    assert "agIJmeSl" not in str(caught.value)


@pytest.mark.parametrize("name", ["version", "domains", "accounts"])
def test_missing_part(name: str) -> None:
    with pytest.raises(StoreError, match=name):
        parse({key: value for key, value in GOOD.items() if key != name})


@pytest.mark.parametrize("name", ["uid", "gid", "home", "hash", "state"])
def test_missing_field(name: str) -> None:
    broken = copy.deepcopy(GOOD)
    del broken["accounts"]["alice@example.org"][name]
    with pytest.raises(StoreError, match=f"alice@example.org: {name} is missing"):
        parse(broken)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"version":1,"version":1,"domains":[],"accounts":{}}',
        b'{"version":1,"domains":[],"accounts":{},"accounts":{}}',
        b"[" * 100000,
    ],
)
def test_not_a_store(content: bytes) -> None:
    with pytest.raises(StoreError):
        store.parse(content)


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(content: bytes) -> None:
    with pytest.raises(StoreError):
        store.parse(content)


def test_unreadable_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        store.load(str(tmp_path / "none"))


def test_signature_is_that_of_the_file_that_was_read(tmp_path: Path) -> None:
    path = tmp_path / "accounts.json"
    path.write_text(json.dumps(GOOD))
    accounts, signature = store.load_signed(str(path))
    assert accounts == parse(GOOD)
    assert signature == store.signature_of(os.stat(path))


def test_account_s_repr_hides_the_hash() -> None:
    assert "argon2" not in repr(parse(GOOD))
