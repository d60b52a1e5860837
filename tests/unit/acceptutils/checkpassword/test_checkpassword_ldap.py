"""checkpassword-ldap: what is asked of the directory, what is made of its answers."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptutils.checkpassword import ldap
from acceptutils.checkpassword.apart import Found, Refused
from acceptutils.checkpassword.ldap import Entry, Settings, TooMany, escape
from acceptutils.checkpassword.login import Login
from acceptutils.checkpassword.program import Unavailable
from acceptutils.checkpassword.wire import Identity
from ucspi.control import ControlError

ALICE = "uid=alice,ou=people,dc=example"
SEARCH = """uri = ldaps://ldap.example
base = ou=people,dc=example
filter = (&(objectClass=person)(mail={login}))
"""
DN = "uri = ldaps://ldap.example\ndn = uid={local},ou=people,dc=example\n"


class Directory:
    """A directory with one entry, which remembers what it was asked."""

    def __init__(self, entry: Entry | None, passwords: dict[str, bytes], many: bool = False):
        self.asked: list[tuple[object, ...]] = []
        self._entry = entry
        self._passwords = passwords
        self._many = many

    def bind(self, dn: str, password: bytes) -> bool:
        self.asked.append(("bind", dn, password))
        # As servers do (RFC 4513, 5.1): no name, or no password, is no check.
        return not dn or not password or self._passwords.get(dn) == password

    def find(self, base: str, filter: str, attributes: list[str]) -> Entry | None:
        self.asked.append(("find", base, filter, attributes))
        if self._many:
            raise TooMany
        return self._entry

    def read(self, dn: str, attributes: list[str]) -> Entry | None:
        self.asked.append(("read", dn, attributes))
        return self._entry


def directory(*, dn: str = ALICE, many: bool = False, **attributes: bytes) -> Directory:
    entry = Entry(dn, {name.lower(): [value] for name, value in attributes.items()})
    return Directory(entry, {ALICE: b"swordfish", "cn=mail": b"secret"}, many)


@pytest.fixture
def settings_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A function that reads a control file with the given content."""
    (tmp_path / "control").mkdir()
    monkeypatch.chdir(tmp_path)

    def read(content: str, password: str = "") -> Settings:
        (tmp_path / "control/checkpassword-ldap").write_text(content)
        if password:
            (tmp_path / "control/checkpassword-ldap-password").write_text(password)
        return ldap.read_settings()

    return read


def check(asked: Directory, settings: Settings, login: bytes, password: bytes) -> Found | None:
    return ldap.check(asked, settings, Login(login), password)


def test_search_then_bind(settings_of) -> None:  # type: ignore[no-untyped-def]
    settings = settings_of(SEARCH + "bind = cn=mail\n", "secret\n")
    asked = directory()
    assert check(asked, settings, b"alice@example.org", b"swordfish") == Found("alice@example.org")
    assert asked.asked == [
        ("bind", "cn=mail", b"secret"),
        (
            "find",
            "ou=people,dc=example",
            "(&(objectClass=person)(mail=alice@example.org))",
            ["1.1"],
        ),
        ("bind", ALICE, b"swordfish"),
    ]
    assert check(directory(), settings, b"alice@example.org", b"wrong") is None


def test_name_by_template(settings_of) -> None:  # type: ignore[no-untyped-def]
    asked = directory()
    assert check(asked, settings_of(DN), b"alice@x", b"swordfish") == Found("alice@x")
    assert asked.asked == [("bind", ALICE, b"swordfish")]
    assert check(directory(), settings_of(DN), b"bob@x", b"swordfish") is None


def test_unknown_user_is_refused(settings_of) -> None:  # type: ignore[no-untyped-def]
    nobody = Directory(None, {})
    assert check(nobody, settings_of(SEARCH), b"bob", b"swordfish") is None
    assert [word for word, *_ in nobody.asked] == ["find"]


