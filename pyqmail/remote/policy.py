"""control/tlsdestinations: what TLS has to be like for mail to a domain.

    domain:none             never TLS
    domain:may              TLS if the server offers it, whatever its certificate (default)
    domain:require          TLS, whatever the certificate
    domain:verify           TLS, with a valid certificate for the right name
    domain:verify:names     the same with one of these names, separated by commas

The domain is that of the recipient; for mail that has a route in smtproutes it is the
relay's name. ``.domain`` and the empty domain work as in smtproutes. A route with a
password is ``verify`` unless a line that names its relay says otherwise: a password
is not sent to just anyone.

What a domain says itself, by DANE or MTA-STS, counts on top of ``may`` and ``require``;
not where a line names the very domain.
"""

from enum import Enum
from typing import NamedTuple

from pyqmail.remote import routes


class PolicyError(Exception):
    """A line of tlsdestinations makes no sense."""


class Level(Enum):
    """How much TLS is wanted."""

    NONE = b"none"
    MAY = b"may"
    REQUIRE = b"require"
    VERIFY = b"verify"


class Policy(NamedTuple):
    """What TLS has to be like."""

    level: Level
    names: tuple[bytes, ...] = ()  # that the certificate may have; empty: the default ones
    firm: bool = False  # said of the very domain

    @property
    def is_floor(self) -> bool:
        """Whether the domain's own wishes count on top."""
        return not self.firm and self.level in (Level.MAY, Level.REQUIRE)


def find(lines: list[bytes], domain: bytes, *, secret: bool) -> Policy:
    """Return the policy for a domain or relay.

    Args:
        lines: of control/tlsdestinations.
        domain: the recipient's domain, or the relay.
        secret: a password will be sent.

    Raises:
        PolicyError: the line for the domain makes no sense.
    """
    listed = {}
    for line in lines:
        name, colon, rest = line.partition(b":")
        if colon:
            listed[name.lower()] = rest
    for name in routes.names(domain):
        if name in listed and (name or not secret):
            return parse(listed[name])._replace(firm=name == domain.lower() != b"")
    return Policy(Level.VERIFY if secret else Level.MAY)


def parse(text: bytes) -> Policy:
    """Return the policy that follows the domain and the colon.

    Raises:
        PolicyError: there is no such level, or names where none belong.
    """
    word, _, rest = text.partition(b":")
    names = tuple(name.strip().lower() for name in rest.split(b",") if name.strip())
    try:
        level = Level(word.strip().lower())
    except ValueError:
        raise PolicyError(f"no such level: {word[:20]!r}") from None
    if names and level is not Level.VERIFY:
        raise PolicyError("names without verify")
    return Policy(level, names)


def expected_names(policy: Policy, domain: bytes, host: bytes) -> tuple[bytes, ...]:
    """Return the names of which the certificate must have one.

    Without names in the policy: the domain's own; and the mail exchanger's only if it lies
    in the domain. Who forges the answers of the DNS can name any exchanger, and has a valid
    certificate for it, but not for a name in the domain.

    Args:
        policy: one that verifies.
        domain: the recipient's domain, or the relay.
        host: the mail exchanger, or the relay.
    """
    if policy.names:
        return policy.names
    own, exchanger = domain.lower(), host.lower()
    if exchanger.endswith(b"." + own):
        return own, exchanger
    return (own,)
