"""The store: what is written is read back, and a damaged one is never half believed."""

import json
import os
from typing import Any

import pytest

from appliance import store
from appliance.layout import CHECKPW, Layout
from appliance.store import Account, Store, StoreError

HASH = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaA"
ALICE = Account(20000, 20000, "/home/example.org/alice", HASH)
FULL = Store(
    ("example.net", "example.org"),
    {"alice@example.org": ALICE},
    {"info@example.org": ("alice@example.org", "bob@elsewhere.example")},
    20001,
)


def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(store.encode(FULL))
    return found


def test_format_is_the_documented_one() -> None:
    assert document() == {
        "version": 1,
        "next_uid": 20001,
        "domains": ["example.net", "example.org"],
        "accounts": {
            "alice@example.org": {
                "uid": 20000,
                "gid": 20000,
                "home": "/home/example.org/alice",
                "hash": HASH,
                "state": "enabled",
                "quota": 0,
            }
        },
        "aliases": {"info@example.org": ["alice@example.org", "bob@elsewhere.example"]},
    }


def test_written_is_read_back() -> None:
    assert store.parse(store.encode(FULL)) == FULL


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b'{"version": 2}'])
def test_what_is_no_store_is_refused(content: bytes) -> None:
    with pytest.raises(StoreError):
        store.parse(content)


def account(**fields: Any) -> dict[str, Any]:
    return {"accounts": {"alice@example.org": document()["accounts"]["alice@example.org"] | fields}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"version": 2}, "not version 1"),
        ({"more": 1}, "its keys"),
        ({"domains": {}}, "domains"),
        ({"domains": ["Example.org"]}, "lower-case"),
        ({"domains": ["-"]}, "no domain name"),
        ({"domains": ["example.net"]}, "not among the domains"),
        ({"next_uid": "20001"}, "next_uid"),
        ({"next_uid": 20000}, "next_uid is in use"),
        ({"next_uid": 0}, "next_uid"),
        ({"accounts": []}, "accounts"),
        ({"accounts": {"alice": {}}}, "no @"),
        ({"accounts": {"../x@example.org": {}}}, "account"),
        ({"accounts": {"alice@example.org": []}}, "no object"),
        ({"accounts": {"alice@example.org": {}}}, "its keys"),
        (account(uid=0), "out of range"),
        (account(uid=True), "out of range"),
        (account(gid=7790), "out of range"),
        (account(uid=2**31), "out of range"),
        (account(home="/etc"), "home is not"),
        (account(home="/home/example.org/../../root"), "home is not"),
        (account(hash=""), "hash"),
        (account(hash="a b"), "hash"),
        (account(hash="a\nb"), "hash"),
        (account(hash=None), "hash"),
        (account(state="gone"), "state"),
        (account(quota=-1), "quota"),
        (account(quota="1"), "quota"),
        ({"aliases": {"info@example.org": []}}, "no list"),
        ({"aliases": {"info@example.org": "x"}}, "no list"),
        ({"aliases": {"info@example.org": ["|rm -rf /"]}}, "no @"),
        ({"aliases": {"info@example.org": ["Bob@example.org"]}}, "lower-case"),
        ({"aliases": {"alice@example.org": ["bob@example.net"]}}, "both account and alias"),
        ({"aliases": {"info@other.example": ["bob@example.net"]}}, "not among the domains"),
    ],
)
def test_damage_is_refused_and_named(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(StoreError, match=told):
        store.parse(json.dumps(document() | changes).encode())


def test_two_accounts_with_one_uid_are_refused() -> None:
    changed = document()
    bob = changed["accounts"]["alice@example.org"] | {"home": "/home/example.org/bob"}
    changed["accounts"]["bob@example.org"] = bob
    with pytest.raises(StoreError, match="two accounts have one uid"):
        store.parse(json.dumps(changed).encode())


def test_two_addresses_that_qmail_could_not_tell_apart_are_refused() -> None:
    """virtualdomains joins domain and local part with a hyphen, which both may contain."""
    wide = Store(("a.org", "a.org-b.net"), {}, {"x@a.org-b.net": ("b@c.de",)}, 20000)
    store.check(wide)
    with pytest.raises(StoreError, match="same to qmail"):
        store.check(Store(wide.domains, {}, {**wide.aliases, "b.net-x@a.org": ("b@c.de",)}, 20000))


def test_missing_store_is_an_empty_one(places: Layout) -> None:
    assert store.load(places) == Store()


def test_saved_for_root_and_the_verifier_only(places: Layout) -> None:
    store.save(places, FULL)
    found = os.stat(places.store)
    assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o640, 0, CHECKPW.gid)
    assert store.load(places) == FULL


def test_inconsistent_store_is_not_saved(places: Layout) -> None:
    store.save(places, FULL)
    with pytest.raises(StoreError):
        store.save(places, Store((), FULL.accounts, {}, 20001))
    assert store.load(places) == FULL


@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
def test_crash_while_saving_leaves_the_old_store(
    places: Layout, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store.save(places, FULL)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    if step == "write":
        monkeypatch.setattr(store, "encode", crash)
    else:
        monkeypatch.setattr(os, step, crash)
    with pytest.raises(KeyboardInterrupt):
        store.save(places, FULL.with_domains("third.example"))
    monkeypatch.undo()
    assert store.load(places) == FULL
    store.save(places, FULL.with_domains("third.example"))


def test_full_disk_leaves_the_old_store(places: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(places, FULL)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        store.save(places, FULL.with_domains("third.example"))
    monkeypatch.undo()
    assert store.load(places) == FULL


def test_second_writer_waits_for_the_first(places: Layout) -> None:
    """Each of several processes adds a domain; none of them is lost."""
    pids = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                with store.locked(places):
                    store.save(places, store.load(places).with_domains(f"d{number}.example"))
            finally:
                os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    assert len(store.load(places).domains) == 4
