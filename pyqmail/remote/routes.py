"""control/smtproutes: by which way mail for a domain goes (qmail-remote(8)).

    domain:relay                        example.org:mail.example.net
    domain:relay:port                   .example.org:[2001:db8::1]:2525
    domain:relay:port user password     :smtp.example.net:587 joe file:control/relaypassword

A domain that begins with a dot stands for all names that end in it, the empty domain for
all others; the longest that fits counts. An empty relay means that there is no
relay: the mail exchangers are looked up. ``file:PATH`` is a file whose first line is
the password, PATH relative to the qmail home.
"""

from typing import NamedTuple

SMTP_PORT = 25
PASSWORD_FILE = b"file:"


class RouteError(Exception):
    """A line of smtproutes makes no sense."""


class Credentials:
    """A user name and a password, or where the password is; shows neither."""

    __slots__ = ("password", "user")

    def __init__(self, user: bytes, password: bytes) -> None:
        self.user = user
        self.password = password

    def __eq__(self, other: object) -> bool:
        """Compare user and password."""
        if not isinstance(other, Credentials):
            return NotImplemented
        return (self.user, self.password) == (other.user, other.password)

    def __hash__(self) -> int:
        """Hash the user only."""
        return hash(self.user)

    def __repr__(self) -> str:
        """Return a text without the secret."""
        return "Credentials(...)"

    @property
    def password_file(self) -> str | None:
        """The path of the file with the password, if that is how it is given."""
        if not self.password.startswith(PASSWORD_FILE):
            return None
        return self.password[len(PASSWORD_FILE) :].decode("utf-8", "surrogateescape")


class Route(NamedTuple):
    """Where to connect to instead of the mail exchangers."""

    relay: bytes
    port: int = SMTP_PORT
    credentials: Credentials | None = None


def names(domain: bytes) -> list[bytes]:
    """Return under which names something for domain may be listed, the best first."""
    lower = domain.lower()
    dots = [offset for offset in range(1, len(lower)) if lower[offset : offset + 1] == b"."]
    return [lower, *(lower[dot:] for dot in dots), b""]


def table(lines: list[bytes]) -> dict[bytes, bytes]:
    """Return domain -> way of all lines; domains in lower case."""
    found = {}
    for line in lines:
        name, colon, way = line.partition(b":")
        if colon:
            found[name.lower()] = way
    return found


def find(listed: dict[bytes, bytes], domain: bytes) -> Route | None:
    """Return the route for domain, None for the mail exchangers.

    Args:
        listed: what `table` returned.
        domain: the recipient's.

    Raises:
        RouteError: the line for the domain makes no sense. Other lines do not matter.
    """
    for name in names(domain):
        if name in listed:
            return parse(listed[name])
    return None


def parse(way: bytes) -> Route | None:
    """Return the route that follows the domain and the colon, None for an empty relay.

    Raises:
        RouteError: it makes no sense.
    """
    if not way.strip() or way[:1].isspace():
        return None
    target, *rest = way.split(None, 2)
    if len(rest) == 1:
        raise RouteError("a user without a password")
    if target.startswith(b"["):
        relay, bracket, tail = target.partition(b"]")
        relay += bracket
        if not bracket or (tail and not tail.startswith(b":")):
            raise RouteError("an address without its end")
        port = tail[1:]
    else:
        relay, _, port = target.partition(b":")
    if not relay:
        return None
    if port and not (port.isdigit() and 0 < int(port) < 65536):
        raise RouteError("no port number")
    credentials = Credentials(rest[0], rest[1]) if rest else None
    return Route(relay, int(port or SMTP_PORT), credentials)
