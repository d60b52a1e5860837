"""What the appliance stands on: its rights in the container, and places to write to."""

import fcntl
import os
from typing import NamedTuple

from appliance import render
from appliance.errors import ApplianceError
from appliance.layout import Layout
from appliance.settings import Settings


class GroundError(ApplianceError):
    """The container is not as the appliance needs it."""


class Capability(NamedTuple):
    """A capability of capabilities(7) that the appliance needs."""

    bit: int
    name: str
    reason: str


CAPABILITIES = (
    Capability(0, "CHOWN", "homes and messages get their owners"),
    Capability(5, "KILL", "services that run as other users are signalled"),
    Capability(6, "SETGID", "every program runs as a group of its own"),
    Capability(7, "SETUID", "every program runs as a user of its own"),
)
NET_BIND_SERVICE = Capability(10, "NET_BIND_SERVICE", "ports below {} are bound")


def check_rights(settings: Settings, status: str = "/proc/self/status") -> None:
    """Check user and capabilities.

    Raises:
        GroundError: something is missing; it names the option that gives it.
    """
    if os.geteuid() != 0:
        raise GroundError(
            f"runs as uid {os.geteuid()}: start the container as root; "
            "every service then drops to a user of its own"
        )
    with open(status) as file:
        lines = dict(line.split(":", 1) for line in file if ":" in line)
    held = int(lines["CapEff"], 16)
    needed = list(CAPABILITIES)
    if (floor := unprivileged_port_floor()) > min(_ports(settings), default=65536):
        needed.append(NET_BIND_SERVICE._replace(reason=NET_BIND_SERVICE.reason.format(floor)))
    missing = [c for c in needed if not held >> c.bit & 1]
    if missing:
        raise GroundError(
            "missing capabilities: "
            + "; ".join(f"{c.name} ({c.reason})" for c in missing)
            + ": "
            + " ".join(f"--cap-add {c.name}" for c in missing)
        )


def check_writable(places: Layout) -> None:
    """Check that there is room for what lasts and for what does not.

    Raises:
        GroundError: a place cannot be written; it says what to do about it.
    """
    if not os.access(places.run, os.W_OK):
        raise GroundError(f"{places.run}: cannot be written: add --tmpfs {places.run}")
    if not os.path.isdir(places.data):
        raise GroundError(f"{places.data}: does not exist: mount a volume there")
    if not os.access(places.data, os.W_OK):
        owner = os.stat(places.data).st_uid
        raise GroundError(
            f"{places.data}: cannot be written; it belongs to uid {owner} and must be root's"
            if owner
            else f"{places.data}: cannot be written: the volume is read-only"
        )


def check_alone(places: Layout) -> None:
    """Check that no s6-svscan runs on the service directories, which we would pull away.

    Raises:
        GroundError: one does; ``docker exec`` is not for ``postern start``.
    """
    try:
        fd = os.open(places.services + "/.s6-svscan/lock", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise GroundError(f"{places.services}: the services are running already") from None
    finally:
        os.close(fd)


def doubt_about_memory(path: str = "/proc/sys/fs/suid_dumpable") -> str:
    """Return what to say when processes of one user can look into each other, "" otherwise.

    The parsers of passwords are many, of one user, and hidden from each other only where the
    kernel hides a process that was root.
    """
    try:
        with open(path) as file:
            is_debugging = file.read().strip() == "1"
    except OSError:
        return ""
    return "fs.suid_dumpable is 1: SESSIONS CAN READ EACH OTHER'S MEMORY" if is_debugging else ""


def unprivileged_port_floor() -> int:
    """Return the lowest port that needs no capability."""
    try:
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 1024


def _ports(settings: Settings) -> list[int]:
    return [settings.port(name) for name in settings.active if render.is_listening(name)]
