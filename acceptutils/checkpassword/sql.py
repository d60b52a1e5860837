"""checkpassword-sql: whoever's password a database has the hash of, become them and go on.

    checkpassword-sql prog [ args ... ]

Reads control/checkpassword-sql: PostgreSQL or SQLite, and a query that returns the hash. The
login is given to the database as a parameter, never as a part of the query; the password is
not given to it at all. See docs/checkpassword.md.
"""

import fcntl
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from acceptutils.checkpassword import controls, elsewhere
from acceptutils.checkpassword.apart import Found, Refused
from acceptutils.checkpassword.elsewhere import ACCOUNTS, RECORD, SYSTEM, Plan
from acceptutils.checkpassword.login import PLACES, Login, as_text, check_template, fill
from acceptutils.checkpassword.program import SOCKET, Unavailable
from acceptutils.checkpassword.store import Account
from ucspi import control

if TYPE_CHECKING:
    from acceptutils.checkpassword.verifier import Verifier

NAME = "checkpassword-sql"
PASSWORD_FILE = "checkpassword-sql-password"

OPTIONS = frozenset({"postgresql", "sqlite", "query", "identity", "account", "timeout"})
COLUMNS = ("hash", "account", "uid", "gid", "home")

HASHES_AT_ONCE = 2  # each with its 19 MiB or more

# Dovecot writes the kind of a hash before it, in braces.
_SCHEME = re.compile(r"\{[A-Z0-9-]+\}")

_verifier: "Verifier | None" = None


class Settings(NamedTuple):
    """What control/checkpassword-sql says."""

    postgresql: str  # a connection string of libpq; empty: SQLite
    sqlite: str
    secret: bytes
    query: str
    identity: str
    account: str
    seconds: int


class Row(NamedTuple):
    """What the query has found: the values of its columns by their names."""

    values: dict[str, object]

    def text(self, column: str) -> str:
        """Return a column's value as text, empty when it is NULL or not there."""
        value = self.values.get(column)
        return "" if value is None else str(value)


class TooMany(Exception):
    """The query has found more rows than one."""


def read_settings() -> Settings:
    """Read the control files, below the current directory.

    Raises:
        ControlError: one is missing, cannot be read, or is not as it must be.
    """
    found = controls.read(NAME, OPTIONS)
    if ("postgresql" in found) == ("sqlite" in found):
        raise found.mistake("either postgresql or sqlite")
    if "sqlite" in found and not found.text("sqlite").startswith("/"):
        raise found.mistake("sqlite: not an absolute path")
    found.required("query")
    return Settings(
        found.text("postgresql"),
        found.text("sqlite"),
        controls.read_secret(PASSWORD_FILE) or b"" if "postgresql" in found else b"",
        found.read("query", check_query, ""),
        found.choice("identity", (ACCOUNTS, RECORD, SYSTEM), ACCOUNTS),
        found.read("account", check_template, "{login}"),
        found.read("timeout", controls.seconds, "10"),
    )


def check_query(query: str) -> str:
    """Return query if its places are parameters.

    Raises:
        ValueError: a place is unknown, missing, or in quotes: it would be text, and no
            parameter.
    """
    quote = ""
    for character in query:
        if quote and character == "{":
            raise ValueError("no quotes around a place: it is a parameter")
        if character in "'\"" and quote in ("", character):
            quote = "" if quote else character
    return check_template(query)


def parameters(login: Login) -> dict[str, str] | None:
    """Return what the query's places stand for, None when that is no text."""
    try:
        return {place: login.part(place).decode() for place in PLACES}
    except UnicodeDecodeError:
        return None


def check(
    settings: Settings,
    login: Login,
    password: bytes,
    verifier: "Verifier",
    slots: "Slots | None" = None,
) -> Found | None:
    """Return whose password it is by the database, None when it is refused.

    A hash is computed for an unknown user as well.

    Raises:
        Unavailable: the database cannot say, or its hash is of no kind that is known.
        Refused: it says what nobody may become.
    """
    from acceptutils.checkpassword.verifier import CannotVerify

    row, many = None, False
    if (given := parameters(login)) is not None:
        try:
            row = ask(settings, given)
        except TooMany:
            many = True
    hashed = _SCHEME.sub("", row.text("hash"), count=1).strip() if row else ""
    known = Account("", 0, 0, "", hashed, "enabled") if hashed else None
    with slots or nullcontext():
        try:
            right = verifier.verify(known, password)
        except CannotVerify as error:
            raise Unavailable(f"{login.login!r}: {error}") from error
    if many:
        raise Refused(f"{login.login!r}: more than one row")
    return _found(settings, row, login) if row and right else None


def _found(settings: Settings, row: Row, login: Login) -> Found | None:
    name = row.text("account") or as_text(settings.account, login)
    if not name:
        return None
    ids = row.text("uid"), row.text("gid"), row.text("home")
    return elsewhere.found_in(settings.identity, name, lambda: ids)


