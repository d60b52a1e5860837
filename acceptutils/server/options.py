"""acceptserver's command line."""

import getopt
from typing import NamedTuple

from acceptutils import identity
from acceptutils.server.addresses import Network
from acceptutils.server.admission import Limits

USAGE = (
    "usage: acceptserver [-t | -T] [-c connections] [-C connections-per-host]"
    " [-o own-connections] [-b backlog] [-u uid -g gid] [-l localname] [-x refusal]"
    " [-p network,...] [-K handshake-milliseconds] [-G grace-seconds] [-r uses] [-e uses]"
    " [-R connections] [-H hours] [-n descriptor] [-v | -q] [-V]"
    " host port prog [args ...]"
)

MOST = 2**31 - 1


class UsageError(Exception):
    """The command line is wrong."""


class Options(NamedTuple):
    """What the command line says; the defaults are those of an option not given."""

    host: str
    port: str
    program: list[str]
    offer_tls: bool = False  # -t
    implicit_tls: bool = False  # -T
    limits: Limits = Limits(total=100, per_host=MOST)  # -c, -C, -o
    backlog: int = 128  # -b
    uid: int | None = None  # -u
    gid: int | None = None  # -g
    local_name: str | None = None  # -l
    refusal: bytes = b""  # -x, with its line end
    proxies: tuple[Network, ...] = ()  # -p
    handshake_seconds: float | None = 60.0  # -K, in milliseconds; None: no limit
    grace_seconds: int = 30  # -G
    renew_connections: int = 50_000  # -R, 0: never
    renew_hours: int = 24  # -H, 0: never
    uses: int = 1  # -r, connections that one process serves
    engine_uses: int | None = None  # -e, those that one TLS engine serves; None: as -r
    notify: int | None = None  # -n
    verbose: bool = True  # -v, -q
    tls_facts: bool = False  # -V


_NUMBERS = {
    "-b": "backlog",
    "-G": "grace_seconds",
    "-R": "renew_connections",
    "-H": "renew_hours",
    "-n": "notify",
}
_IDENTITIES = {"-u": "uid", "-g": "gid"}
_FLAGS = {
    "-t": ("offer_tls", True),
    "-T": ("implicit_tls", True),
    "-v": ("verbose", True),
    "-q": ("verbose", False),
    "-V": ("tls_facts", True),
}


def parse(arguments: list[str]) -> Options:
    """Return the options that arguments, without the program's own name, spell.

    Raises:
        UsageError: an unknown option, a bad value, or not enough words.
    """
    try:
        pairs, rest = getopt.getopt(arguments, "tTc:C:o:b:u:g:l:x:p:K:G:r:e:R:H:n:vqV")
    except getopt.GetoptError as error:
        raise UsageError(error.msg) from error
    if len(rest) < 3:
        raise UsageError("host, port and program are wanted")
    options = Options(rest[0], rest[1], rest[2:])
    for flag, value in pairs:
        options = _apply(options, flag, value)
    if options.offer_tls and options.implicit_tls:
        raise UsageError("-t and -T exclude each other")
    if (options.uid is None) != (options.gid is None):
        raise UsageError("-u and -g are wanted together")
    if options.uses > 1 and options.uid is None:
        raise UsageError("-r wants -u and -g: a process that may become anybody serves once")
    return options


def _apply(options: Options, flag: str, value: str) -> Options:
    changed: dict[str, object]
    if flag in _FLAGS:
        name, setting = _FLAGS[flag]
        changed = {name: setting}
    elif flag in _NUMBERS:
        changed = {_NUMBERS[flag]: _number(flag, value)}
    elif flag in _IDENTITIES:
        try:
            changed = {_IDENTITIES[flag]: identity.number(value)}
        except ValueError as error:
            raise UsageError(f"{flag}: {error}") from error
    elif flag == "-r":
        changed = {"uses": _number(flag, value, least=1)}
    elif flag == "-e":
        changed = {"engine_uses": _number(flag, value, least=1)}
    elif flag == "-c":
        changed = {"limits": options.limits._replace(total=_number(flag, value, least=1))}
    elif flag == "-C":
        changed = {"limits": options.limits._replace(per_host=_number(flag, value, least=1))}
    elif flag == "-o":
        changed = {"limits": options.limits._replace(own=_number(flag, value))}
    elif flag == "-K":
        changed = {"handshake_seconds": _number(flag, value) / 1000 or None}
    elif flag == "-l":
        changed = {"local_name": value}
    elif flag == "-x":
        changed = {"refusal": value.encode("utf-8", "surrogateescape") + b"\r\n"}
    else:
        try:
            changed = {"proxies": tuple(Network(block) for block in value.split(",") if block)}
        except ValueError as error:
            raise UsageError(f"{flag}: {error}") from error
    return options._replace(**changed)  # type: ignore[arg-type]


def _number(flag: str, value: str, least: int = 0) -> int:
    if not (value.isascii() and value.isdigit() and least <= int(value) <= MOST):
        raise UsageError(f"{flag}: not a number from {least} on: {value}")
    return int(value)
