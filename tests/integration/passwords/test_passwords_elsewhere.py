"""Logins whose passwords LDAP, PAM and SQL know: the real servers, and all that can go wrong."""

from collections.abc import Callable
from pathlib import Path

import argon2
import pytest
from harness import mail, wait
from harness.appliance import Appliance
from harness.clients import FETCHERS, SUBMITTERS, Account
from harness.dialogue import Dialogue
from harness.passwords import (
    ALICE,
    LDAP,
    PASSWORD,
    QUENTIN,
    REFUSED,
    SQL,
    Servers,
    check,
    configure,
    login,
    plain,
    put,
)

PASSED = b"235 ok, go ahead (#2.0.0)"
SERVED = ("ldap", "sql")  # by another container


def uid_of(running: Appliance, account: Account) -> str:
    """Return the uid of an account, as postern has it."""
    status, printed = running.postern("user", "list")
    assert status == 0
    (line,) = (line for line in printed.splitlines() if line.startswith(account.address + "\t"))
    return line.split("\t")[2]


# Every kind -------------------------------------------------------------------------------------


def test_mail_is_submitted_delivered_and_fetched(running: Appliance, tmp_path: Path) -> None:
    message = mail.compose(ALICE.address, ALICE.address, size=20_000)
    at = running.endpoint
    SUBMITTERS["swaks-starttls-plain"](at, ALICE, message, ALICE.address, tmp_path)
    (got,) = wait.until("the message", lambda: FETCHERS["curl-pop3s"](at, ALICE, tmp_path))
    assert mail.body_of(got) == message.body


def test_the_session_is_the_accounts(kind: str, running: Appliance) -> None:
    with Dialogue(running.endpoint, "pop3s") as dialogue:
        dialogue.say(b"USER " + ALICE.address.encode())
        assert dialogue.code(b"PASS " + PASSWORD.encode()) == b"+OK"
        uid = int(uid_of(running, ALICE))
        of_service = running.processes_of("pop3s")
        assert [process for process in of_service if process.uid == uid], of_service
        # The supervisor's child, the server, is the only one of root's that is left.
        assert len([process for process in of_service if process.uid == 0]) == 1, of_service
        assert not [process for process in of_service if process.uid == 7802], of_service


def test_what_is_refused_is_refused_alike_and_does_no_harm(running: Appliance) -> None:
    attempts = [
        (ALICE.address, "wrong"),
        ("nobody@example.test", PASSWORD),
        ("*", PASSWORD),
        ("*)(uid=*", PASSWORD),
        ("alice@example.test)(|(uid=*", PASSWORD),
        ("alice,ou=people,dc=example,dc=test", PASSWORD),
        ("' OR 1=1 --", PASSWORD),
        ("alice@example.test' --", PASSWORD),
        ("alice@example.test", "' OR '1'='1"),
        ("{login}", PASSWORD),
        ("alice\udcff@example.test", PASSWORD),
        ("root", PASSWORD),
        ("root@example.test", PASSWORD),
    ]
    at = running.endpoint
    dialogues = [Dialogue(at, "submissions") for _ in attempts]
    # All at once: each refusal takes its half a second.
    for dialogue, (name, password) in zip(dialogues, attempts, strict=True):
        dialogue.say(b"EHLO client.example")
        line = plain(name.encode("utf-8", "surrogateescape").decode("latin-1"), password)
        dialogue.send(line + b"\r\n")
    for dialogue, attempt in zip(dialogues, attempts, strict=True):
        with dialogue:
            assert dialogue.reply() == [REFUSED], attempt
            assert dialogue.say(plain(*ALICE)) == [PASSED], attempt


def test_an_empty_password_is_malformed_in_smtp_and_refused_by_the_program(
    kind: str, running: Appliance
) -> None:
    assert login(running, ALICE.address, "")[:3] == b"501"
    program = {"pam": ["checkpassword-pam", "-s", "mail"]}.get(kind, [f"checkpassword-{kind}"])
    assert check(running, program, ALICE.address, "") == (1, "")


def test_a_disabled_account_stays_outside(running: Appliance) -> None:
    assert running.postern("user", "state", ALICE.address, "receive-only")[0] == 0
    try:
        assert login(running, *ALICE) == REFUSED
        with Dialogue(running.endpoint, "pop3s") as dialogue:
            dialogue.say(b"USER " + ALICE.address.encode())
            assert dialogue.code(b"PASS " + PASSWORD.encode()) == b"+OK"
    finally:
        assert running.postern("user", "enable", ALICE.address)[0] == 0
    assert "alice@example.test is receive-only: refused for submission" in running.logs()