def ask(settings: Settings, given: dict[str, str]) -> Row | None:
    """Return the one row that the query finds, None when there is none.

    Raises:
        TooMany: there is another.
        Unavailable: the database cannot be asked.
    """
    columns, rows = (_ask_sqlite if settings.sqlite else _ask_postgresql)(settings, given)
    if unknown := set(columns) - set(COLUMNS):
        raise Unavailable(f"query: column {min(unknown)} is none of {' '.join(COLUMNS)}")
    if "hash" not in columns:
        raise Unavailable("query: no column hash")
    if len(rows) > 1:
        raise TooMany
    return Row(dict(zip(columns, rows[0], strict=True))) if rows else None


def _ask_sqlite(
    settings: Settings, given: dict[str, str]
) -> tuple[list[str], Sequence[Sequence[Any]]]:
    import sqlite3
    from urllib.parse import quote

    query = fill(settings.query, lambda place: f":{place}")
    try:
        database = sqlite3.connect(
            f"file:{quote(settings.sqlite)}?mode=ro", uri=True, timeout=settings.seconds
        )
        try:
            cursor = database.execute(query, given)
            return _names(cursor.description), cursor.fetchmany(2)
        finally:
            database.close()
    except sqlite3.Error as error:
        raise Unavailable(f"{settings.sqlite}: {error}") from error


def _ask_postgresql(
    settings: Settings, given: dict[str, str]
) -> tuple[list[str], Sequence[Sequence[Any]]]:
    psycopg = _library()
    query = fill(settings.query.replace("%", "%%"), lambda place: f"%({place})s")
    try:
        options = connection_options(psycopg.conninfo.conninfo_to_dict(settings.postgresql))
        if settings.secret:
            options["password"] = os.fsdecode(settings.secret)
        options.setdefault("connect_timeout", settings.seconds)
        # No prepared statements: behind a pool of connections they are somebody else's.
        with psycopg.connect(**options, prepare_threshold=None) as database:
            database.read_only = True
            cursor = database.execute(query, given)
            return _names(cursor.description), cursor.fetchmany(2)
    except psycopg.Error as error:
        raise Unavailable(f"postgresql: {' '.join(str(error).split())}") from error


def connection_options(given: dict[str, Any]) -> dict[str, Any]:
    """Return a connection's options with TLS and a checked certificate, unless they say other.

    libpq's own default takes no TLS and any certificate as well. A socket of this machine,
    a host that begins with a slash, needs none.
    """
    hosts = f"{given.get('host', '')},{given.get('hostaddr', '')}".split(",")
    remote = any(host and not host.startswith(("/", "@")) for host in hosts)
    if remote and "sslmode" not in given:
        return {"sslrootcert": "system", **given, "sslmode": "verify-full"}
    return dict(given)


def _names(description: Iterable[Sequence[Any]] | None) -> list[str]:
    if description is None:
        raise Unavailable("query: returns no rows")
    return [str(column[0]).lower() for column in description]


def _library() -> Any:
    """Import psycopg.

    Raises:
        Unavailable: it is not here.
    """
    try:
        import psycopg
        import psycopg.conninfo
    except ImportError as error:
        raise Unavailable(f"psycopg is not installed: {error}") from error
    return psycopg


def preload(_argv: list[str], _env: dict[str, str]) -> None:
    """Load what every login needs, once for all connections.

    No connection is made before a fork.
    """
    global _verifier
    from acceptutils.checkpassword.verifier import Verifier

    _verifier = Verifier()
    try:
        _library()
    except Unavailable:
        pass  # SQLite wants none; with PostgreSQL each attempt will say so


class Slots:
    """The few places where a hash may be computed, for all the processes that do that.

    They are locks on a file. A process that is killed loses its lock.

    Args:
        directory: where the file is, or is made; only root may use it.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, directory: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self.descriptor = os.open(f"{directory}/{NAME}.lock", flags, 0o600)

    def __enter__(self) -> None:
        for place in range(HASHES_AT_ONCE):
            try:
                fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
                return
            except BlockingIOError:
                continue
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX, 1, os.getpid() % HASHES_AT_ONCE)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self.descriptor, fcntl.LOCK_UN)


def _slots(env: dict[str, str]) -> "Slots | None":
    """Return the places, None where there is no directory for their file."""
    try:
        return Slots(os.path.dirname(env.get("CHECKPASSWORD_SOCKET", SOCKET)))
    except OSError:
        return None


def main(argv: list[str], env: dict[str, str]) -> int:
    """Check descriptor 3 with the database; become the user; see `elsewhere.main`."""
    return elsewhere.main(NAME, argv, env, plan)


def plan(env: dict[str, str]) -> Plan:
    """Return how a login is checked, by the control files as they are now.

    Raises:
        ControlError, Unavailable: they cannot be used, or nothing says as whom to ask.
    """
    from acceptutils.checkpassword.verifier import Verifier

    control.enter_home(env)
    settings = read_settings()
    verifier, ids, slots = _verifier or Verifier(), elsewhere.checker_ids(env), _slots(env)
    return Plan(
        lambda login, password: check(settings, login, password, verifier, slots),
        settings.seconds,
        ids,
        frozenset({2, slots.descriptor} if slots else {2}),
    )
