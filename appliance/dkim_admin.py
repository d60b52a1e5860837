"""``postern dkim``: the command line of signing keys."""

import argparse
import sys
from collections.abc import Callable

from appliance import accounts, dkim, store
from appliance.errors import ApplianceError
from appliance.layout import Layout

EXIT_REFUSED = 1
EXIT_USAGE = 100
EXIT_TEMPORARY = 111
KEY_LIMIT = 65536  # bytes of a key on standard input

Command = Callable[[Layout, argparse.Namespace], None]


def main(argv: list[str], env: dict[str, str], places: Layout | None = None) -> int:
    """Run ``dkim`` with its arguments.

    Returns:
        0; 1 when the change was refused, with a line that says why; 100 for wrong usage; 111
        when the volume could not be read or written.
    """
    try:
        arguments = parser().parse_args(argv[1:])
    except SystemExit as leaving:
        return EXIT_USAGE if leaving.code else 0
    command: Command = arguments.run
    try:
        command(places or Layout(), arguments)
    except (dkim.DkimError, accounts.AccountError) as error:
        sys.stderr.write(f"postern: {error}\n")
        return EXIT_REFUSED
    except (ApplianceError, OSError) as error:
        sys.stderr.write(f"postern: {error}\n")
        return EXIT_TEMPORARY
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser."""
    top = argparse.ArgumentParser(
        prog="postern dkim",
        allow_abbrev=False,
        description="Keys that submitted mail is signed with. To change a domain's key: new, put "
        "the record that it prints into the DNS, wait until it can be seen there, use, and a "
        "week later del for the old one.",
    )
    verbs = top.add_subparsers(required=True, metavar="VERB")
    listing = _verb(verbs, "list", _list, "list keys: domain, selector, algorithm, in use or not")
    listing.add_argument("domain", nargs="?")
    new = _verb(verbs, "new", _new, "make a key, not in use yet, and print its DNS record")
    new.add_argument("domain")
    new.add_argument("--algorithm", choices=dkim.ALGORITHMS, default="rsa")
    new.add_argument("--selector", default="", help="its name in the DNS, else from the date")
    importing = _verb(verbs, "import", _import, "take a private key in PEM from stdin")
    importing.add_argument("domain")
    importing.add_argument("selector")
    use = _verb(verbs, "use", _use, "sign with these keys from now on, and with no other")
    use.add_argument("domain")
    use.add_argument("selector", nargs="+")
    delete = _verb(verbs, "del", _del, "delete a key that is not in use")
    delete.add_argument("domain")
    delete.add_argument("selector")
    return top


def _verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Command,
    text: str,
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
    verb.set_defaults(run=run)
    return verb


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