def test_no_password_is_in_the_log(running: Appliance) -> None:
    login(running, ALICE.address, PASSWORD)
    login(running, ALICE.address, "wrong password of mine")
    logs = running.logs()
    for secret in (PASSWORD, "wrong password of mine", "service's own"):
        assert secret not in logs


@pytest.mark.parametrize("kind", SERVED, indirect=False)
def test_a_name_of_special_characters_is_a_name(
    kind: str, start: Callable[[str], Appliance]
) -> None:
    running = start(kind)
    assert login(running, *QUENTIN) == PASSED
    assert "for q*'=%#{x}\\(y) " in running.logs()
    assert login(start(kind), QUENTIN.address, "wrong") == REFUSED


@pytest.mark.parametrize("kind", SERVED, indirect=False)
def test_a_server_that_hangs_is_no_wrong_password_to_the_log(
    kind: str, start: Callable[[str], Appliance], servers: Servers
) -> None:
    running = start(kind)
    servers.container.pause()
    try:
        assert login(running, *ALICE) == REFUSED
    finally:
        servers.container.unpause()
    assert f"checkpassword-{kind}: " in running.logs(tail=20)
    assert login(running, *ALICE) == PASSED


@pytest.mark.parametrize("kind", SERVED, indirect=False)
def test_a_server_that_is_down_is_no_wrong_password_to_the_log(
    kind: str, start: Callable[[str], Appliance]
) -> None:
    running = start(kind)
    content = {"ldap": LDAP, "sql": SQL}[kind]
    away = content.replace("ldap.example.test", "127.0.0.1:1").replace(
        "host=db.example.test", "host=127.0.0.1 port=1"
    )
    configure(running, kind, away)
    try:
        status, printed = check(running, [f"checkpassword-{kind}"], *ALICE)
    finally:
        configure(running, kind, content)
    assert status == 111
    assert f"checkpassword-{kind}: " in printed


# LDAP -------------------------------------------------------------------------------------------


def ldap_says(running: Appliance, content: str, name: str = ALICE.address) -> tuple[int, str]:
    """Return what checkpassword-ldap makes of the right password under other settings."""
    configure(running, "ldap", content)
    return check(running, ["checkpassword-ldap"], name, PASSWORD)


def test_ldap_over_tls_from_the_start(ldap: Appliance) -> None:
    assert ldap_says(ldap, LDAP.replace("ldap:", "ldaps:"))[0] == 0


def test_ldap_with_a_name_by_template(ldap: Appliance) -> None:
    search = LDAP[LDAP.index("base") :]
    content = LDAP.replace(search, "dn = uid={local},ou=people,dc=example,dc=test\n")
    status, printed = ldap_says(ldap, content)
    assert (status, printed.split()[1]) == (0, ALICE.address), printed
    assert ldap_says(ldap, content, "alice,ou=x@example.test") == (1, "")
    status, printed = ldap_says(ldap, content + "account-attribute = mail\n", "alice")
    assert (status, printed.split()[1]) == (0, ALICE.address), printed


def test_ldap_takes_the_identity_from_the_entry(ldap: Appliance) -> None:
    content = LDAP + "identity = record\n"
    got = ldap_says(ldap, content)
    assert got == (0, "31000 alice@example.test /passwords/alice\n")
    status, printed = ldap_says(ldap, content, "super@example.test")
    assert (status, "refusing uid 0" in printed) == (1, True), printed


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("ca = /passwords/ca.pem\n", ""), ""),
        (("ldap.example.test", "other.example.test"), ""),
        (("ldap://ldap.", "ldaps://other."), ""),
        (("timeout = 5", "tls = off"), "onfidentiality"),
        (("cn=mail,", "cn=other,"), "may not bind"),
        (("base = ou=people", "base = ou=nobody"), "No such object"),
        (("(cn={login}))", "(cn={login})"), "filter"),
        (("timeout = 5", "timeout = 0"), "timeout"),
    ],
)
def test_ldap_says_later_when_something_is_wrong(
    ldap: Appliance, change: tuple[str, str], complaint: str
) -> None:
    """No certificate of a known authority, another name, no TLS, wrong settings."""
    assert change[0] in LDAP
    status, printed = ldap_says(ldap, LDAP.replace(*change))
    assert status == 111
    assert "checkpassword-ldap: " in printed
    assert complaint in printed


def test_ldap_refuses_two_entries(ldap: Appliance) -> None:
    status, printed = ldap_says(ldap, LDAP, "twin@example.test")
    assert (status, "more than one entry" in printed) == (1, True)


