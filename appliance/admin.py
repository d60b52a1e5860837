"""``postern user|alias|domain``: the command line of accounts."""

import argparse
import sys
from dataclasses import replace

from appliance import (
    accounts,
    commandline,
    dkim,
    homefiles,
    passwords,
    settings_sources,
    store,
    values,
)
from appliance.commandline import Parser, verb
from appliance.layout import Layout


def main(argv: list[str], env: dict[str, str], places: Layout | None = None) -> int:
    """Run ``user``, ``alias`` or ``domain`` with their arguments.

    Returns:
        See `commandline.main`.
    """
    refusals = (accounts.AccountError, passwords.PasswordError)
    return commandline.main(parser(), argv, env, places, refusals)


def parser() -> Parser:
    """Return the parser of all three commands."""
    top = Parser(prog="postern", allow_abbrev=False)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _user_parser(commands.add_parser("user", help="accounts"))
    _alias_parser(commands.add_parser("alias", help="addresses that lead to others"))
    _domain_parser(commands.add_parser("domain", help="domains that mail is received for"))
    return top


def _user_parser(user: Parser) -> None:
    verbs = user.add_subparsers(required=True, metavar="VERB")
    add = verb(verbs, "add", _user_add, "make an account; its password from the terminal or stdin")
    add.add_argument("address", help="name@domain")
    _password_options(add)
    add.add_argument("--quota", type=_size, default=0, help="bytes, also as 500M or 2G; 0 for none")
    passwd = verb(verbs, "passwd", _user_passwd, "change a password")
    passwd.add_argument("address")
    _password_options(passwd)
    delete = verb(verbs, "del", _user_del, "delete an account; its mail stays")
    delete.add_argument("address")
    delete.add_argument("--purge", action="store_true", help="delete its mail as well")
    verb(verbs, "list", _user_list, "list accounts: address, state, uid, quota")
    disable = verb(verbs, "disable", _user_disable, "refuse its password; mail still arrives")
    disable.add_argument("address")
    enable = verb(verbs, "enable", _user_enable, "accept its password again")
    enable.add_argument("address")
    state = verb(verbs, "state", _user_state, "say what the password is good for")
    state.add_argument("address")
    state.add_argument("state", choices=store.STATES)
    quota = verb(verbs, "quota", _user_quota, "limit the size of the mailbox")
    quota.add_argument("address")
    quota.add_argument("quota", type=_size, help="bytes, also as 500M or 2G; 0 for none")
    homefiles.add_parser(verbs)


def _alias_parser(alias: Parser) -> None:
    verbs = alias.add_subparsers(required=True, metavar="VERB")
    add = verb(verbs, "add", _alias_add, "make an address lead to others")
    add.add_argument("address")
    add.add_argument("target", nargs="+", help="addresses here or elsewhere")
    delete = verb(verbs, "del", _alias_del, "remove an alias, or only some of its targets")
    delete.add_argument("address")
    delete.add_argument("target", nargs="*")
    verb(verbs, "list", _alias_list, "list aliases and where they lead")


def _domain_parser(domain: Parser) -> None:
    verbs = domain.add_subparsers(required=True, metavar="VERB")
    add = verb(verbs, "add", _domain_add, "receive mail for a domain")
    add.add_argument("domain")
    delete = verb(
        verbs, "del", _domain_del, "no more mail for a domain; one of POSTERN_DOMAINS returns"
    )
    delete.add_argument("domain")
    verb(verbs, "list", _domain_list, "list domains")


def _password_options(verb: Parser) -> None:
    options = verb.add_mutually_exclusive_group()
    options.add_argument(
        "--hash", action="store_true", help="stdin has a password hash, not a password"
    )
    options.add_argument(
        "--no-password",
        action="store_true",
        help="none is right here: it is checked elsewhere, as by checkpassword-ldap",
    )


def _size(text: str) -> int:
    try:
        return values.size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from error


