"""Read what people write into settings: domains, addresses, lists, durations.

Pure functions from text to values. Each raises ValueError with what was wrong; the
setting's own description says what it takes.
"""

import ipaddress
import re
import shlex
from collections.abc import Callable

DOMAIN_SIZE = 253  # RFC 1035, 2.3.4, without the root's dot
LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
LOCAL_SIZE = 64  # RFC 5321, 4.5.3.1.1
LOCAL_PART = re.compile(r"[a-z0-9_+=-][a-z0-9._+=-]*\Z")

OCTET = r"(\d{1,3}|\[[0-9.;]+\])"
CODES = re.compile(rf"{OCTET}\.{OCTET}\.{OCTET}\.{OCTET}\Z")

TLS_LEVELS = ("none", "may", "require", "verify")

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def domain(text: str) -> str:
    """Return a domain name in lower case, in its ASCII form (IDNA) when it is not.

    Raises:
        ValueError: it is no domain name.
    """
    name = text.strip().lower().removesuffix(".")
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError:
            raise ValueError("no domain name") from None
    if not name or len(name) > DOMAIN_SIZE or not all(map(LABEL.match, name.split("."))):
        raise ValueError("no domain name")
    return name


def full_host_name(text: str) -> str:
    """Return a host name of at least two labels, in lower case.

    Raises:
        ValueError: it is none, or a number and dots, which is an address.
    """
    name = domain(text)
    if "." not in name:
        raise ValueError("a host name without a dot")
    if name.rpartition(".")[2].isdigit():
        raise ValueError("an address, not a name")
    return name


def local_part(text: str) -> str:
    """Return the part of an address before the ``@``, in lower case.

    Only what is safe as a file name, in users/assign and in a dot-qmail name is taken.

    Raises:
        ValueError: it has another character, begins with a dot, or is too long.
    """
    name = text.lower()
    if len(name) > LOCAL_SIZE:
        raise ValueError(f"longer than {LOCAL_SIZE} characters before the @")
    if not LOCAL_PART.match(name) or ".." in name or name.endswith("."):
        raise ValueError("letters, digits and . _ + = - only, and no dot at an end, before the @")
    return name


def address(text: str) -> str:
    """Return a mail address ``local@domain`` in lower case.

    Raises:
        ValueError: it is none, or not one that can be an account here.
    """
    local, at, name = text.strip().rpartition("@")
    if not at:
        raise ValueError("no @ in it")
    return f"{local_part(local)}@{domain(name)}"


def words(value: object) -> list[str]:
    """Return the items of a list given as such or as text with commas or blanks."""
    if isinstance(value, str):
        return value.replace(",", " ").split()
    return _texts(value)


def lines(value: object, separator: str = ",") -> list[str]:
    """Return the items of a list given as such or as text with separators or line ends."""
    items = re.split(f"[{separator}\n]", value) if isinstance(value, str) else _texts(value)
    return [item.strip() for item in items if item.strip()]


def command(value: object) -> list[str]:
    """Return the words of a command line, quoted as a shell wants it, or of a list."""
    items = shlex.split(value) if isinstance(value, str) else _texts(value)
    if not items or any("\0" in item or "\n" in item for item in items):
        raise ValueError("no command line")
    return items


def numbers_by_name(value: object) -> dict[str, object]:
    """Return name -> number of a table, or of text like ``mx=2525,pop3=1110``."""
    if isinstance(value, str):
        pairs = [item.partition("=") for item in words(value)]
        if any(not middle for _, middle, _ in pairs):
            raise ValueError("an item without =")
        return {name.strip(): number.strip() for name, _, number in pairs}
    if isinstance(value, dict):
        return value
    raise ValueError("no list of name=number")


def seconds(value: object) -> int:
    """Return a number of seconds: a plain number, or one with s, m, h, d or w."""
    return _number(value, UNITS | {"": 1}, str.lower)


def size(value: object) -> int:
    """Return a number of bytes: a plain number, or one with K, M or G (powers of 1024)."""
    return _number(value, SIZES, lambda unit: unit.upper().removesuffix("B").removesuffix("I"))


def bind_address(value: str) -> str:
    """Return an IP address, or ``0`` for every address of both families."""
    text = value.strip().removeprefix("[").removesuffix("]")
    if text in {"0", "0.0.0.0", "::", "*"}:
        return "0"
    return str(ipaddress.ip_address(text))


def network(text: str) -> str:
    """Return a network in CIDR notation; an address is a network of one.

    Raises:
        ValueError: it is none, or has address bits beyond its prefix.
    """
    return str(ipaddress.ip_network(text))


def has_loopback(text: str) -> bool:
    """Whether 127.0.0.1 or ::1 belongs to a network."""
    block = ipaddress.ip_network(text)
    return ipaddress.ip_address("127.0.0.1" if block.version == 4 else "::1") in block


def dns_list(text: str) -> str:
    """Return the zone of a list in the DNS, perhaps with ``=`` and what answers count.

    Raises:
        ValueError: it is none, or rblsmtpd would not take it.
    """
    zone, equals, codes = text.partition("=")
    match = CODES.match(codes)
    if equals and not (match and all(map(_is_choice, match.groups()))):
        raise ValueError("no codes such as 127.0.0.[2..11] after the =")
    return domain(zone) + equals + codes


def _is_choice(octet: str) -> bool:
    """Whether octet is a number, or in brackets numbers and ranges: ``[2..4;10]``."""
    ends = [item.split("..") for item in octet.strip("[]").split(";")]
    return all(
        len(pair) <= 2
        and all(end.isdigit() and int(end) <= 255 for end in pair)
        and int(pair[0]) <= int(pair[-1])
        for pair in ends
    )


def route(text: str) -> str:
    """Return one line of control/smtproutes: ``domain:relay[:port][ user password]``.

    Raises:
        ValueError: it has no relay, or a port in its place, or a port that is none.
    """
    place, _, credentials = text.partition(" ")
    name, colon, rest = place.partition(":")
    if not colon:
        raise ValueError("no colon between domain and relay")
    if name:
        domain(name.removeprefix("."))
    relay, _, port = rest.partition("]:") if rest.startswith("[") else rest.partition(":")
    if relay.isdigit():
        raise ValueError("a port in the relay's place; relay:port for all mail is :relay:port")
    if relay and not relay.startswith("["):
        domain(relay)
    if port and not (port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("no port after the relay")
    if credentials and len(credentials.split()) != 2:
        raise ValueError("user and password must be two words")
    return text


def tls_destination(text: str) -> str:
    """Return one line of control/tlsdestinations: ``domain:level[:name,name]``.

    Raises:
        ValueError: there is no such level, or names belong to another one.
    """
    name, colon, rest = text.partition(":")
    level, _, names = rest.partition(":")
    if name and not name.startswith("["):
        domain(name.removeprefix("."))
    if not colon or level.strip() not in TLS_LEVELS:
        raise ValueError("no level out of " + ", ".join(TLS_LEVELS))
    if names.strip() and level.strip() != "verify":
        raise ValueError("names without verify")
    return text


def _texts(value: object) -> list[str]:
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return list(value)
    raise ValueError("no list")


def _number(value: object, units: dict[str, int], normal: Callable[[str], str]) -> int:
    if isinstance(value, bool):
        raise ValueError("no number")
    if isinstance(value, int):
        return value
    match = re.fullmatch(r"(\d{1,15}) ?([A-Za-z]*)", str(value).strip())
    if match is None or normal(match[2]) not in units:
        raise ValueError("no number")
    return int(match[1]) * units[normal(match[2])]