# SQL --------------------------------------------------------------------------------------------


def sql_says(running: Appliance, content: str, name: str = ALICE.address) -> tuple[int, str]:
    """Return what checkpassword-sql makes of the right password under other settings."""
    configure(running, "sql", content)
    return check(running, ["checkpassword-sql"], name, PASSWORD)


def test_sql_takes_the_identity_from_the_row(sql: Appliance) -> None:
    content = SQL.replace("hash, address AS account", "hash, uid, gid, home") + "identity = record"
    assert sql_says(sql, content) == (0, "31000 alice@example.test /passwords/alice\n")
    status, printed = sql_says(sql, content, "super@example.test")
    assert (status, "refusing uid 0" in printed) == (1, True), printed


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("    sslrootcert=/passwords/ca.pem\n", ""), "certificate"),
        (("db.example.test", "other.example.test"), "other.example.test"),
        (("user=postern", "user=postern sslmode=disable"), "encryption"),
        (("FROM logins", "FROM nowhere"), "nowhere"),
        (("user=postern", "user=nobody"), "nobody"),
    ],
)
def test_sql_says_later_when_something_is_wrong(
    sql: Appliance, change: tuple[str, str], complaint: str
) -> None:
    """No certificate of a known authority, another name, no TLS, wrong settings."""
    assert change[0] in SQL
    status, printed = sql_says(sql, SQL.replace(*change))
    assert status == 111
    assert "checkpassword-sql: " in printed
    assert complaint in printed


def test_sql_with_a_hash_of_an_unknown_kind_says_later_and_without_one_no(sql: Appliance) -> None:
    assert sql_says(sql, SQL, "strange@example.test")[0] == 111
    assert sql_says(sql, SQL, "nothing@example.test") == (1, "")


def test_sql_only_reads(sql: Appliance) -> None:
    query = SQL.replace("SELECT", "DELETE FROM logins WHERE login = {login} RETURNING hash --")
    status, printed = sql_says(sql, query)
    assert status == 111
    assert "read-only" in printed
    configure(sql, "sql", SQL)
    assert login(sql, *ALICE) == PASSED


def test_sql_with_sqlite(sql: Appliance) -> None:
    path = "/data/logins.sqlite"
    script = (
        "import sqlite3, sys; made = sqlite3.connect(sys.argv[1]);"
        "made.execute('CREATE TABLE logins (name, hash)');"
        "made.execute('INSERT INTO logins VALUES (?, ?)', sys.argv[2:]); made.commit()"
    )
    hashed = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    status, printed = sql.run(["python3", "-c", script, path, ALICE.address, hashed])
    assert status == 0, printed
    content = f"sqlite = {path}\nquery = SELECT hash FROM logins WHERE name = {{login}}\n"
    assert sql_says(sql, content)[1].split()[:2] == [uid_of(sql, ALICE), ALICE.address]
    assert login(sql, *ALICE) == PASSED
    assert login(sql, ALICE.address, "wrong") == REFUSED


# PAM --------------------------------------------------------------------------------------------

PAM = ["checkpassword-pam", "-s", "mail"]


def test_pam_becomes_a_user_of_the_system(start: Callable[[str], Appliance]) -> None:
    running = start("pam")
    assert check(running, PAM, "alice", PASSWORD) == (0, "31000 alice /passwords/alice\n")
    assert check(running, PAM, "alice", "wrong")[0] == 1
    status, printed = check(running, [*PAM, "--noenv", "--"], "alice", PASSWORD)
    assert (status, printed.split()[0]) == (0, "0")


def test_pam_never_becomes_root_nor_who_is_like_it(start: Callable[[str], Appliance]) -> None:
    for name, uid in (("root", 0), ("system", 900)):
        status, printed = check(start("pam"), PAM, name, PASSWORD)
        assert (status, f"refusing uid {uid}" in printed) == (1, True), printed


def test_pam_asks_for_the_account_too(start: Callable[[str], Appliance]) -> None:
    status, printed = check(start("pam"), [*PAM, "--debug"], "late", PASSWORD)
    assert status == 1
    assert "pam_authenticate: Success" in printed
    assert "pam_acct_mgmt: " in printed


def test_pam_without_its_module_says_later(start: Callable[[str], Appliance]) -> None:
    running = start("pam")
    put(running.container, {"etc/pam.d/broken": "auth required pam_nowhere.so\n"})
    status, printed = check(running, ["checkpassword-pam", "-s", "broken"], "alice", PASSWORD)
    assert (status, "checkpassword-pam: broken: " in printed) == (111, True), printed
