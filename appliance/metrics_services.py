"""What s6 knows of a service, and which certificate the service shows."""

import os
import struct
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from appliance import health
from appliance.layout import Layout
from appliance.metrics_table import LISTENERS

STATUS_LIMIT = 128
# s6's time is TAI64N; Debian's reckons with the leap seconds, 37 since 2017.
_TAI = (1 << 62) + 37
# Of skarnet's s6: when it changed, when it was ready, pid, process group, wait status, flags.
_STATUS = struct.Struct("!QIQIQQHB")
# Before s6 2.11.2 there was no process group.
_OLD_STATUS = struct.Struct("!QIQIQHB")
_FINISHING, _READY = 0x02, 0x08

PROBE_SECONDS = 600  # from one look at the certificates to the next
PROBE_TIMEOUT = 5.0  # seconds for one service


class Status(NamedTuple):
    """What a service does."""

    up: bool
    ready: bool | None  # None: it never says
    changed: float  # seconds since the epoch


def parse_status(content: bytes) -> Status | None:
    """Return what the status file of a supervise directory says; None when it is none."""
    if len(content) == _STATUS.size:
        seconds, nanoseconds, _, _, pid, _, _, flags = _STATUS.unpack(content)
    elif len(content) == _OLD_STATUS.size:
        seconds, nanoseconds, _, _, pid, _, flags = _OLD_STATUS.unpack(content)
    else:
        return None
    if not _TAI <= seconds < _TAI + (1 << 40) or nanoseconds >= 1_000_000_000:
        return None
    up = pid != 0 and not flags & _FINISHING
    return Status(up, up and bool(flags & _READY), seconds - _TAI + nanoseconds / 1e9)


def status(places: Layout, name: str) -> Status | None:
    """Return what a service does; None when that is not known."""
    directory = f"{places.services}/{name}"
    try:
        with open(f"{directory}/supervise/status", "rb") as file:
            found = parse_status(file.read(STATUS_LIMIT))
    except OSError:
        return None
    if found is not None and not os.path.exists(f"{directory}/notification-fd"):
        return found._replace(ready=None)
    return found


def shown_certificate(places: Layout, name: str) -> bytes:
    """Return the certificate that a service shows to its clients, in DER; empty without TLS.

    Raises:
        OSError, Failure: there is no answer, or a wrong one.
    """
    until = time.monotonic() + PROBE_TIMEOUT
    with open(f"{places.services}/{name}/data/check") as file:
        words = file.readline().split()
    if not words or words[0] not in health.WITH_TLS or words[-1] == "plain":
        return b""
    return health.WITH_TLS[words[0]](*words[1:], until)


def not_after(certificate: bytes) -> float:
    """Return when a certificate in DER expires, in seconds since the epoch.

    Raises:
        ValueError: it is none.
    """
    from cryptography import x509

    return x509.load_der_x509_certificate(certificate).not_valid_after_utc.timestamp()


class Certificates:
    """The end of each shown certificate, looked at now and then by a thread of its own."""

    def __init__(self, places: Layout, log: Callable[[str], None]) -> None:
        """Prepare; `start` begins. log takes one line."""
        self._places = places
        self._log = log
        self._again = threading.Event()
        self._ends: dict[str, float] = {}
        self._said: dict[str, str] = {}  # so that what stays wrong is said once

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._run, daemon=True).start()

    def look_again(self) -> None:
        """Look soon: a certificate has been replaced."""
        self._again.set()

    @property
    def ends(self) -> dict[str, float]:
        """When the certificate of each service expires, in seconds since the epoch."""
        return self._ends

    def look(self) -> None:
        """Look at all services, and forget those that do not answer."""
        found: dict[str, float] = {}
        trouble: dict[str, str] = {}
        for name in health.service_names(self._places):
            if name in LISTENERS:
                try:
                    if certificate := shown_certificate(self._places, name):
                        found[name] = not_after(certificate)
                except (OSError, ValueError, health.Failure) as error:
                    trouble[name] = f"certificate of {name}: {error}"
                    if trouble[name] != self._said.get(name):
                        self._log(trouble[name])
        self._ends, self._said = found, trouble

    def _run(self) -> None:
        while True:
            self.look()
            # Services that have just been started may not answer yet.
            answered = all(name in self._ends for name in _expected(self._places))
            self._again.wait(PROBE_SECONDS if answered else PROBE_SECONDS / 60)
            self._again.clear()


def _expected(places: Layout) -> list[str]:
    names = [name for name in health.service_names(places) if name in LISTENERS]
    return [name for name in names if os.path.exists(f"{places.services}/{name}/env/CERTFILE")]
