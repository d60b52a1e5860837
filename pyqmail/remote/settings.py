"""What the control files say on mail for one domain (qmail-remote(8))."""

import ipaddress
from typing import NamedTuple

from pyqmail.remote import addresses, policy, report, resolve, routes
from pyqmail.remote.addresses import IPAddress
from pyqmail.remote.policy import Policy
from pyqmail.remote.resolve import Servers
from pyqmail.remote.routes import Credentials, Route
from ucspi import control

TIMEOUT_CONNECT = 60  # seconds; control/timeoutconnect
TIMEOUT = 1200  # seconds; control/timeoutremote
DANE_WORDS = (b"on", b"off", b"auto")  # control/dane


class Settings(NamedTuple):
    """What the control files say; settings that are equal lead to the same connection."""

    helo: bytes
    timeout_connect: int
    timeout: int
    route: Route | None
    domain: bytes  # the recipient's, or the relay
    policy: Policy
    mine: frozenset[IPAddress]  # more addresses of this host, as others see it
    servers: Servers
    policies: str  # the directory of MTA-STS policies; empty: MTA-STS is not used


def read(host: bytes, env: dict[str, str]) -> Settings:
    """Read the control files. Changes to the qmail home.

    Args:
        host: the recipient's domain.
        env: the program's environment.

    Raises:
        Outcome: one cannot be read or makes no sense.
    """
    try:
        control.enter_home(env)
    except control.ControlError as error:
        raise report.outcome(report.NO_HOME) from error
    try:
        return _read(host)
    except (control.ControlError, routes.RouteError, policy.PolicyError) as error:
        raise report.outcome(report.NO_CONTROLS) from error


def _read(host: bytes) -> Settings:
    helo = control.read_line("helohost", or_me=True)
    if not helo:
        raise control.ControlError("neither control/helohost nor control/me exists")
    route = routes.find(routes.table(control.read_lines("smtproutes") or []), host)
    if route is not None and route.credentials is not None:
        route = route._replace(credentials=_with_password(route.credentials))
    domain = host if route is None else route.relay
    secret = route is not None and route.credentials is not None
    lines = control.read_lines("tlsdestinations") or []
    directory = control.read_line("mtastscache") or b""
    return Settings(
        helo,
        max(1, control.read_number("timeoutconnect", TIMEOUT_CONNECT)),
        max(1, control.read_number("timeoutremote", TIMEOUT)),
        route,
        domain,
        policy.find(lines, domain, secret=secret),
        _more_of_mine(control.read_lines("moreipme") or []),
        _servers() if route is None else resolve.SYSTEM,
        directory.decode("utf-8", "surrogateescape"),
    )


def _with_password(credentials: Credentials) -> Credentials:
    """Return the credentials with the password itself if they name a file.

    Raises:
        ControlError: it cannot be read.
    """
    path = credentials.password_file
    if path is None:
        return credentials
    try:
        with open(path, "rb") as file:
            return Credentials(credentials.user, control.parse_line(file.read()))
    except OSError as error:
        raise control.ControlError(f"unable to read {path}: {error.strerror}") from error


def _more_of_mine(lines: list[bytes]) -> frozenset[IPAddress]:
    """Return the addresses in control/moreipme; lines that are none are passed over."""
    found = (addresses.literal(line) for line in lines)
    return frozenset(address for address in found if address is not None)


def _servers() -> Servers:
    """Return whom to ask for names, and whether their word on validation counts.

    Raises:
        ControlError: control/resolvers or control/dane makes no sense.
    """
    lines = control.read_lines("resolvers") or []
    try:
        named = tuple(str(ipaddress.ip_address(line.decode("ascii"))) for line in lines)
    except ValueError as error:
        raise control.ControlError(f"control/resolvers: {error}") from error
    word = control.read_line("dane")
    if word is None:
        word = b"auto"
    if word not in DANE_WORDS:
        raise control.ControlError("control/dane: neither on, off nor auto")
    if word == b"auto":
        return Servers(named, not named and resolve.system_trusts_ad())
    return Servers(named, word == b"on")
