"""checkpassword-ldap: whoever may bind to a directory with this password, become them and go on.

    checkpassword-ldap prog [ args ... ]

Reads control/checkpassword-ldap. Either the user's entry is looked for and bound to, or its
name follows from the login (`dn`). See docs/checkpassword.md.
"""

import os
from typing import Any, NamedTuple, Protocol

from acceptutils.checkpassword import controls, elsewhere
from acceptutils.checkpassword.apart import Found, Refused
from acceptutils.checkpassword.elsewhere import ACCOUNTS, RECORD, SYSTEM, Plan
from acceptutils.checkpassword.login import Login, as_text, check_template, fill
from acceptutils.checkpassword.program import Unavailable
from ucspi import control, log

NAME = "checkpassword-ldap"
PASSWORD_FILE = "checkpassword-ldap-password"
SYSTEM_CA = "/etc/ssl/certs/ca-certificates.crt"
CONNECT_SECONDS = 5.0  # for each of several servers

OPTIONS = frozenset(
    {
        *("uri", "tls", "ca", "timeout", "dn", "base", "filter", "bind", "identity", "account"),
        *("account-attribute", "uid-attribute", "gid-attribute", "home-attribute"),
    }
)


class Settings(NamedTuple):
    """What control/checkpassword-ldap says."""

    uri: str
    starttls: bool
    ca: str
    seconds: int
    dn: str  # a template; empty: search
    base: str
    filter: str
    bind: str
    secret: bytes
    identity: str
    account: str
    account_attribute: str
    id_attributes: tuple[str, str, str]  # uid, gid, home

    @property
    def attributes(self) -> list[str]:
        """The attributes that are asked for; ``1.1`` is none (RFC 4511, 4.5.1.8)."""
        wanted = [self.account_attribute] if self.account_attribute else []
        if self.identity == RECORD:
            wanted += self.id_attributes
        return wanted or ["1.1"]


class Entry(NamedTuple):
    """An entry of the directory: its name, and attributes by their names in lower case."""

    dn: str
    attributes: dict[str, list[bytes]]


class TooMany(Exception):
    """More entries than one were found."""


class Directory(Protocol):
    """What is needed of a connection to a directory; each may raise Unavailable."""

    def bind(self, dn: str, password: bytes) -> bool:
        """Say whether the password is that of dn; the connection is then dn's."""
        ...

    def find(self, base: str, filter: str, attributes: list[str]) -> Entry | None:
        """Return the one entry below base; None when there is none; raises TooMany."""
        ...

    def read(self, dn: str, attributes: list[str]) -> Entry | None:
        """Return the entry dn, None when there is none to be seen."""
        ...


def escape(value: bytes) -> str:
    """Return value so that it stands for itself in a filter and in a DN.

    Both take any byte as a backslash and two digits (RFC 4515, 3; RFC 4514, 2.4); only what
    means nothing in either is left as it is.
    """
    plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@._-"
    return "".join(chr(byte) if byte in plain else f"\\{byte:02x}" for byte in value)


