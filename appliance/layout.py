"""Where things are, and whose they are: the paths and the fixed ids of the image."""

from typing import NamedTuple


class Owner(NamedTuple):
    """A user and a group of the image, by number."""

    uid: int
    gid: int


QMAIL = 2107
NOFILES = 2108

ROOT = Owner(0, 0)
ALIAS = Owner(7790, NOFILES)
QMAILD = Owner(7791, NOFILES)
QMAILL = Owner(7792, NOFILES)
QMAILQ = Owner(7794, QMAIL)
QMAILR = Owner(7795, QMAIL)
QMAILS = Owner(7796, QMAIL)
AUTHUP = Owner(7800, 7800)
UCSPITLS = Owner(7801, 7801)
CHECKPW = Owner(7802, 7802)
DKIM = Owner(7803, 7803)
MAILAUTH = Owner(7804, 7804)
METRICS = Owner(7805, 7805)

FIRST_ACCOUNT_UID = 20000
LAST_ACCOUNT_UID = 2**31 - 1


class Layout:
    """The file system of the image below root, which is another directory in tests.

    Programs see the links of the image (/home, /var/qmail/users, ...); postern writes
    to what they point to, the one volume.
    """

    def __init__(self, root: str = "") -> None:
        self.root = root
        self.data = root + "/data"
        self.accounts = self.data + "/accounts"
        self.store = self.accounts + "/accounts.json"
        self.lock = self.accounts + "/lock"
        self.tls = self.data + "/tls"
        self.certificate = self.tls + "/cert.pem"
        self.key = self.tls + "/key.pem"
        self.dkim = self.data + "/dkim"
        self.srs = self.data + "/srs"
        self.srs_secrets = self.srs + "/secrets"
        self.queue = self.data + "/queue"
        # What may be thrown away; a directory for each user who keeps something.
        self.cache = self.data + "/cache"
        self.sts_policies = self.cache + "/mta-sts"
        self.users = self.data + "/users"
        self.alias = self.data + "/alias"
        self.homes = self.data + "/home"
        # Large messages on their way to the queue, nameless: /tmp is memory, and small.
        self.spool = self.data + "/tmp"
        self.qmail = root + "/var/qmail"
        self.control = self.qmail + "/control"
        self.program_path = self.qmail + "/bin:/usr/bin:/bin"
        # What UCSPI_IMAGE brought, for the services only.
        self.command = root + "/command"
        self.run = root + "/run"
        self.runtime = self.run + "/postern"
        self.services = self.runtime + "/service"
        # A file of counts for each service whose logger counts.
        self.metrics = self.runtime + "/metrics"
        self.checkpassword_socket = self.runtime + "/checkpassword.sock"
        self.guard_socket = self.runtime + "/guard.sock"
        self.guard_events = self.runtime + "/auth-events.sock"
        self.dkimsign_socket = self.runtime + "/dkimsign.sock"
        self.mailauth_socket = self.runtime + "/mailauth.sock"
        # qmail-lspawn listens there as root, in a directory that no other user may write.
        self.recipient_socket = self.runtime + "/recipient.sock"
        self.queue_runtime = self.run + "/qmail"
        self.queue_socket = self.queue_runtime + "/queue.sock"

    def home(self, address: str) -> str:
        """Return the directory on the volume that is the home of an account."""
        local, _, domain = address.rpartition("@")
        return f"{self.homes}/{domain}/{local}"


def home_of(address: str) -> str:
    """Return the home directory of an account as its programs see it."""
    local, _, domain = address.rpartition("@")
    return f"/home/{domain}/{local}"
