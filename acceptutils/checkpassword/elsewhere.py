"""What the programs share whose passwords are elsewhere: in PAM, a directory, a database.

Each is a checkpassword of its own (see `program` for the interface): it says how a password
is checked, and this does the rest: reads descriptor 3, has the check done in a process
`apart`, finds out who that is, becomes them, and goes on.
"""

import os
import time
from collections.abc import Callable
from typing import NamedTuple

from acceptutils import identity
from acceptutils.checkpassword import apart, program, wire
from acceptutils.checkpassword.apart import Found, Refused
from acceptutils.checkpassword.login import Login
from acceptutils.checkpassword.program import (
    EXIT_MISUSED,
    EXIT_REFUSED,
    EXIT_TEMPORARY,
    Unavailable,
)
from acceptutils.checkpassword.store import SHELL
from acceptutils.checkpassword.wire import Identity, Inquiry, WireError, is_account
from ucspi import chain, log
from ucspi.control import ControlError

CHECKER = "checkpw"  # whom the process apart becomes, when CHECKPASSWORD_UID does not say
# A refusal is given at the next multiple of this: how long the server needed to find out
# would tell which users there are.
STEP = 0.5  # seconds

# Where uid, gid and home come from.
ACCOUNTS, SYSTEM, RECORD = "accounts", "system", "record"


class Plan(NamedTuple):
    """How one login is to be checked."""

    check: Callable[[Login, bytes], Found | None]
    seconds: float
    ids: tuple[int, int] | None = None
    kept: frozenset[int] = frozenset({2})  # descriptors; above 2, closed when it is done
    becomes: bool = True  # whether the process is the user's in the end
    enters: bool = True  # whether it ends up in the home


def main(
    name: str, argv: list[str], env: dict[str, str], plan: Callable[[dict[str, str]], Plan]
) -> int:
    """Run a program ``NAME prog [ arg ... ]`` that has all its settings in control files.

    Environment read: QMAIL_HOME, CHECKPASSWORD_UID, CHECKPASSWORD_GID; and what checkpassword
    reads.
    Environment set: AUTHUP_USER, USER, HOME, SHELL.

    Args:
        name: of the program, for log lines.
        argv: its command line.
        env: the environment.
        plan: see prepare of `admit`; given env.

    Returns:
        1, 2 or 111, else what the rest of the command line returns.
    """
    if not argv[1:]:
        log.event(env, f"{name}: usage: {name} prog")
        return EXIT_MISUSED
    return admit(name, argv[1:], env, lambda: plan(env))


def admit(name: str, command: list[str], env: dict[str, str], prepare: Callable[[], Plan]) -> int:
    """Check descriptor 3; become the user; run command.

    Args:
        name: of the program, for log lines.
        command: the rest of the command line.
        env: see `program.main`; here, CHECKPASSWORD_SOCKET and CHECKPASSWORD_STORE say who
            has which account.
        prepare: reads the control files; may raise ControlError and Unavailable.

    Returns:
        1, 2 or 111, as checkpassword has them, else what the command returns.
    """
    began = time.monotonic()
    try:
        user, password = wire.parse_blob(program.read_blob())
    except (OSError, WireError) as error:
        log.event(env, f"{name}: descriptor 3: {error}")
        return EXIT_MISUSED
    # An empty password is none: in LDAP it asks for no check at all (RFC 4513, 5.1.2), and a
    # PAM service may let it pass.
    if not user or not password:
        return _refuse(began)
    try:
        plan = prepare()
        login = Login(user)
        try:
            found = apart.ask(
                lambda: plan.check(login, password),
                env,
                name,
                seconds=plan.seconds,
                ids=plan.ids,
                kept=plan.kept,
            )
        finally:
            for given in plan.kept - {0, 1, 2}:
                os.close(given)
        who = _whose(found, env, name) if found and plan.becomes else None
        if found is None or (plan.becomes and who is None):
            return _refuse(began)
        if who:
            program.become(who, env, enter=plan.enters)
    except (Unavailable, ControlError) as error:
        if str(error):
            log.event(env, f"{name}: {error}")
        return EXIT_TEMPORARY
    return chain.run(command, env)


def _refuse(began: float) -> int:
    time.sleep(STEP - (time.monotonic() - began) % STEP)
    return EXIT_REFUSED


def _whose(found: Found, env: dict[str, str], name: str) -> Identity | None:
    """Return whom to become; None, and a log line, when nobody may be become."""
    if found.identity:
        return found.identity
    service = os.fsencode(env.get("CHECKPASSWORD_SERVICE", ""))
    who = program.ask(Inquiry(service, found.name.encode()), env)
    if who is None:
        log.event(env, f"{name}: {found.name}: right, but no account may use this service")
    return who


def checker_ids(env: dict[str, str]) -> tuple[int, int] | None:
    """Return uid and gid for a check that needs no privilege; None when this is not root.

    Raises:
        Unavailable: nothing says who that is: as root, it is not done.
    """
    if os.geteuid() != 0:
        return None
    if "CHECKPASSWORD_UID" in env:
        try:
            uid = identity.number(env["CHECKPASSWORD_UID"])
            return uid, identity.number(env.get("CHECKPASSWORD_GID", ""))
        except ValueError as error:
            raise Unavailable(f"CHECKPASSWORD_UID, CHECKPASSWORD_GID: {error}") from error
    import pwd

    try:
        entry = pwd.getpwnam(CHECKER)
    except KeyError as error:
        raise Unavailable(f"CHECKPASSWORD_UID is not set and there is no user {CHECKER}") from error
    return entry.pw_uid, entry.pw_gid


def found_in(
    source: str, name: str, record: Callable[[], tuple[str, str, str]] = lambda: ("", "", "")
) -> Found:
    """Return whose password it was that is right.

    Args:
        source: ACCOUNTS, SYSTEM or RECORD.
        name: of the account, or of the system's user.
        record: returns uid, gid and home as they stand in a record.

    Raises:
        Refused: there is nobody of that name in the system, or nobody may become that.
    """
    if source == ACCOUNTS:
        return Found(name)
    if source == SYSTEM:
        who = system_user(name)
        if who is None:
            raise Refused(f"{name}: right, but no user of the system")
        return Found(who.name, checked(who))
    uid, gid, home = record()
    if not (uid.isascii() and uid.isdigit() and gid.isascii() and gid.isdigit()):
        raise Refused(f"{name}: uid and gid are no numbers")
    return Found(name, checked(Identity(name, int(uid), int(gid), home, SHELL)))


def system_user(name: str) -> Identity | None:
    """Return the user of the system with this name; None when there is none to become."""
    import pwd

    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):
        return None
    shell = entry.pw_shell or "/bin/sh"
    return Identity(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, shell)


def checked(found: Identity) -> Identity:
    """Return found if a process may become that.

    Raises:
        Refused: it is root or another user of the system's, or has no home.
    """
    if not is_account(found.uid, found.gid):
        raise Refused(f"{found.name}: refusing uid {found.uid}, gid {found.gid}")
    if not found.home.startswith("/") or "\0" in found.home + found.name + found.shell:
        raise Refused(f"{found.name}: no home")
    return found
