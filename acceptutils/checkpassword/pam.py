"""checkpassword-pam: whoever's password PAM finds right, become them and go on.

    checkpassword-pam [ -s service ] [ -e ] [ -H ] [ --identity accounts|system ]
        [ --user template ] [ --account template ] [ --debug [ --stdout ] ] [ -- ] prog [ args ... ]

The interface of checkpassword-pam(8) of checkpasswd-pam.sourceforge.net. PAM's modules run in
a process apart, of root: most of them want that.
"""

import os
import sys
from collections.abc import Callable
from typing import NamedTuple

from acceptutils.checkpassword import elsewhere
from acceptutils.checkpassword.apart import Found, Refused
from acceptutils.checkpassword.elsewhere import ACCOUNTS, SYSTEM, Plan
from acceptutils.checkpassword.login import Login, as_text, check_template
from acceptutils.checkpassword.program import EXIT_MISUSED, Unavailable
from ucspi import log

NAME = "checkpassword-pam"
USAGE = (
    f"{NAME}: usage: {NAME} [ -s service ] [ -e|--noenv ] [ -H|--no-chdir-home ] "
    "[ --identity accounts|system ] [ --user template ] [ --account template ] "
    "[ --debug ] [ --stdout ] [ -- ] prog"
)
SECONDS = 30  # pam_unix alone waits for some two before it says no

_SWITCHES = {
    "-e": "noenv",
    "--noenv": "noenv",
    "-H": "no-chdir-home",
    "--no-chdir-home": "no-chdir-home",
    "--debug": "debug",
    "--stdout": "stdout",
    "-h": "help",
    "--help": "help",
    "-V": "version",
    "--version": "version",
}
_VALUES = {
    "-s": "service",
    "--service": "service",
    "--identity": "identity",
    "--user": "user",
    "--account": "account",
}


class Options(NamedTuple):
    """The command line."""

    service: str
    command: list[str]
    identity: str = SYSTEM
    user: str = "{login}"
    account: str = "{login}"
    switches: frozenset[str] = frozenset()


def parse_arguments(arguments: list[str], env: dict[str, str]) -> Options:
    """Return the options that follow the program's name.

    Raises:
        ValueError: the command line is not one of ours.
    """
    words = list(arguments)
    switches: set[str] = set()
    values: dict[str, str] = {}
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word == "--":
            break
        option, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if option in _SWITCHES and not equals:
            switches.add(_SWITCHES[option])
            continue
        if word.startswith("-s") and len(word) > 2:
            option, value = "-s", word[2:]
        elif option in _VALUES and not equals:
            value = words.pop(0) if words else ""
        if option not in _VALUES or not value:
            raise ValueError(f"{option}: no such option, or no value")
        values[_VALUES[option]] = value
    service = values.get("service") or env.get("PAM_SERVICE", "")
    identity = values.get("identity", SYSTEM)
    if switches & {"help", "version"}:
        return Options(service, words, switches=frozenset(switches))
    if not service or "/" in service:
        raise ValueError("no service: give -s, or set PAM_SERVICE")
    if identity not in (ACCOUNTS, SYSTEM):
        raise ValueError(f"--identity is neither {ACCOUNTS} nor {SYSTEM}")
    if "account" in values and identity != ACCOUNTS:
        raise ValueError(f"--account is for --identity {ACCOUNTS}")
    if not words:
        raise ValueError("no program to run")
    user = check_template(values.get("user", "{login}"))
    account = check_template(values.get("account", "{login}"))
    return Options(service, words, identity, user, account, frozenset(switches))


def preload(_argv: list[str], _env: dict[str, str]) -> None:
    """Load libpam, once for all connections; its modules are loaded by each check."""
    try:
        __import__("acceptutils.checkpassword.libpam")
    except ImportError:
        pass  # each attempt will say so


def main(argv: list[str], env: dict[str, str]) -> int:
    """Check descriptor 3 with PAM; become the user; run the rest of the command line.

    Environment read: PAM_SERVICE (without -s), TCPREMOTEIP (PAM_RHOST); and with --identity
    accounts, what checkpassword reads.
    Environment set: AUTHUP_USER, USER, HOME, SHELL, but with --noenv.

    Returns:
        1, 2 or 111, else what the rest of the command line returns.
    """
    try:
        options = parse_arguments(argv[1:], env)
    except ValueError as error:
        log.event(env, f"{NAME}: {error}")
        log.event(env, USAGE)
        return EXIT_MISUSED
    if "help" in options.switches:
        sys.stdout.write(USAGE.partition(": ")[2] + "\n")
        return 0
    if "version" in options.switches:
        sys.stdout.write(f"{NAME}, of postern\n")
        return 0
    return elsewhere.admit(NAME, options.command, env, lambda: plan(options, env))


def plan(options: Options, env: dict[str, str]) -> Plan:
    """Return how these options have a login checked."""
    stdout = "stdout" in options.switches

    def note(line: str) -> None:
        if stdout:
            os.write(1, f"{NAME}: {log.printable(line)}\n".encode())
        elif "debug" in options.switches:
            log.event(env, f"{NAME}: {line}")

    def check(login: Login, password: bytes) -> Found | None:
        return ask_pam(options, login, password, env.get("TCPREMOTEIP", ""), note)

    return Plan(
        check,
        SECONDS,
        kept=frozenset({1, 2}) if stdout else frozenset({2}),
        becomes="noenv" not in options.switches,
        enters="no-chdir-home" not in options.switches,
    )


def ask_pam(
    options: Options, login: Login, password: bytes, remote: str, note: Callable[[str], None]
) -> Found | None:
    """Return whose password it is by PAM, None when it is refused.

    Raises:
        Unavailable: PAM cannot say, or is not here.
        Refused: the password is right, of a user whom nobody may become; or an error that
            may stand for a wrong one.
    """
    try:
        from acceptutils.checkpassword import libpam

        library = libpam.Library()
    except (ImportError, OSError) as error:
        raise Unavailable(f"no PAM here: {error}") from error
    user, account = as_text(options.user, login), as_text(options.account, login)
    if not user or not account:
        return None
    try:
        known = library.check(options.service, user.encode(), password, remote, note)
    except libpam.PamSystemError as error:
        # Taken for a refusal, and told: else nobody would count the guesses.
        raise Refused(f"{options.service}: {error}") from error
    except libpam.PamError as error:
        raise Unavailable(f"{options.service}: {error}") from error
    if known is None:
        return None
    if options.identity == ACCOUNTS or "noenv" in options.switches:
        return Found(account)
    return elsewhere.found_in(SYSTEM, os.fsdecode(known))
