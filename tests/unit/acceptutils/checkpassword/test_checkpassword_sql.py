"""checkpassword-sql: queries with parameters, hashes, and what is made of a row."""

import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import argon2
import pytest

from acceptutils.checkpassword import sql
from acceptutils.checkpassword.apart import Found, Refused
from acceptutils.checkpassword.login import Login
from acceptutils.checkpassword.program import Unavailable
from acceptutils.checkpassword.sql import Settings, Slots
from acceptutils.checkpassword.store import Account
from acceptutils.checkpassword.verifier import Verifier
from acceptutils.checkpassword.wire import Identity
from ucspi.control import ControlError

CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("swordfish")
QUERY = "SELECT hash, account FROM logins WHERE login = {login} AND state <> 'disabled'"
ROWS: dict[str, tuple[object, ...]] = {
    "alice": (CHEAP, "alice@example.org"),
    "braces": ("{ARGON2ID}" + CHEAP, None),
    "o'neil%": (CHEAP, None),
    "nothing": (None, None),
    "empty": ("", None),
    "strange": ("{MD5}aaaa", None),
    "super": (CHEAP, None, 0, 0, "/"),
    "person": (CHEAP, None, 20000, 20001, "/home/person"),
    "numbers": (CHEAP, None, "20000x", 20001, "/"),
    "homeless": (CHEAP, None, 20000, 20001, None),
}


