"""Change accounts, aliases and domains: store first, then what is made from it.

Every change holds the store's lock from reading to publishing. The store decides: an
interrupted change is either in it, and published by the next change or start, or not.
"""

import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from appliance import data, maildirsize, publish, store, values
from appliance.errors import ApplianceError
from appliance.layout import FIRST_ACCOUNT_UID, LAST_ACCOUNT_UID, Layout, Owner, home_of
from appliance.store import Account, Store


class AccountError(ApplianceError):
    """A change that cannot be made; the text is for a person."""


def read_address(text: str) -> str:
    """Return an address in its one form.

    Raises:
        AccountError: it cannot be an address here.
    """
    try:
        return values.address(text)
    except ValueError as error:
        raise AccountError(f"{text}: {error}") from error


def read_domain(text: str) -> str:
    """Return a domain name in its one form.

    Raises:
        AccountError: it is none.
    """
    try:
        return values.domain(text)
    except ValueError as error:
        raise AccountError(f"{text}: {error}") from error


@contextmanager
def changing(places: Layout) -> Iterator[tuple[Store, Callable[[Store], None]]]:
    """Give the store and a function that makes a new one effective, under the lock.

    Works on a volume that no appliance has been started with yet.

    Raises:
        DataError, StoreError, PublishError: the volume, the store or what is made from
            it could not be read or written.
    """
    if not os.path.isdir(places.accounts):
        data.prepare_volume(places)
    with store.locked(places):
        before = store.load(places)

        def commit(changed: Store) -> None:
            store.save(places, changed)
            try:
                published = publish.publish(places, changed)
            except publish.PublishError as error:
                raise publish.PublishError(
                    f"{error}; the change is stored, and is made effective by the next one "
                    "or the next start"
                ) from error
            if changed.domains != before.domains:
                for name in published.kept:
                    sys.stderr.write(f"postern: {name} is not ours: change it yourself\n")

        yield before, commit


def add(places: Layout, address: str, password_hash: str, quota: int = 0) -> None:
    """Make an account.

    Raises:
        AccountError: it exists, its domain is unknown, or mail of a former one is there.
    """
    with changing(places) as (before, commit):
        _require_free(before, address)
        uid = _former_uid(places, before, address)
        if uid is None:
            uid = before.next_uid
            if uid > LAST_ACCOUNT_UID:
                raise AccountError("there are no uids left")
            # Taken for good before anything belongs to it: whatever happens from here
            # on, no later account gets a uid that some file already has.
            before = replace(before, next_uid=uid + 1)
            store.save(places, before)
        data.make_home(places, address, Owner(uid, uid))
        account = Account(uid, uid, home_of(address), password_hash, quota=quota)
        commit(before.with_account(address, account))
        _tell_quota(places, address, quota)


def set_quota(places: Layout, address: str, quota: int) -> None:
    """Limit the size of an account's mailbox to quota bytes; 0 for no limit.

    Raises:
        AccountError: there is no such account, or its Maildir does not take the limit.
    """
    change(places, address, lambda account: replace(account, quota=quota))
    _tell_quota(places, address, quota)


def _tell_quota(places: Layout, address: str, quota: int) -> None:
    if not as_owner(places.home(address), lambda home: maildirsize.write(home, quota)):
        raise AccountError(f"{address}: the quota could not be written to its Maildir")


def change(places: Layout, address: str, edit: Callable[[Account], Account]) -> None:
    """Put what edit makes of an account in its place.

    Raises:
        AccountError: there is no such account.
    """
    with changing(places) as (before, commit):
        account = _required(before, address)
        commit(before.with_account(address, edit(account)))


def require(places: Layout, address: str) -> Account:
    """Return an account, before a password is asked for it.

    Raises:
        AccountError: there is no such account.
    """
    return _required(store.load(places), address)


def require_free(places: Layout, address: str) -> None:
    """Check that an account can be made, before a password is asked for it.

    Raises:
        AccountError: it cannot.
    """
    before = store.load(places)
    _require_free(before, address)
    _former_uid(places, before, address)


def delete(places: Layout, address: str, purge: bool = False) -> None:
    """Delete an account; its mail stays unless purge is set.

    A former account that is gone already can still be purged.

    Raises:
        AccountError: there is no such account, or its mail cannot be removed.
    """
    with changing(places) as (before, commit):
        home = places.home(address)
        account = before.accounts.get(address)
        if account is None and not (purge and os.path.lexists(home)):
            _required(before, address)
        if account is not None:
            left = {other: a for other, a in before.accounts.items() if other != address}
            commit(replace(before, accounts=left))
        if purge and os.path.lexists(home):
            remove_home(home)


def add_alias(places: Layout, address: str, targets: list[str]) -> None:
    """Make an alias, or add targets to the one that is there.

    Raises:
        AccountError: the address is an account, or its domain is unknown.
    """
    with changing(places) as (before, commit):
        if address not in before.aliases:
            _require_free(before, address)
        if address in targets:
            raise AccountError(f"{address}: an alias cannot lead to itself")
        together = tuple(dict.fromkeys([*before.aliases.get(address, ()), *targets]))
        commit(replace(before, aliases=before.aliases | {address: together}))


