"""The control files of qmail-send."""

from typing import NamedTuple

from pyqmail.send.routing import Routing
from ucspi import control

CONCURRENCY = (10, 20)  # local, remote
CONCURRENCY_FILES = ("concurrencylocal", "concurrencyremote")
QUEUE_LIFETIME = 604_800  # seconds: a week


class Identity(NamedTuple):
    """Whom bounces come from, and who gets those that bounce."""

    bounce_from: bytes
    bounce_host: bytes
    double_bounce_to: bytes  # a whole address; one that begins with @ discards


class Controls(NamedTuple):
    """What the control files say."""

    concurrency: tuple[int, int]
    lifetime: int
    identity: Identity
    percent_hack: list[bytes]
    no_at_host: bytes


def _line(name: str, default: bytes, *, or_me: bool = False) -> bytes:
    line = control.read_line(name, or_me=or_me)
    return default if line is None else line


def read() -> Controls:
    """Read what is read once, at the start. The current directory is the qmail home.

    Raises:
        ControlError: a file cannot be read, or does not parse.
    """
    local, remote = map(control.read_number, CONCURRENCY_FILES, CONCURRENCY)
    double_host = _line("doublebouncehost", b"doublebouncehost", or_me=True)
    return Controls(
        (local, remote),
        control.read_number("queuelifetime", QUEUE_LIFETIME),
        Identity(
            _line("bouncefrom", b"MAILER-DAEMON"),
            _line("bouncehost", b"bouncehost", or_me=True),
            _line("doublebounceto", b"postmaster") + b"@" + double_host,
        ),
        control.read_lines("percenthack") or [],
        _line("envnoathost", b"envnoathost", or_me=True),
    )


def read_routing(controls: Controls) -> Routing:
    """Read locals and virtualdomains, at the start and on SIGHUP.

    Raises:
        ControlError: a file cannot be read, or there is neither locals nor me.
    """
    local_domains = control.read_lines("locals")
    if local_domains is None:
        me = control.read_line("me")
        if me is None:
            raise control.ControlError("neither control/locals nor control/me")
        local_domains = [me]
    return Routing(
        local_domains,
        control.read_lines("virtualdomains") or [],
        controls.percent_hack,
        controls.no_at_host,
    )
