"""The account store: a JSON file, written by ``postern``, read by checkpasswordd.

Version 1, complete; a field that is not named here makes the file invalid, and so does a
duplicate key, since what a reader does not know it cannot honour::

    {
      "version": 1,
      "next_uid": 20002,                 # optional here; the writer's own
      "domains": ["example.org"],        # lower case, no duplicates
      "accounts": {
        "alice@example.org": {           # localpart@domain, lower case, of a listed domain
          "uid": 20000,                  # 1000 and above, and none of the mail system's
          "gid": 20000,                  # own; no two accounts share a uid
          "home": "/home/example.org/alice",   # absolute, no "." or ".." in it
          "hash": "$argon2id$...",       # one word; which kinds work, the verifier knows
          "state": "enabled",            # or "send-only", "receive-only", "disabled"
          "quota": 0                     # optional: bytes, 0 is none
        }
      },
      "aliases": {"info@example.org": ["alice@example.org"]}   # optional
    }

The file is replaced, never changed in place (write, fsync, rename).
"""

import json
import os
import re
from typing import Any, NamedTuple

from acceptutils.checkpassword.wire import FIRST_ID, Identity, is_account

VERSION = 1
LAST_ID = 2**31 - 1
NAME_LIMIT = 320  # bytes of localpart@domain (RFC 5321, 4.5.3.1: 64 + 1 + 255)
SHELL = "/bin/false"  # accounts log in to mail services, not to the machine

STATES = ("enabled", "send-only", "receive-only", "disabled")

# In which states an account may use a service; any other service wants "enabled".
SERVICES = {
    b"submission": ("enabled", "send-only"),
    b"pop3": ("enabled", "receive-only"),
}

_LOCAL = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}")
_DOMAIN = re.compile(
    r"(?!.{254})[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*"
)
HASH_LIMIT = 512


class StoreError(Exception):
    """The store cannot be read, or is not a store."""


class Account(NamedTuple):
    """One account, as far as a login is concerned."""

    name: str
    uid: int
    gid: int
    home: str
    hash: str
    state: str

    def __repr__(self) -> str:
        return f"Account({self.name!r}, {self.uid}, {self.state!r})"

    def allows(self, service: bytes) -> bool:
        """Whether the account's state lets it use a service."""
        return self.state in SERVICES.get(service, ("enabled",))

    def identity(self) -> Identity:
        """Return whom checkpassword becomes for this account."""
        return Identity(self.name, self.uid, self.gid, self.home, SHELL)


class Accounts(NamedTuple):
    """The content of the store."""

    domains: tuple[str, ...]
    by_name: dict[str, Account]

    def find(self, login: bytes) -> Account | None:
        """Return the account of a login name, in any case of its letters.

        Where there is one domain only, the local part alone will do.
        """
        try:
            name = login.decode("ascii").lower()
        except UnicodeDecodeError:
            return None
        if "@" not in name and len(self.domains) == 1:
            name = f"{name}@{self.domains[0]}"
        return self.by_name.get(name)


class Signature(NamedTuple):
    """What tells one version of a file from another."""

    modified: int
    size: int
    inode: int


def signature_of(status: os.stat_result) -> Signature:
    """Return the signature of the file that status describes."""
    return Signature(status.st_mtime_ns, status.st_size, status.st_ino)


def load(path: str) -> Accounts:
    """Read the store at path.

    Raises:
        StoreError: see parse; or the file cannot be read.
    """
    return load_signed(path)[0]