def delete_alias(places: Layout, address: str, targets: list[str]) -> None:
    """Delete an alias, or only some of its targets.

    Raises:
        AccountError: there is no such alias, or it has no such target.
    """
    with changing(places) as (before, commit):
        present = before.aliases.get(address)
        if present is None:
            raise AccountError(f"{address}: no such alias")
        if foreign := [target for target in targets if target not in present]:
            raise AccountError(f"{address}: does not lead to {foreign[0]}")
        left = tuple(target for target in present if target not in targets) if targets else ()
        aliases = {other: t for other, t in before.aliases.items() if other != address}
        commit(replace(before, aliases=aliases | ({address: left} if left else {})))


def add_domain(places: Layout, domain: str) -> None:
    """Receive mail for a domain.

    Raises:
        AccountError: it is one of ours already.
    """
    with changing(places) as (before, commit):
        if domain in before.domains:
            raise AccountError(f"{domain}: is here already")
        commit(before.with_domains(domain))


def delete_domain(places: Layout, domain: str) -> None:
    """Receive no more mail for a domain that has neither accounts nor aliases.

    Raises:
        AccountError: there is no such domain, or it is in use.
    """
    with changing(places) as (before, commit):
        if domain not in before.domains:
            raise AccountError(f"{domain}: no such domain")
        for address in (*before.accounts, *before.aliases):
            if address.rpartition("@")[2] == domain:
                raise AccountError(f"{domain}: still has {address}")
        left = tuple(other for other in before.domains if other != domain)
        commit(replace(before, domains=left))
        try:
            os.rmdir(f"{places.homes}/{domain}")
        except OSError:
            pass  # there never was an account, or the mail of former ones is still there


def _required(present: Store, address: str) -> Account:
    account = present.accounts.get(address)
    if account is None:
        raise AccountError(f"{address}: no such account")
    return account


def _require_free(present: Store, address: str) -> None:
    if address in present.accounts:
        raise AccountError(f"{address}: this account exists")
    if address in present.aliases:
        raise AccountError(f"{address}: is an alias; remove it first: postern alias del {address}")
    domain = address.rpartition("@")[2]
    if domain not in present.domains:
        raise AccountError(
            f"{address}: {domain} is not one of our domains; postern domain add {domain}"
        )


def _former_uid(places: Layout, present: Store, address: str) -> int | None:
    """Return the uid of an empty home that a former or interrupted account left.

    Raises:
        AccountError: there is mail in it, or it belongs to somebody else.
    """
    home = places.home(address)
    try:
        owner = os.lstat(home).st_uid
    except FileNotFoundError:
        return None
    if owner == 0:
        return None
    uids = {account.uid for account in present.accounts.values()}
    if owner in uids or not FIRST_ACCOUNT_UID <= owner < present.next_uid:
        raise AccountError(f"{home}: belongs to uid {owner}, which is not this account's")
    if not as_owner(home, _is_unused):
        raise AccountError(
            f"{address}: the mail of a former account of this name is still there; "
            f"postern user del --purge {address} removes it"
        )
    return owner


def _is_unused(home: str) -> bool:
    """Whether home holds nothing but a Maildir without messages."""
    return set(os.listdir(home)) <= {"Maildir"} and not any(files for _, _, files in os.walk(home))


def _remove_content(home: str) -> bool:
    for name in os.listdir(home):
        path = f"{home}/{name}"
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    return True


def remove_home(home: str) -> None:
    """Remove a home: what is in it as its owner, the directory itself as root.

    Raises:
        AccountError: something could not be removed.
    """
    if os.lstat(home).st_uid == 0:
        shutil.rmtree(home)  # an interrupted one, with at most an empty Maildir in it
        return
    if not as_owner(home, _remove_content):
        raise AccountError(f"{home}: not everything in it could be removed")
    try:
        os.rmdir(home)
    except OSError as error:
        raise AccountError(f"{home}: {error.strerror}") from error


def as_owner(home: str, action: Callable[[str], bool]) -> bool:
    """Run action(home) in a child process that has become the owner of home.

    Root has no right to enter it (no CAP_DAC_OVERRIDE), and must not follow what a user
    may have put there.

    Returns:
        What action returned; False also when it failed.
    """
    found = os.lstat(home)
    if found.st_uid == 0 or not stat.S_ISDIR(found.st_mode):
        return False
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status) == 0
    code = 1
    try:
        os.setgroups([found.st_gid])
        os.setresgid(found.st_gid, found.st_gid, found.st_gid)
        os.setresuid(found.st_uid, found.st_uid, found.st_uid)
        os.chdir(home)
        code = 0 if action(home) else 1
    except BaseException as error:
        sys.stderr.write(f"postern: {home}: {error}\n")
    finally:
        os._exit(code)