class CountingVerifier(Verifier):
    """Takes note of what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str | None] = []

    def verify(self, account: Account | None, password: bytes) -> bool:
        self.asked.append(account.hash if account else None)
        return super().verify(account, password)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sql") / "logins ?.sqlite"
    made = sqlite3.connect(path)
    made.execute("CREATE TABLE logins (login, hash, account, uid, gid, home, state DEFAULT 'on')")
    for login, values in ROWS.items():
        row = (login, *values, *[None] * (5 - len(values)))
        made.execute("INSERT INTO logins VALUES (?, ?, ?, ?, ?, ?, 'on')", row)
    made.commit()
    made.close()
    return path


@pytest.fixture(scope="module")
def one_verifier() -> CountingVerifier:
    return CountingVerifier()


@pytest.fixture
def verifier(one_verifier: CountingVerifier) -> CountingVerifier:
    one_verifier.asked.clear()
    return one_verifier


def settings(database: Path, query: str = QUERY, identity: str = "accounts") -> Settings:
    return Settings("", str(database), b"", query, identity, "{login}", 10)


def check(
    database: Path, verifier: Verifier, login: bytes, password: bytes = b"swordfish", **more: str
) -> Found | None:
    return sql.check(settings(database, **more), Login(login), password, verifier)


def test_right_and_wrong(database: Path, verifier: CountingVerifier) -> None:
    assert check(database, verifier, b"alice") == Found("alice@example.org")
    assert check(database, verifier, b"alice", b"wrong") is None
    assert check(database, verifier, b"braces") == Found("braces")
    assert check(database, verifier, b"o'neil%") == Found("o'neil%")


@pytest.mark.parametrize(
    "login",
    [b"nobody", b"nothing", b"empty", b"' OR 1=1 --", b"alice' --", b"{login}", b"\xff", b"ALICE"],
)
def test_who_is_not_there_costs_a_hash(
    database: Path, verifier: CountingVerifier, login: bytes
) -> None:
    assert check(database, verifier, login) is None
    assert verifier.asked == [None]


def test_two_rows_are_a_refusal_that_costs_a_hash(
    database: Path, verifier: CountingVerifier
) -> None:
    with pytest.raises(Refused, match="more than one row"):
        check(database, verifier, b"a", query="SELECT hash FROM logins WHERE {login} = 'a'")
    assert verifier.asked == [None]


def test_hash_of_an_unknown_kind_is_a_failure_for_now(database: Path, verifier: Verifier) -> None:
    with pytest.raises(Unavailable, match="strange") as raised:
        check(database, verifier, b"strange")
    assert "aaaa" not in str(raised.value)


PERSON = "SELECT hash, uid, gid, home FROM logins WHERE login = {login}"


def test_identity_from_the_row(database: Path, verifier: Verifier) -> None:
    who = Identity("person", 20000, 20001, "/home/person", "/bin/false")
    found = check(database, verifier, b"person", query=PERSON, identity="record")
    assert found == Found("person", who)


@pytest.mark.parametrize("login", [b"super", b"numbers", b"homeless", b"alice"])
def test_a_row_that_nobody_may_become(database: Path, verifier: Verifier, login: bytes) -> None:
    with pytest.raises(Refused):
        check(database, verifier, login, query=PERSON, identity="record")
    assert check(database, verifier, login, b"wrong", query=PERSON, identity="record") is None


def test_system_users(database: Path, verifier: Verifier) -> None:
    query = "SELECT hash, 'root' AS account FROM logins WHERE login = {login}"
    with pytest.raises(Refused, match="uid 0"):
        check(database, verifier, b"alice", query=query, identity="system")
    with pytest.raises(Refused, match="no user"):
        check(database, verifier, b"braces", identity="system")


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("SELECT hash FROM nowhere WHERE a = {login}", "nowhere"),
        ("SELECT login FROM logins WHERE login = {login}", "column login"),
        ("SELECT uid FROM logins WHERE login = {login}", "no column hash"),
        ("DELETE FROM logins WHERE login = {login}", "readonly"),
        ("ATTACH '/nonexistent/x' AS y; -- {login}", "unable"),
    ],
)
def test_query_that_cannot_be_run(
    database: Path, verifier: Verifier, query: str, complaint: str
) -> None:
    with pytest.raises(Unavailable, match=complaint):
        check(database, verifier, b"alice", query=query)


def test_database_that_is_not_there_is_not_made(tmp_path: Path, verifier: Verifier) -> None:
    with pytest.raises(Unavailable):
        check(tmp_path / "none", verifier, b"alice")
    assert not (tmp_path / "none").exists()


class Psycopg:
    """A database driver that notes what it is given."""

    class Error(Exception):
        """What psycopg raises."""

    def __init__(self) -> None:
        self.given: list[Any] = []
        self.conninfo = self
        self.read_only = False
        self.description = [("hash",), ("account",)]

    def conninfo_to_dict(self, text: str) -> dict[str, str]:
        return dict(word.split("=", 1) for word in text.split())

    def connect(self, **options: Any) -> "Psycopg":
        self.given.append(options)
        return self

    def __enter__(self) -> "Psycopg":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, query: str, given: dict[str, str]) -> "Psycopg":
        self.given.append((query, given, self.read_only))
        if "boom" in query:
            raise self.Error("out\n  of order")
        return self

    def fetchmany(self, size: int) -> list[tuple[object, ...]]:
        return [(CHEAP, "a@b")][:size]


def test_postgresql_gets_parameters(monkeypatch: pytest.MonkeyPatch, verifier: Verifier) -> None:
    driver = Psycopg()
    monkeypatch.setattr(sql, "_library", lambda: driver)
    query = "SELECT hash FROM x WHERE a LIKE '%' AND a = {login} AND b = {domain}"
    chosen = Settings("host=db user=u", "", b"secret", query, "accounts", "{login}", 7)
    assert sql.check(chosen, Login(b"al%ice@x"), b"swordfish", verifier) == Found("a@b")
    options, (sent, given, read_only) = driver.given
    assert options == {
        "host": "db",
        "user": "u",
        "sslmode": "verify-full",
        "sslrootcert": "system",
        "password": "secret",
        "connect_timeout": 7,
        "prepare_threshold": None,
    }
    assert sent == "SELECT hash FROM x WHERE a LIKE '%%' AND a = %(login)s AND b = %(domain)s"
    assert given == {"login": "al%ice@x", "local": "al%ice", "domain": "x"}
    assert read_only
    with pytest.raises(Unavailable, match=r"^postgresql: out of order$"):
        sql.check(chosen._replace(query="boom"), Login(b"a"), b"swordfish", verifier)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"host": "/run/postgresql"}, {}),
        ({"dbname": "mail"}, {}),
        ({"host": "@abstract"}, {}),
        ({"host": "db"}, {"sslmode": "verify-full", "sslrootcert": "system"}),
        ({"hostaddr": "127.0.0.1"}, {"sslmode": "verify-full", "sslrootcert": "system"}),
        ({"host": "/run,db"}, {"sslmode": "verify-full", "sslrootcert": "system"}),
        ({"host": "db", "sslrootcert": "/ca"}, {"sslmode": "verify-full"}),
        ({"host": "db", "sslmode": "disable"}, {}),
    ],
)
def test_tls_is_checked_unless_it_is_said_otherwise(
    given: dict[str, str], expected: dict[str, str]
) -> None:
    assert sql.connection_options(given) == given | expected


def test_library_that_is_not_there_is_a_failure_for_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(Unavailable, match="psycopg is not installed"):
        sql._library()
    sql.preload([], {})
    assert sql._verifier is not None
    monkeypatch.setattr(sql, "_verifier", None)


def test_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "control").mkdir()
    monkeypatch.chdir(tmp_path)

    def read(content: str) -> Settings:
        (tmp_path / "control/checkpassword-sql").write_text(content)
        return sql.read_settings()

    query = f"query = {QUERY}\n"
    assert read(f"sqlite = /a\n{query}") == settings(Path("/a"))
    (tmp_path / "control/checkpassword-sql-password").write_text("secret\n")
    chosen = read(f"postgresql = dbname=a\n{query}timeout = 3\nidentity = record\n")
    assert (chosen.postgresql, chosen.secret, chosen.seconds) == ("dbname=a", b"secret", 3)
    for content, complaint in (
        (query, "either"),
        (f"sqlite = /a\npostgresql = b\n{query}", "either"),
        (f"sqlite = a\n{query}", "absolute"),
        ("sqlite = /a\n", "query is missing"),
        (f"sqlite = /a\n{query.replace('{login}', '{user}')}", "user"),
    ):
        with pytest.raises(ControlError, match=complaint):
            read(content)


@pytest.mark.parametrize(
    ("query", "right"),
    [
        ("SELECT '' || a, {login}", True),
        ("SELECT 'it''s' , {login} || 'x'", True),
        ('SELECT "a", {login}', True),
        ("SELECT '{login}'", False),
        ("SELECT 'a%{login}%'", False),
        ('SELECT "{login}"', False),
        ("SELECT 'a' || 'b {local}', {login}", False),
        ("SELECT '\"' , {login}", True),
        ("SELECT 1", False),
    ],
)
def test_places_stand_in_no_quotes(query: str, right: bool) -> None:
    if right:
        assert sql.check_query(query) == query
    else:
        with pytest.raises(ValueError, match=r"quotes|everybody"):
            sql.check_query(query)


def test_hashes_at_once_are_bounded_and_a_killed_process_holds_no_place(tmp_path: Path) -> None:
    slots = Slots(str(tmp_path))
    entered, enter = os.pipe()
    children = []
    for _ in range(sql.HASHES_AT_ONCE + 1):
        pid = os.fork()
        if pid == 0:
            try:
                with slots:
                    os.write(enter, b"x")
                    os.read(os.pipe()[0], 1)  # until it is killed
            finally:
                os._exit(0)
        children.append(pid)
    os.close(enter)
    for _ in range(sql.HASHES_AT_ONCE):
        assert os.read(entered, 1) == b"x"
    os.set_blocking(entered, False)
    with pytest.raises(BlockingIOError):
        os.read(entered, 1)
    os.set_blocking(entered, True)
    # Whoever waits, waits for one of them: both end, one after the other.
    for pid in children:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert os.read(entered, 9) in (b"", b"x")
    with slots:
        pass
    os.close(entered)
    os.close(slots.descriptor)


def test_nowhere_to_bound_hashes_is_no_failure(tmp_path: Path) -> None:
    assert sql._slots({"CHECKPASSWORD_SOCKET": str(tmp_path / "none/sock")}) is None
    found = sql._slots({"CHECKPASSWORD_SOCKET": str(tmp_path / "sock")})
    assert found is not None
    os.close(found.descriptor)
    assert (tmp_path / "checkpassword-sql.lock").stat().st_mode & 0o777 == 0o600


def test_usage(capfd: pytest.CaptureFixture[str]) -> None:
    assert sql.main(["checkpassword-sql"], {}) == 2
    assert "usage" in capfd.readouterr().err
