"""``postern user file``: the files by which an account says what becomes of its mail.

Users have no shell here. What they would edit in their home, an administrator puts there
for them: dot-qmail files, the filters of submitted mail, and programs for both.
"""

import argparse
import os
import re
import sys
from typing import Any

from appliance import accounts
from appliance.accounts import AccountError
from appliance.layout import Layout

NAMES = re.compile(r"\.qmail(-[^/\0\n]{1,200})?|(\.ofmipd|bin)/(?!\.)[^/\0\n]{1,200}")
SHOWN_NAMES = ".qmail, .qmail-EXT, .ofmipd/NAME or bin/NAME"
DIRECTORIES = (".ofmipd", "bin")
PROGRAMS = "bin/"
SIZE_LIMIT = 16 << 20  # bytes


def add_parser(verbs: Any) -> None:
    """Add ``file`` to the verbs of ``postern user``."""
    text = "files in the account's home: " + SHOWN_NAMES
    file = verbs.add_parser("file", help=text, description=text, allow_abbrev=False)
    actions = file.add_subparsers(required=True, metavar="ACTION")
    for name, run, help_text in (
        ("list", _list, "list them"),
        ("show", _show, "print one"),
        ("put", _put, "replace one by what is on stdin"),
        ("del", _del, "remove one"),
    ):
        action = actions.add_parser(name, help=help_text, description=help_text)
        action.set_defaults(run=run)
        action.add_argument("address")
        if name != "list":
            action.add_argument("name", type=_name, help=SHOWN_NAMES)


def _name(text: str) -> str:
    if not NAMES.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text}: not {SHOWN_NAMES}")
    return text


def _home(places: Layout, address: str) -> str:
    accounts.require(places, address)
    return places.home(address)


def _list(places: Layout, given: argparse.Namespace) -> None:
    address = accounts.read_address(given.address)
    if not accounts.as_owner(_home(places, address), _print_names):
        raise AccountError(f"{address}: the home cannot be read")


def _print_names(home: str) -> bool:
    names = os.listdir(".")
    for directory in DIRECTORIES:
        if os.path.isdir(directory):
            names += [f"{directory}/{name}" for name in os.listdir(directory)]
    for name in sorted(names):
        if NAMES.fullmatch(name) and os.path.isfile(name):
            sys.stdout.write(name + "\n")
    sys.stdout.flush()
    return True


def _show(places: Layout, given: argparse.Namespace) -> None:
    address = accounts.read_address(given.address)

    def show(home: str) -> bool:
        with open(given.name, "rb") as file:
            sys.stdout.buffer.write(file.read())
        sys.stdout.flush()
        return True

    if not accounts.as_owner(_home(places, address), show):
        raise AccountError(f"{address}: {given.name} cannot be read")


def _put(places: Layout, given: argparse.Namespace) -> None:
    address = accounts.read_address(given.address)
    home = _home(places, address)
    content = sys.stdin.buffer.read(SIZE_LIMIT + 1)
    if len(content) > SIZE_LIMIT:
        raise AccountError(f"{given.name}: larger than {SIZE_LIMIT >> 20} MiB")
    if not accounts.as_owner(home, lambda home: write(given.name, content)):
        raise AccountError(f"{address}: {given.name} cannot be written")
    sys.stdout.write(f"{address}: {given.name} written\n")


def write(name: str, content: bytes) -> bool:
    """Replace the file; a delivery or a session sees the old one or the new one.

    Runs as the account, in its home.

    Raises:
        OSError: it cannot be written.
    """
    directory = os.path.dirname(name)
    if directory:
        os.makedirs(directory, mode=0o700, exist_ok=True)
    temporary = os.path.join(directory, f".postern.{os.getpid()}")
    mode = 0o700 if name.startswith(PROGRAMS) else 0o600
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(descriptor, mode)  # whatever the umask is
            os.fsync(descriptor)
        os.rename(temporary, name)
    except BaseException:
        os.unlink(temporary)
        raise
    return True


def _del(places: Layout, given: argparse.Namespace) -> None:
    address = accounts.read_address(given.address)

    def remove(home: str) -> bool:
        os.unlink(given.name)
        return True

    if not accounts.as_owner(_home(places, address), remove):
        raise AccountError(f"{address}: {given.name} cannot be removed")
    sys.stdout.write(f"{address}: {given.name} removed\n")