@pytest.mark.parametrize("content", [SEARCH, DN])
def test_an_empty_password_is_not_even_asked_about(settings_of, content: str) -> None:  # type: ignore[no-untyped-def]
    asked = directory()
    assert check(asked, settings_of(content), b"alice", b"") is None
    assert asked.asked == []


def test_an_entry_without_a_name_lets_nobody_in(settings_of) -> None:  # type: ignore[no-untyped-def]
    assert check(directory(dn=""), settings_of(SEARCH), b"alice", b"anything") is None


def test_two_entries_are_a_refusal(settings_of) -> None:  # type: ignore[no-untyped-def]
    asked = directory(many=True)
    with pytest.raises(Refused, match="more than one"):
        check(asked, settings_of(SEARCH), b"alice", b"swordfish")
    assert [word for word, *_ in asked.asked] == ["find"]


def test_our_own_password_refused_is_no_refusal_of_the_user(settings_of) -> None:  # type: ignore[no-untyped-def]
    settings = settings_of(SEARCH + "bind = cn=mail\n", "other\n")
    with pytest.raises(Unavailable, match="cn=mail may not bind"):
        check(directory(), settings, b"alice", b"swordfish")


INJECTIONS = [b"*", b"*)(uid=*", b"a)(|(uid=*", b"a\\", b"a,ou=admins", b"a+cn=b", b"\xff(", b"a=b"]


@pytest.mark.parametrize("typed", INJECTIONS)
def test_what_was_typed_is_a_value(settings_of, typed: bytes) -> None:  # type: ignore[no-untyped-def]
    asked = directory()
    check(asked, settings_of(SEARCH), typed, b"x")
    filter_asked = str(asked.asked[0][2])
    # RFC 4515: what stands in a value, and is no escape, is none of these.
    assert re.fullmatch(
        r"\(&\(objectClass=person\)\(mail=([^()*\\\0]|\\[0-9a-f]{2})+\)\)", filter_asked
    )
    asked = directory()
    check(asked, settings_of(DN), typed, b"x")
    if asked.asked:
        dn = str(asked.asked[0][1])
        assert re.fullmatch(r'uid=([^,+"\\<>;=\0#]|\\[0-9a-f]{2})*,ou=people,dc=example', dn)


@given(st.binary(max_size=30))
def test_escaping_loses_nothing(typed: bytes) -> None:
    written = escape(typed)
    assert written.isascii()
    again = re.sub(r"\\(..)", lambda found: chr(int(found[1], 16)), written)
    assert again.encode("latin-1") == typed


RECORD = SEARCH + "identity = record\n"


def test_identity_from_the_entry(settings_of) -> None:  # type: ignore[no-untyped-def]
    settings = settings_of(RECORD + "account-attribute = Mail\nhome-attribute = mailHome\n")
    assert settings.attributes == ["Mail", "uidNumber", "gidNumber", "mailHome"]
    asked = directory(mail=b"a@b", uidNumber=b"20000", gidNumber=b"20001", mailHome=b"/home/a")
    who = Identity("a@b", 20000, 20001, "/home/a", "/bin/false")
    assert check(asked, settings, b"alice", b"swordfish") == Found("a@b", who)