def read_settings() -> Settings:
    """Read the control files, below the current directory.

    Raises:
        ControlError: one is missing, cannot be read, or is not as it must be.
    """
    found = controls.read(NAME, OPTIONS)
    uri = found.required("uri")
    schemes = {word.partition("://")[0] for word in uri.split()}
    if not schemes <= {"ldap", "ldaps", "ldapi"} or len(schemes) != 1:
        raise found.mistake("uri: not ldap://, ldaps:// or ldapi://, of one kind")
    tls = found.choice("tls", ("on", "off"), "on") == "on"
    if schemes == {"ldaps"} and not tls:
        raise found.mistake("tls: ldaps:// cannot do without")
    searching = "dn" not in found
    if {"base", "filter"} & set(found) != ({"base", "filter"} if searching else set()):
        raise found.mistake("either dn, or base and filter")
    if "bind" in found and not searching:
        raise found.mistake("bind is for a search")
    secret = controls.read_secret(PASSWORD_FILE) if "bind" in found else None
    if "bind" in found and not (secret and found.text("bind")):
        raise found.mistake(f"bind wants a name, and its password in control/{PASSWORD_FILE}")
    if "account" in found and "account-attribute" in found:
        raise found.mistake("either account or account-attribute")
    query = "filter" if searching else "dn"
    found.read(query, check_template, "")
    return Settings(
        uri,
        tls and schemes == {"ldap"},
        found.text("ca", SYSTEM_CA),
        found.read("timeout", controls.seconds, "10"),
        found.text("dn"),
        found.text("base"),
        found.text("filter"),
        found.text("bind"),
        secret or b"",
        found.choice("identity", (ACCOUNTS, RECORD, SYSTEM), ACCOUNTS),
        found.read("account", check_template, "{login}"),
        found.text("account-attribute"),
        (
            found.text("uid-attribute", "uidNumber"),
            found.text("gid-attribute", "gidNumber"),
            found.text("home-attribute", "homeDirectory"),
        ),
    )


def check(directory: Directory, settings: Settings, login: Login, password: bytes) -> Found | None:
    """Return whose password it is by the directory, None when it is refused.

    Raises:
        Unavailable: the directory cannot say.
        Refused: it says what nobody may become.
    """
    if not password:
        return None  # a bind that asks for no check and succeeds (RFC 4513, 5.1.2)
    query = fill(settings.dn or settings.filter, lambda place: escape(login.part(place)))
    entry: Entry | None = Entry(query, {})
    if not settings.dn:
        if settings.bind and not directory.bind(settings.bind, settings.secret):
            raise Unavailable(f"{settings.bind} may not bind: is its password right?")
        try:
            entry = directory.find(settings.base, query, settings.attributes)
        except TooMany as error:
            # Which of them would the mailbox be?
            raise Refused(f"{login.login!r}: more than one entry") from error
    # A bind without a name succeeds for anybody (RFC 4513, 5.1.1).
    if entry is None or not entry.dn or not directory.bind(entry.dn, password):
        return None
    if settings.dn and settings.attributes != ["1.1"]:
        entry = directory.read(entry.dn, settings.attributes)
        if entry is None:
            raise Unavailable(f"{query}: may not read its own entry")
    return _found(settings, entry, login)


def _found(settings: Settings, entry: Entry, login: Login) -> Found | None:
    if settings.account_attribute:
        name = _one(entry, settings.account_attribute)
    else:
        name = as_text(settings.account, login) or ""
    if not name:
        return None
    return elsewhere.found_in(settings.identity, name, lambda: _ids(settings, entry))


def _ids(settings: Settings, entry: Entry) -> tuple[str, str, str]:
    uid, gid, home = (_one(entry, attribute) for attribute in settings.id_attributes)
    return uid, gid, home


def _one(entry: Entry, attribute: str) -> str:
    values = entry.attributes.get(attribute.lower(), [])
    if len(values) != 1:
        raise Refused(f"{entry.dn}: {len(values)} values of {attribute}, and not one")
    try:
        return values[0].decode()
    except UnicodeDecodeError as error:
        raise Refused(f"{entry.dn}: {attribute} is no text") from error


def preload(_argv: list[str], env: dict[str, str]) -> None:
    """Load libldap, once for all connections. No connection is made before a fork."""
    try:
        _library()
    except Unavailable as error:
        log.event(env, f"{NAME}: {error}")


def main(argv: list[str], env: dict[str, str]) -> int:
    """Check descriptor 3 with the directory; become the user; see `elsewhere.main`."""
    return elsewhere.main(NAME, argv, env, plan)