def load_signed(path: str) -> tuple[Accounts, Signature]:
    """Read the store at path; also return the signature of the very file that was read.

    Raises:
        StoreError: see parse; or the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            signature = signature_of(os.fstat(file.fileno()))
            content = file.read()
    except OSError as error:
        raise StoreError(f"unable to read: {error.strerror}") from error
    return parse(content), signature


def parse(content: bytes) -> Accounts:
    """Return the accounts in a store's bytes.

    Raises:
        StoreError: not the format that the module describes; says what and where, never
            with a hash in it.
    """
    try:
        root = json.loads(content, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"not JSON: {error}") from error
    _fields(root, "store", {"version", "domains", "accounts"}, {"next_uid", "aliases"})
    if root["version"] != VERSION or isinstance(root["version"], bool):
        raise StoreError("unknown version")
    if "next_uid" in root:
        _number(root["next_uid"], "next_uid", FIRST_ID, LAST_ID)
    domains = _texts(root["domains"], "domains")
    for domain in domains:
        if not _DOMAIN.fullmatch(domain):
            raise StoreError(f"domains: {domain!r} is not a domain in lower case")
    if len(set(domains)) != len(domains):
        raise StoreError("domains: one is there twice")
    if not isinstance(root["accounts"], dict):
        raise StoreError("accounts: not an object")
    accounts = {name: _account(name, root["accounts"][name], domains) for name in root["accounts"]}
    owners: dict[int, str] = {}
    for account in accounts.values():
        if other := owners.get(account.uid):
            raise StoreError(f"{account.name}: has the uid of {other}")
        owners[account.uid] = account.name
    _aliases(root.get("aliases", {}), domains)
    return Accounts(domains, accounts)


def _account(name: str, value: Any, domains: tuple[str, ...]) -> Account:
    _address(name, domains, "accounts")
    _fields(value, name, {"uid", "gid", "home", "hash", "state"}, {"quota"})
    uid = _number(value["uid"], f"{name}: uid", FIRST_ID, LAST_ID)
    gid = _number(value["gid"], f"{name}: gid", FIRST_ID, LAST_ID)
    if not is_account(uid, gid):
        raise StoreError(f"{name}: its uid or gid is one of the mail system's own")
    _number(value.get("quota", 0), f"{name}: quota", 0, 2**63 - 1)
    home, hashed, state = (value[key] for key in ("home", "hash", "state"))
    if not isinstance(home, str) or not _is_plain_path(home):
        raise StoreError(f"{name}: home is not an absolute path")
    if state not in STATES:
        raise StoreError(f"{name}: state is none of {', '.join(STATES)}")
    if not isinstance(hashed, str) or not _is_word(hashed):
        raise StoreError(f"{name}: hash is not one word")
    return Account(name, uid, gid, home, hashed, state)


def _is_word(text: str) -> bool:
    return 0 < len(text) <= HASH_LIMIT and text.isascii() and text.isprintable() and " " not in text


def _is_plain_path(path: str) -> bool:
    parts = path.split("/")
    return (
        path.startswith("/")
        and path.isprintable()
        and len(path) < 1024
        and not {"", ".", ".."} & set(parts[1:])
    )


def _aliases(value: Any, domains: tuple[str, ...]) -> None:
    if not isinstance(value, dict):
        raise StoreError("aliases: not an object")
    for name, targets in value.items():
        _address(name, domains, "aliases")
        _texts(targets, f"aliases: {name}")


def _address(name: str, domains: tuple[str, ...], where: str) -> None:
    local, _, domain = name.rpartition("@")
    if len(name) > NAME_LIMIT or not _LOCAL.fullmatch(local):
        raise StoreError(f"{where}: {name[:NAME_LIMIT]!r} is not an address in lower case")
    if domain not in domains:
        raise StoreError(f"{where}: {name!r} is in no listed domain")


def _fields(value: Any, where: str, required: set[str], optional: set[str]) -> None:
    if not isinstance(value, dict):
        raise StoreError(f"{where}: not an object")
    if missing := required - set(value):
        raise StoreError(f"{where}: {min(missing)} is missing")
    if unknown := set(value) - required - optional:
        raise StoreError(f"{where}: unknown field {min(unknown)[:40]!r}")


def _number(value: Any, where: str, lowest: int, highest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise StoreError(f"{where} is not a number from {lowest} to {highest}")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise StoreError(f"{where}: not a list of strings")
    return tuple(value)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found
