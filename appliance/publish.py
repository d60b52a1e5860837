"""Write what the mail programs read about accounts, from the store.

    users/assign, users/cdb     who receives what (qmail-users(9))
    users/senders.cdb           address -> logins that may send as it, with NUL between them
    alias/.qmail-*              aliases, and each domain's postmaster
    control/locals, rcpthosts, virtualdomains

The caller holds the store's lock.
"""

import os
import subprocess
from typing import NamedTuple

from appliance import durable, managed, render
from appliance.errors import ApplianceError
from appliance.layout import ALIAS, Layout
from appliance.store import Store, local_key
from ucspi import cdb

POSTMASTERS = ("postmaster", "abuse", "root", "mailer-daemon")
POSTMASTER_FILE = ".qmail-postmaster"
KEEP_IN_ALIAS = b"./Maildir/\n"
DEADLINE = 60  # seconds for a program that should need none


class PublishError(ApplianceError):
    """Something that the mail programs need could not be written."""


class Published(NamedTuple):
    """What the caller may want to tell: control files that are the administrator's own."""

    kept: list[str]


def assign(store: Store) -> bytes:
    """Return users/assign: each account, its extensions, and the rest of each domain.

    Aliases and the roles stand there by themselves: an alias alice-news must not be taken
    for an extension of the account alice.
    """
    lines = []
    roles = {f"{name}@{domain}" for domain in store.domains for name in POSTMASTERS}
    for address in sorted((roles | set(store.aliases)) - set(store.accounts)):
        key = local_key(address)
        lines.append(f"={key}:alias:{ALIAS.uid}:{ALIAS.gid}:/var/qmail/alias:-:{key}:")
    for address, account in sorted(store.accounts.items()):
        key = local_key(address)
        rest = f"{address}:{account.uid}:{account.gid}:{account.home}"
        lines += [f"={key}:{rest}:::", f"+{key}-:{rest}:-::"]
    for domain in sorted(store.domains):
        lines.append(f"+{domain}-:alias:{ALIAS.uid}:{ALIAS.gid}:/var/qmail/alias:-:{domain}-:")
    return "".join(f"{line}\n" for line in [*lines, "."]).encode()


def senders(store: Store) -> list[tuple[bytes, bytes]]:
    """Return address -> logins that may send as it: the account's own, and its aliases."""
    logins = {address: {address} for address in store.accounts}
    for alias in store.aliases:
        if targets := _accounts_behind(store, alias, set()):
            logins[alias] = targets
    return [
        (address.encode(), b"\0".join(login.encode() for login in sorted(logins[address])))
        for address in sorted(logins)
    ]


def _accounts_behind(store: Store, address: str, seen: set[str]) -> set[str]:
    """Return the accounts that an address leads to, through aliases of aliases."""
    if address in store.accounts:
        return {address}
    if address in seen:
        return set()
    seen.add(address)
    found: set[str] = set()
    for target in store.aliases.get(address, ()):
        found |= _accounts_behind(store, target, seen)
    return found


def dot_qmail(store: Store, postmaster: bytes) -> dict[str, bytes]:
    """Return name -> content of the files in ~alias.

    Args:
        store: the store.
        postmaster: the instruction for every postmaster that is neither account nor alias.
    """
    files = {f".qmail-{name}": postmaster for name in POSTMASTERS}
    for address in (f"{name}@{domain}" for domain in store.domains for name in POSTMASTERS):
        to_itself = postmaster == postmaster_instruction(address)
        files[_dot_qmail_name(address)] = KEEP_IN_ALIAS if to_itself else postmaster
    for address, targets in store.aliases.items():
        files[_dot_qmail_name(address)] = "".join(f"&{target}\n" for target in targets).encode()
    return files


def _dot_qmail_name(address: str) -> str:
    """Return the dot-qmail file of an address; dots of the extension are colons there."""
    return ".qmail-" + local_key(address).replace(".", ":")


def postmaster_instruction(address: str) -> bytes:
    """Return the delivery instruction for mail to the postmaster; "" keeps it with alias."""
    return f"&{address}\n".encode() if address else KEEP_IN_ALIAS


def publish(places: Layout, store: Store, postmaster: bytes | None = None) -> Published:
    """Write everything, and have the queue manager read it anew.

    Args:
        places: where.
        store: the store.
        postmaster: the instruction for postmasters; None leaves it as it is.

    Raises:
        PublishError: something could not be written; publishing again repairs it.
    """
    try:
        if postmaster is None:
            postmaster = _present_instruction(places)
        durable.replace(places.users + "/assign", assign(store))
        _compile_assign(places)
        cdb.write(places.users + "/senders.cdb", senders(store))
        managed.install(places.alias, dot_qmail(store, postmaster))
        outcome = _publish_domains(places, store)
    except (OSError, managed.ManagedError) as error:
        raise PublishError(str(error)) from error
    if outcome.written or outcome.removed:
        _reread(places)
    return Published([f"control/{name}" for name in outcome.kept])


def _present_instruction(places: Layout) -> bytes:
    try:
        with open(f"{places.alias}/{POSTMASTER_FILE}", "rb") as file:
            return file.read()
    except FileNotFoundError:
        return KEEP_IN_ALIAS


def _publish_domains(places: Layout, store: Store) -> managed.Outcome:
    """Write the control files about domains, where there are control files at all.

    In a container that only runs one postern command there are none; the next start
    writes them.
    """
    try:
        with open(places.control + "/me") as file:
            hostname = file.readline().strip()
    except FileNotFoundError:
        return managed.Outcome([], [], [])
    files = render.domain_tree(hostname, store.domains)
    return managed.install(
        places.control, {name: file.content for name, file in files.items()}, render.DOMAIN_FILES
    )


def _compile_assign(places: Layout) -> None:
    """Make users/cdb from users/assign with the installed mailer's qmail-newu."""
    env = {"PATH": places.program_path}
    if places.root:
        env["QMAIL_HOME"] = places.qmail
    _run(["qmail-newu"], env)


def _reread(places: Layout) -> None:
    """Send qmail-send SIGHUP, if it runs: it reads locals and virtualdomains again."""
    service = places.services + "/queue"
    if os.path.exists(service + "/supervise/control"):
        subprocess.run(
            ["s6-svc", "-h", service],
            env={"PATH": places.program_path},
            check=False,
            timeout=DEADLINE,
        )


def _run(argv: list[str], env: dict[str, str]) -> None:
    try:
        subprocess.run(
            argv, env=env, stdin=subprocess.DEVNULL, check=True, timeout=DEADLINE, close_fds=True
        )
    except FileNotFoundError as error:
        raise PublishError(f"{argv[0]}: no such program in {env['PATH']}") from error
    except (subprocess.SubprocessError, OSError) as error:
        raise PublishError(f"{argv[0]}: {error}") from error
