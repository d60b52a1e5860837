"""``postern dkim``: the command line of signing keys."""

import argparse
import sys

from appliance import accounts, commandline, dkim, store
from appliance.commandline import Parser, verb
from appliance.layout import Layout

KEY_LIMIT = 65536  # bytes of a key on standard input


def main(argv: list[str], env: dict[str, str], places: Layout | None = None) -> int:
    """Run ``dkim`` with its arguments.

    Returns:
        See `commandline.main`.
    """
    refusals = (dkim.DkimError, accounts.AccountError)
    return commandline.main(parser(), argv[1:], env, places, refusals)


def parser() -> Parser:
    """Return the parser."""
    top = Parser(
        prog="postern dkim",
        allow_abbrev=False,
        description="Keys that submitted mail is signed with. To change a domain's key: new, put "
        "the record that it prints into the DNS, wait until it can be seen there, use, and a "
        "week later del for the old one.",
    )
    verbs = top.add_subparsers(required=True, metavar="VERB")
    listing = verb(verbs, "list", _list, "list keys: domain, selector, algorithm, in use or not")
    listing.add_argument("domain", nargs="?")
    new = verb(verbs, "new", _new, "make a key, not in use yet, and print its DNS record")
    new.add_argument("domain")
    new.add_argument("--algorithm", choices=dkim.ALGORITHMS, default="rsa")
    new.add_argument("--selector", default="", help="its name in the DNS, else from the date")
    importing = verb(verbs, "import", _import, "take a private key in PEM from stdin")
    importing.add_argument("domain")
    importing.add_argument("selector")
    use = verb(verbs, "use", _use, "sign with these keys from now on, and with no other")
    use.add_argument("domain")
    use.add_argument("selector", nargs="+")
    delete = verb(verbs, "del", _del, "delete a key that is not in use")
    delete.add_argument("domain")
    delete.add_argument("selector")
    return top


def _domain(places: Layout, text: str) -> str:
    """Return a domain of ours in its one form.

    Raises:
        AccountError: it is none of ours.
    """
    domain = accounts.read_domain(text)
    if domain not in store.load(places).domains:
        raise accounts.AccountError(f"{domain}: is not one of our domains")
    return domain


def _list(places: Layout, given: argparse.Namespace) -> None:
    every = store.load(places).domains
    for domain in [_domain(places, given.domain)] if given.domain else sorted(every):
        used = dkim.used(places, domain)
        for selector in dkim.selectors(places, domain):
            algorithm = dkim.algorithm(dkim.read(places, domain, selector))
            state = "in use" if selector in used else "-"
            sys.stdout.write(f"{domain}\t{selector}\t{algorithm}\t{state}\n")


def _new(places: Layout, given: argparse.Namespace) -> None:
    domain = _domain(places, given.domain)
    selector = dkim.make(places, domain, given.algorithm, given.selector)
    sys.stdout.write(dkim.zone_line(places, domain, selector) + "\n")


def _import(places: Layout, given: argparse.Namespace) -> None:
    domain = _domain(places, given.domain)
    pem = sys.stdin.buffer.read(KEY_LIMIT)
    selector = dkim.keep(places, domain, pem, given.selector)
    sys.stdout.write(dkim.zone_line(places, domain, selector) + "\n")


def _use(places: Layout, given: argparse.Namespace) -> None:
    domain = _domain(places, given.domain)
    dkim.use(places, domain, *given.selector)
    sys.stdout.write(f"{domain}: signed with {' '.join(given.selector)}\n")


def _del(places: Layout, given: argparse.Namespace) -> None:
    domain = _domain(places, given.domain)
    dkim.delete(places, domain, given.selector)
    sys.stdout.write(f"{domain}: {given.selector} deleted\n")