def test_the_entry_of_a_template_is_read_by_its_owner(settings_of) -> None:  # type: ignore[no-untyped-def]
    settings = settings_of(DN + "account-attribute = mail\n")
    asked = directory(mail=b"a@b")
    assert check(asked, settings, b"alice", b"swordfish") == Found("a@b")
    assert asked.asked == [("bind", ALICE, b"swordfish"), ("read", ALICE, ["mail"])]
    hidden = Directory(None, {ALICE: b"swordfish"})
    with pytest.raises(Unavailable, match="own entry"):
        check(hidden, settings, b"alice", b"swordfish")


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"uidNumber": b"20000"},
        {"uidNumber": b"0", "gidNumber": b"20000", "homeDirectory": b"/"},
        {"uidNumber": b"20000", "gidNumber": b"0", "homeDirectory": b"/"},
        {"uidNumber": b"-1", "gidNumber": b"20000", "homeDirectory": b"/"},
        {"uidNumber": b"20000", "gidNumber": b"20000", "homeDirectory": b"relative"},
        {"uidNumber": b"20000", "gidNumber": b"20000", "homeDirectory": b"/\xff"},
    ],
)
def test_an_entry_that_nobody_may_become(settings_of, attributes: dict[str, bytes]) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Refused):
        check(directory(**attributes), settings_of(RECORD), b"alice", b"swordfish")
    # Only whoever has the password hears of it.
    assert check(directory(**attributes), settings_of(RECORD), b"alice", b"wrong") is None


def test_several_names_are_none(settings_of) -> None:  # type: ignore[no-untyped-def]
    entry = Entry(ALICE, {"mail": [b"a@b", b"c@d"]})
    asked = Directory(entry, {ALICE: b"swordfish"})
    with pytest.raises(Refused, match="2 values of mail"):
        check(asked, settings_of(SEARCH + "account-attribute = mail\n"), b"a", b"swordfish")


def test_system_users(settings_of) -> None:  # type: ignore[no-untyped-def]
    settings = settings_of(SEARCH + "identity = system\n")
    for name in (b"root", b"no such user"):
        with pytest.raises(Refused):
            check(directory(), settings, name, b"swordfish")


def test_settings(settings_of) -> None:  # type: ignore[no-untyped-def]
    settings = settings_of(SEARCH)
    assert (settings.starttls, settings.seconds, settings.identity) == (False, 10, "accounts")
    assert settings.ca == "/etc/ssl/certs/ca-certificates.crt"
    plain = SEARCH.replace("ldaps:", "ldap:")
    assert settings_of(plain).starttls
    assert not settings_of(plain + "tls = off\n").starttls
    assert not settings_of(SEARCH.replace("ldaps:", "ldapi:")).starttls
    assert settings_of(plain.replace("ldap.example", "a ldap://b")).uri == "ldap://a ldap://b"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "uri is missing"),
        ("uri = ldap://a\n", "either dn"),
        (SEARCH + "dn = uid={login}\n", "either dn"),
        ("uri = ldap://a\nbase = x\n", "either dn"),
        ("uri = ldap://a\nfilter = (a={login})\n", "either dn"),
        (SEARCH.replace("ldaps:", "http:"), "uri"),
        (SEARCH.replace("ldap.example", "a ldap://b"), "of one kind"),
        (SEARCH + "tls = off\n", "tls"),
        (SEARCH + "tls = maybe\n", "tls"),
        (SEARCH + "bind = cn=mail\n", "checkpassword-ldap-password"),
        (DN + "bind = cn=mail\n", "bind is for a search"),
        (SEARCH + "account = {login}\naccount-attribute = mail\n", "either account"),
        (SEARCH.replace("{login}", "alice"), "everybody"),
        (SEARCH.replace("{login}", "{user}"), "filter: {user}"),
        (SEARCH + "identity = root\n", "identity"),
        (SEARCH + "timeout = 600\n", "timeout"),
    ],
)
def test_settings_that_make_no_sense(settings_of, content: str, complaint: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ControlError, match=complaint):
        settings_of(content)


def test_library_that_is_not_there_is_a_failure_for_now(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ldap", None)
    with pytest.raises(Unavailable, match="python-ldap is not installed"):
        ldap._library()
    ldap.preload(["checkpassword-ldap", "prog"], {})
    assert "python-ldap is not installed" in capfd.readouterr().err


def test_usage(capfd: pytest.CaptureFixture[str]) -> None:
    assert ldap.main(["checkpassword-ldap"], {}) == 2
    assert "usage" in capfd.readouterr().err