def plan(env: dict[str, str]) -> Plan:
    """Return how a login is checked, by the control files as they are now.

    Raises:
        ControlError, Unavailable: they cannot be used, or nothing says as whom to ask.
    """
    control.enter_home(env)
    settings = read_settings()
    return Plan(
        lambda login, password: check(Connection(settings), settings, login, password),
        settings.seconds,
        elsewhere.checker_ids(env),
    )


def _library() -> Any:
    """Import python-ldap: ldap3 has had no release since 2021, python-ldap is kept.

    Raises:
        Unavailable: it is not here.
    """
    # What is not in our control file is not set: neither by a .ldaprc nor by a variable.
    os.environ["LDAPNOINIT"] = "1"
    try:
        import ldap
    except ImportError as error:
        raise Unavailable(f"python-ldap is not installed: {error}") from error
    return ldap


class Connection:
    """A connection to the directory; it is made by the first question, with TLS before it."""

    def __init__(self, settings: Settings) -> None:
        self._ldap = _library()
        self._refusals = (
            self._ldap.INVALID_CREDENTIALS,
            self._ldap.INAPPROPRIATE_AUTH,
            self._ldap.UNWILLING_TO_PERFORM,
            self._ldap.CONSTRAINT_VIOLATION,
            self._ldap.INSUFFICIENT_ACCESS,
            self._ldap.NO_SUCH_OBJECT,
            self._ldap.INVALID_DN_SYNTAX,
        )
        try:
            self._server = self._connect(settings)
        except self._ldap.LDAPError as error:
            raise self._unavailable(error) from error

    def _connect(self, settings: Settings) -> Any:
        ldap = self._ldap
        server = ldap.initialize(settings.uri)
        for option, value in (
            (ldap.OPT_PROTOCOL_VERSION, 3),
            (ldap.OPT_NETWORK_TIMEOUT, min(CONNECT_SECONDS, settings.seconds)),
            (ldap.OPT_TIMEOUT, float(settings.seconds)),
            (ldap.OPT_REFERRALS, 0),  # a password goes to the servers that were named
            (ldap.OPT_X_TLS_REQUIRE_CERT, ldap.OPT_X_TLS_DEMAND),
            (ldap.OPT_X_TLS_CACERTFILE, settings.ca),
            (ldap.OPT_X_TLS_NEWCTX, 0),  # makes the ones before it effective
        ):
            server.set_option(option, value)
        if settings.starttls:
            server.start_tls_s()
        return server

    def bind(self, dn: str, password: bytes) -> bool:
        """See Directory."""
        try:
            self._server.simple_bind_s(dn, password)
        except self._refusals:
            return False
        except self._ldap.LDAPError as error:
            raise self._unavailable(error) from error
        return True

    def find(self, base: str, filter: str, attributes: list[str]) -> Entry | None:
        """See Directory."""
        return self._search(base, self._ldap.SCOPE_SUBTREE, filter, attributes)

    def read(self, dn: str, attributes: list[str]) -> Entry | None:
        """See Directory."""
        return self._search(dn, self._ldap.SCOPE_BASE, "(objectClass=*)", attributes)

    def _search(self, base: str, scope: int, filter: str, attributes: list[str]) -> Entry | None:
        try:
            found = self._server.search_ext_s(base, scope, filter, attributes, sizelimit=2)
        except self._ldap.SIZELIMIT_EXCEEDED as error:
            raise TooMany from error
        except self._ldap.LDAPError as error:
            raise self._unavailable(error) from error
        # Without a name it is a referral, which leads to a server that nobody has named.
        entries = [(dn, attributes) for dn, attributes in found if dn is not None]
        if len(entries) > 1:
            raise TooMany
        for dn, values in entries:
            return Entry(dn, {name.lower(): list(value) for name, value in values.items()})
        return None

    def _unavailable(self, error: Exception) -> Unavailable:
        told = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
        texts = [str(told[key]) for key in ("desc", "info") if told.get(key)]
        return Unavailable(": ".join(texts) or type(error).__name__)
