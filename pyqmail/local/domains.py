"""The control files that decide which addresses are for this host, watched for changes."""

import os

from pyqmail.send import controls
from pyqmail.send.routing import Routing

FILES = ("me", "locals", "virtualdomains", "percenthack", "envnoathost")

Version = tuple[tuple[int, int, int], ...]


def version() -> Version:
    """Return something that differs once one of the files has been changed or replaced."""
    return tuple(file_version("control/" + name) for name in FILES)


def file_version(path: str) -> tuple[int, int, int]:
    """Return what tells one content of a file from the next; zeros without a file."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0, 0
    return status.st_mtime_ns, status.st_ino, status.st_size


def read() -> Routing:
    """Return qmail-send's routing by the files as they are now.

    Raises:
        ControlError: one cannot be read, or there is neither locals nor me.
    """
    return controls.read_routing(controls.read())
