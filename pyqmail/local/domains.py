"""Which addresses are for this host, and under which local name: qmail-send's rewriting.

The rules are those of qmail-send(8) for locals, virtualdomains, percenthack and
envnoathost.
"""

import os
from typing import NamedTuple

from ucspi import control

FILES = ("me", "locals", "virtualdomains", "percenthack", "envnoathost")

Version = tuple[tuple[int, int, int], ...]


class Domains(NamedTuple):
    """What the control files say; all names in lower case."""

    locals: frozenset[bytes]
    virtual: dict[bytes, bytes]  # address, domain, .suffix or the empty name -> prepend
    percenthack: frozenset[bytes]
    no_host: bytes  # the host of an address without one

    def local_name(self, address: bytes) -> bytes | None:
        """Return the local part for a delivery on this host, None if it is not for here."""
        box, at, host = address.rpartition(b"@")
        if not at:
            box, host = address, self.no_host
        while host.lower() in self.percenthack and b"%" in box:
            box, _, host = box.rpartition(b"%")
        if host.lower() in self.locals:
            return box
        address = box + b"@" + host
        prepend = self._prepend(address.lower(), host.lower())
        if not prepend:
            return None
        return (prepend + b"-" + address).rpartition(b"@")[0]

    def _prepend(self, address: bytes, host: bytes) -> bytes | None:
        """Return what is prepended for a virtual domain; empty: expressly not virtual."""
        found = self.virtual.get(address, self.virtual.get(host))
        dot = host.find(b".")
        while found is None and dot >= 0:
            found = self.virtual.get(host[dot:])
            dot = host.find(b".", dot + 1)
        return self.virtual.get(b"") if found is None else found


def version() -> Version:
    """Return something that differs once one of the control files has been changed."""
    found = []
    for name in FILES:
        try:
            status = os.stat("control/" + name)
            found.append((status.st_mtime_ns, status.st_ino, status.st_size))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)


def read() -> Domains:
    """Read the control files below the current directory.

    Raises:
        ControlError: one cannot be read, or ``me`` is needed and missing.
    """
    me = control.read_line("me")
    local = control.read_lines("locals")
    if local is None:
        if me is None:
            raise control.ControlError("neither control/locals nor control/me exists")
        local = [me]
    virtual = {}
    for line in control.read_lines("virtualdomains") or ():
        name, colon, prepend = line.partition(b":")
        if colon:
            virtual[name.lower()] = prepend
    return Domains(
        frozenset(name.lower() for name in local),
        virtual,
        frozenset(name.lower() for name in control.read_lines("percenthack") or ()),
        control.read_line("envnoathost") or me or b"envnoathost",
    )
