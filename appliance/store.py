"""The account store: one JSON file on the volume, checked whole, replaced atomically.

checkpasswordd reads the same file; only postern writes it, under a lock.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from appliance import durable, values
from appliance.errors import ApplianceError
from appliance.layout import CHECKPW, FIRST_ACCOUNT_UID, LAST_ACCOUNT_UID, Layout, home_of

VERSION = 1
STATES = ("enabled", "send-only", "receive-only", "disabled")
HASH_LIMIT = 512


class StoreError(ApplianceError):
    """The store cannot be read, or is not what it must be."""


@dataclass(frozen=True)
class Account:
    """One account: its ids, where its mail is, how its password is checked."""

    uid: int
    gid: int
    home: str
    hash: str
    state: str = "enabled"
    quota: int = 0  # bytes; 0 is none


@dataclass(frozen=True)
class Store:
    """The whole store; changes make a new one."""

    domains: tuple[str, ...] = ()
    accounts: dict[str, Account] = field(default_factory=dict)
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    next_uid: int = FIRST_ACCOUNT_UID

    def with_account(self, address: str, account: Account) -> "Store":
        """Return the store with account as address, new or changed."""
        return replace(self, accounts=self.accounts | {address: account})

    def with_domains(self, *domains: str) -> "Store":
        """Return the store with more domains."""
        return replace(self, domains=tuple(sorted({*self.domains, *domains})))


def local_key(address: str) -> str:
    """Return the local name under which qmail knows an address (virtualdomains prepends)."""
    local, _, domain = address.rpartition("@")
    return f"{domain}-{local}"


def encode(store: Store) -> bytes:
    """Return the bytes of the file."""
    document = {
        "version": VERSION,
        "next_uid": store.next_uid,
        "domains": sorted(store.domains),
        "accounts": {address: vars(store.accounts[address]) for address in sorted(store.accounts)},
        "aliases": {address: list(store.aliases[address]) for address in sorted(store.aliases)},
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def parse(content: bytes) -> Store:
    """Return the store that content is.

    Raises:
        StoreError: anything in it is not as it must be; it says what.
    """
    try:
        document = json.loads(content)
    except ValueError as error:
        raise StoreError(f"not JSON: {error}") from error
    _require(isinstance(document, dict), "not an object")
    _require(document.get("version") == VERSION, f"not version {VERSION}")
    expected = {"version", "next_uid", "domains", "accounts", "aliases"}
    _require(set(document) == expected, f"its keys are not {' '.join(sorted(expected))}")
    domains, accounts, aliases = (document[key] for key in ("domains", "accounts", "aliases"))
    _require(_is_texts(domains), "domains is no list of names")
    _require(isinstance(accounts, dict), "accounts is no object")
    _require(isinstance(aliases, dict), "aliases is no object")
    for domain in domains:
        _require_same(domain, values.domain, f"domain {domain!r}")
    store = Store(
        tuple(sorted(domains)),
        {address: _account(address, entry) for address, entry in accounts.items()},
        {address: _alias(address, targets) for address, targets in aliases.items()},
        document["next_uid"],
    )
    check(store)
    return store


def check(store: Store) -> None:
    """Check what holds between the parts of a store.

    Raises:
        StoreError: an address in no domain, an id used twice, two names for one place.
    """
    _require(_is_uid(store.next_uid), "next_uid is no account's uid")
    seen: dict[str, str] = {}
    for address in (*store.accounts, *store.aliases):
        domain = address.rpartition("@")[2]
        _require(domain in store.domains, f"{address}: {domain} is not among the domains")
        # example.org-x.net is a domain too: its alice is example.org's x.net-alice.
        other = seen.setdefault(local_key(address), address)
        _require(other == address, f"{address} and {other} would be the same to qmail")
    overlap = store.accounts.keys() & store.aliases.keys()
    _require(not overlap, f"{min(overlap, default='')} is both account and alias")
    uids = [account.uid for account in store.accounts.values()]
    _require(len(set(uids)) == len(uids), "two accounts have one uid")
    _require(all(uid < store.next_uid for uid in uids), "next_uid is in use")


def _account(address: str, entry: Any) -> Account:
    _require_same(address, values.address, f"account {address!r}")
    _require(isinstance(entry, dict), f"{address}: no object")
    expected = set(Account.__dataclass_fields__)
    _require(set(entry) == expected, f"{address}: its keys are not {' '.join(sorted(expected))}")
    account = Account(**entry)
    _require(_is_uid(account.uid) and _is_uid(account.gid), f"{address}: uid or gid out of range")
    _require(account.home == home_of(address), f"{address}: home is not {home_of(address)}")
    _require(is_hash(account.hash), f"{address}: hash is none")
    _require(account.state in STATES, f"{address}: state is none of {' '.join(STATES)}")
    quota = account.quota
    _require(type(quota) is int and quota >= 0, f"{address}: quota is no number of bytes")
    return account


def _alias(address: str, targets: Any) -> tuple[str, ...]:
    _require_same(address, values.address, f"alias {address!r}")
    _require(_is_texts(targets) and targets, f"alias {address}: no list of addresses")
    for target in targets:
        _require_same(target, values.address, f"alias {address}: {target!r}")
    return tuple(targets)


def is_hash(text: object) -> bool:
    """Whether text can stand as a password hash: one printable ASCII word."""
    return (
        isinstance(text, str)
        and 0 < len(text) <= HASH_LIMIT
        and text.isascii()
        and text.isprintable()
        and " " not in text
    )


def _is_uid(value: object) -> bool:
    return type(value) is int and FIRST_ACCOUNT_UID <= value <= LAST_ACCOUNT_UID


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _require(holds: object, what: str) -> None:
    if not holds:
        raise StoreError(what)


def _require_same(text: str, reader: Any, what: str) -> None:
    """Require that text is valid and already in the form that reader gives it."""
    try:
        same = reader(text) == text
    except ValueError as error:
        raise StoreError(f"{what}: {error}") from error
    _require(same, f"{what}: not in its lower-case ASCII form")


@contextmanager
def locked(places: Layout) -> Iterator[None]:
    """Keep every other postern from changing the store and what is made from it.

    Raises:
        StoreError: there is no volume with a store, or no right to write it.
    """
    try:
        fd = os.open(places.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{places.lock}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def load(places: Layout) -> Store:
    """Return the store on the volume; an empty one when there is none yet.

    Raises:
        StoreError: it cannot be read, or is damaged.
    """
    try:
        with open(places.store, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return Store()
    except OSError as error:
        raise StoreError(f"{places.store}: {error.strerror}") from error
    try:
        return parse(content)
    except StoreError as error:
        raise StoreError(f"{places.store}: {error}") from error


def save(places: Layout, store: Store) -> None:
    """Replace the store on the volume; a crash leaves the old one or the new one.

    Raises:
        StoreError: it is not consistent, or cannot be written; the old one stays.
    """
    check(store)
    try:
        durable.replace(places.store, encode(store), group=CHECKPW.gid)
    except OSError as error:
        raise StoreError(f"{places.store}: {error.strerror}") from error
