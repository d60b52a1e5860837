"""Passwords that are elsewhere, see the folder tests/integration/passwords."""

import base64
import io
import tarfile

from docker.models.containers import Container

from harness.appliance import Appliance
from harness.clients import Account
from harness.dialogue import Dialogue

PASSWORD = "correct horse"
ALICE = Account("alice@example.test", PASSWORD)
# A name that means something in filters, DNs, queries and templates.
QUENTIN = Account("q*'=%#{x}\\(y)", PASSWORD)
# Accounts, whatever the servers know.
WHERE = (ALICE.address, "quentin@example.test", "twin@example.test", "super@example.test")

COMMANDS = {
    "ldap": "checkpassword-ldap",
    "pam": "checkpassword-pam -s mail --identity accounts --user {local} --",
    "sql": "checkpassword-sql",
}

LDAP = """uri = ldap://ldap.example.test
ca = /passwords/ca.pem
base = ou=people,dc=example,dc=test
filter = (|(mail={login})(cn={login}))
account-attribute = mail
bind = cn=mail,dc=example,dc=test
timeout = 5
"""
SQL = """postgresql = host=db.example.test dbname=postgres user=postern
    sslrootcert=/passwords/ca.pem
query = SELECT hash, address AS account FROM logins
    WHERE login = lower({login}) AND active
timeout = 5
"""

CONTROL = "var/qmail/control/checkpassword"
SECRET = "the service's own\n"

REFUSED = b"535 authup authorization failed (#5.7.0)"


class Servers:
    """The container with slapd and postgresql."""

    def __init__(self, container: Container) -> None:
        self.container = container

    def ready(self) -> bool:
        """Say whether both take connections."""
        script = "test -e /tmp/.s.PGSQL.5432 && test -e /servers/ldap/slapd.pid"
        return bool(self.container.exec_run(["sh", "-c", script]).exit_code == 0)

    def authority(self) -> str:
        """Return the certificate of their authority."""
        output = self.container.exec_run(["cat", "/servers/ca.pem"]).output
        assert isinstance(output, bytes)
        return output.decode()


def files(authority: str) -> dict[str, str]:
    """Return the control files that lead to the servers, and their certificate, by path."""
    return {
        "passwords/ca.pem": authority,
        f"{CONTROL}-ldap": LDAP,
        f"{CONTROL}-ldap-password": SECRET,
        f"{CONTROL}-sql": SQL,
        f"{CONTROL}-sql-password": SECRET,
    }


def put(container: Container, contents: dict[str, str]) -> None:
    """Write root's files in a container, running or not; passwords for root alone."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, content in contents.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content.encode())
            entry.mode = 0o600 if path.endswith("-password") else 0o644
            archive.addfile(entry, io.BytesIO(content.encode()))
    assert container.put_archive("/", packed.getvalue())


def configure(running: Appliance, kind: str, content: str) -> None:
    """Replace the control file of checkpassword-KIND."""
    put(running.container, {f"{CONTROL}-{kind}": content})


def plain(name: str, password: str) -> bytes:
    """Return an AUTH PLAIN line (RFC 4616)."""
    return b"AUTH PLAIN " + base64.b64encode(f"\0{name}\0{password}".encode())


def login(running: Appliance, name: str, password: str) -> bytes:
    """Return the last line of the answer to one attempt to log in."""
    with Dialogue(running.endpoint, "submissions") as dialogue:
        dialogue.say(b"EHLO client.example")
        return dialogue.say(plain(name, password))[-1]


def check(running: Appliance, program: list[str], name: str, password: str) -> tuple[int, str]:
    """Run a checkpassword by itself, as root in the container; it runs ``id -u``."""
    blob = f"{name}\0{password}\0\0".encode()
    script = 'exec "$@" 3<&0'
    argv = ["sh", "-c", script, "sh", *program, "sh", "-c", "echo $(id -u) $USER $(pwd)"]
    return running.run(argv, data=blob)
