"""What qmail-lspawn knows of SRS (`pyqmail.srs`): it alone may read the secrets.

control/srs_domain switches it on and names the domain of the rewritten addresses; the
lines of control/srs_secrets are the secrets. qmail-lspawn, which is root, makes the sender
under which a message would be forwarded, and qmail-local and its programs find it in
``SRS_SENDER``; so the users, as whom they run, need no secret. And it knows for mail to
a rewritten address whose it is: that of the sender in it.
"""

import os
import stat
import time

from pyqmail.local import domains
from pyqmail.send.schedule import LOCAL
from ucspi import control, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyqmail.send.routing import Routing
    from pyqmail.srs import Scheme

DOMAIN = "srs_domain"
SECRETS = "srs_secrets"
FILES = (DOMAIN, SECRETS, *domains.FILES)
OTHERS = 0o007
CHECK_SECONDS = 1.0  # between two looks at whether the files have changed


class NoSuchAddress(Exception):
    """An address that looks like a rewritten one, and that nobody here made."""


class ReturnPaths:
    """The control files, read again when they change; without srs_domain, nothing."""

    def __init__(self, home: str, env: dict[str, str]) -> None:
        """Be ready for the mail system at home; env is for the log."""
        self._home = home
        self._env = env
        self._checked = -CHECK_SECONDS
        self._version: domains.Version = ()
        self._routing: Routing | None = None
        self._scheme: Scheme | None = None

    def version(self) -> domains.Version:
        """Return something that differs soon after a control file has been changed."""
        self._current()
        return self._version

    def sender_for(self, sender: bytes) -> bytes:
        """Return under which sender to forward a message from sender; empty: under its own.

        That is so for bounces, and for senders who are here.
        """
        scheme = self._current()
        if scheme is None or self._routing is None or not sender or sender.endswith(b"@[]"):
            return b""
        if self._routing.route(sender).channel == LOCAL:
            return b""
        rewritten = scheme.forward(sender, time.time())
        return b"" if rewritten == sender else rewritten

    def target_of(self, recipient: bytes) -> bytes | None:
        """Return to whom mail for a rewritten address goes, None for any other address.

        Args:
            recipient: as the client named it, or as qmail-send does, with what
                virtualdomains puts in front.

        Raises:
            NoSuchAddress: see there.
        """
        scheme = self._current()
        if scheme is None or self._routing is None:
            return None
        address = self._routing.without_prepend(recipient)
        if not scheme.is_ours(address):
            return None
        from pyqmail.srs import SrsError

        try:
            return scheme.reverse(address, time.time())
        except SrsError as error:
            raise NoSuchAddress(str(error)) from None

    def _current(self) -> "Scheme | None":
        now = time.monotonic()
        if now - self._checked < CHECK_SECONDS:
            return self._scheme
        self._checked = now
        version: domains.Version = ()
        if os.path.exists(f"{self._home}/control/{DOMAIN}"):
            paths = (f"{self._home}/control/{name}" for name in FILES)
            version = tuple(map(domains.file_version, paths))
        if version != self._version:
            self._version = version
            self._scheme = None
            if version:
                try:
                    self._read()
                except (OSError, control.ControlError) as error:
                    log.event(self._env, f"qmail-lspawn: forwarding without SRS: {error}")
        return self._scheme

    def _read(self) -> None:
        # Control files are read relative to the qmail home; qmail-lspawn works elsewhere.
        here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.chdir(self._home)
            domain = control.read_line(DOMAIN)
            secrets = control.read_lines(SECRETS)
            status = os.stat(f"control/{SECRETS}") if secrets is not None else None
            self._routing = domains.read()
        finally:
            os.fchdir(here)
            os.close(here)
        if not domain or not secrets or status is None:
            raise control.ControlError(f"control/{DOMAIN} or control/{SECRETS} says nothing")
        shared = stat.S_IRWXG if status.st_gid != 0 else 0
        if status.st_mode & (OTHERS | shared):
            raise control.ControlError(f"control/{SECRETS} can be read by others than root")
        from pyqmail.srs import Scheme

        self._scheme = Scheme(domain.lower(), secrets)