def _new_hash(address: str, given: argparse.Namespace) -> str:
    if given.no_password:
        return passwords.NO_PASSWORD
    if given.hash:
        return passwords.known_hash(passwords.read_line())
    return passwords.hashed(passwords.check(passwords.read(f"Password for {address}")))


def _user_add(places: Layout, given: argparse.Namespace) -> None:
    address = accounts.read_address(given.address)
    accounts.require_free(places, address)
    accounts.add(places, address, _new_hash(address, given), given.quota)
    sys.stdout.write(f"{address}: added\n")


def _user_passwd(places: Layout, given: argparse.Namespace) -> None:
    address = accounts.read_address(given.address)
    accounts.require(places, address)
    new = _new_hash(address, given)
    accounts.change(places, address, lambda account: replace(account, hash=new))
    sys.stdout.write(f"{address}: password changed\n")


def _user_del(places: Layout, given: argparse.Namespace) -> None:
    address = accounts.read_address(given.address)
    accounts.delete(places, address, purge=given.purge)
    sys.stdout.write(f"{address}: deleted{', mail and all' if given.purge else ''}\n")


def _user_list(places: Layout, given: argparse.Namespace) -> None:
    for address, account in sorted(store.load(places).accounts.items()):
        quota = str(account.quota) if account.quota else "-"
        sys.stdout.write(f"{address}\t{account.state}\t{account.uid}\t{quota}\n")


def _set_state(places: Layout, text: str, state: str) -> None:
    address = accounts.read_address(text)
    accounts.change(places, address, lambda account: replace(account, state=state))
    sys.stdout.write(f"{address}: {state}\n")


def _user_disable(places: Layout, given: argparse.Namespace) -> None:
    _set_state(places, given.address, "disabled")


def _user_enable(places: Layout, given: argparse.Namespace) -> None:
    _set_state(places, given.address, "enabled")


def _user_state(places: Layout, given: argparse.Namespace) -> None:
    _set_state(places, given.address, given.state)


def _user_quota(places: Layout, given: argparse.Namespace) -> None:
    address = accounts.read_address(given.address)
    accounts.set_quota(places, address, given.quota)
    sys.stdout.write(f"{address}: quota {given.quota or 'none'}\n")


def _alias_add(places: Layout, given: argparse.Namespace) -> None:
    address = accounts.read_address(given.address)
    accounts.add_alias(places, address, [accounts.read_address(text) for text in given.target])
    sys.stdout.write(f"{address}: leads to {' '.join(given.target)}\n")


def _alias_del(places: Layout, given: argparse.Namespace) -> None:
    address = accounts.read_address(given.address)
    accounts.delete_alias(places, address, [accounts.read_address(text) for text in given.target])
    sys.stdout.write(f"{address}: {'changed' if given.target else 'deleted'}\n")


def _alias_list(places: Layout, given: argparse.Namespace) -> None:
    for address, targets in sorted(store.load(places).aliases.items()):
        sys.stdout.write(f"{address}\t{' '.join(targets)}\n")


def _domain_add(places: Layout, given: argparse.Namespace) -> None:
    domain = accounts.read_domain(given.domain)
    accounts.add_domain(places, domain)
    sys.stdout.write(f"{domain}: added\n")
    if _make_signing_key(places, given.env, domain):
        sys.stdout.write(f"{domain}: made a DKIM key; its DNS records: postern dns {domain}\n")


def _make_signing_key(places: Layout, env: dict[str, str], domain: str) -> bool:
    """Make a key for a domain, where mail is signed; say whether one was made."""
    try:
        settings = settings_sources.load(env).settings
    except settings_sources.SettingsError:
        return False  # not the environment of the services: their next start makes it
    return bool(settings.dkim and dkim.ensure(places, [domain], settings.dkim))


def _domain_del(places: Layout, given: argparse.Namespace) -> None:
    domain = accounts.read_domain(given.domain)
    accounts.delete_domain(places, domain)
    sys.stdout.write(f"{domain}: deleted\n")


def _domain_list(places: Layout, given: argparse.Namespace) -> None:
    for domain in store.load(places).domains:
        sys.stdout.write(f"{domain}\n")
