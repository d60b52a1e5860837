"""``postern user|alias|domain``: what changes, what is refused, what is never lost."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import argon2
import pytest

from appliance import accounts, admin, data, maildirsize, passwords, publish, store
from appliance.layout import Layout, Owner
from appliance.store import Store

ALICE = "alice@example.org"
PASSWORD = "correct horse battery staple"
SHA512 = "$6$abcdefgh$" + "x" * 86


@pytest.fixture
def volume(places: Layout) -> Layout:
    store.save(places, Store(("example.org",)))
    return places


class Terminal:
    """Runs postern with a given standard input and keeps what it says."""

    def __init__(self, places: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
        self.places = places
        self._monkeypatch = monkeypatch

    def run(self, *words: str, stdin: str = "") -> int:
        pipe = io.TextIOWrapper(io.BytesIO(stdin.encode()))
        self._monkeypatch.setattr("sys.stdin", pipe)
        return admin.main(list(words), {}, self.places)

    def add(self, address: str = ALICE, *options: str) -> int:
        """Add an account, with a hash that costs nothing."""
        return self.run("user", "add", address, "--hash", *options, stdin=SHA512 + "\n")

    def stored(self) -> Store:
        return store.load(self.places)


@pytest.fixture
def terminal(volume: Layout, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(volume, monkeypatch)


def test_add_makes_account_home_and_what_the_mailer_reads(terminal: Terminal) -> None:
    assert terminal.run("user", "add", ALICE, stdin=PASSWORD + "\n") == 0
    account = terminal.stored().accounts[ALICE]
    assert (account.uid, account.gid, account.state) == (20000, 20000, "enabled")
    assert argon2.PasswordHasher().verify(account.hash, PASSWORD)
    assert account.hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    home = terminal.places.home(ALICE)
    assert os.stat(home + "/Maildir/new").st_uid == 20000
    assert b"=example.org-alice:" in Path(terminal.places.users, "cdb").read_bytes()


def test_address_is_lowered(terminal: Terminal) -> None:
    assert terminal.add("Alice@Example.ORG") == 0
    assert list(terminal.stored().accounts) == [ALICE]


def test_password_line_may_end_in_any_way(terminal: Terminal) -> None:
    for number, end in enumerate(["", "\n", "\r\n", "\nrest\n"]):
        address = f"u{number}@example.org"
        assert terminal.run("user", "add", address, stdin=PASSWORD + end) == 0
        assert argon2.PasswordHasher().verify(terminal.stored().accounts[address].hash, PASSWORD)


@pytest.mark.parametrize(
    ("password", "told"),
    [("", "nothing on standard input"), ("short", "shorter"), ("x" * 513, "longer than 512")]
    + [("with\ttab inside", "control character")],
)
def test_password_that_cannot_be_used_is_refused(
    terminal: Terminal, capsys: pytest.CaptureFixture[str], password: str, told: str
) -> None:
    assert terminal.run("user", "add", ALICE, stdin=password + "\n") == 1
    assert told in capsys.readouterr().err
    assert not terminal.stored().accounts


def test_password_is_no_argument(terminal: Terminal) -> None:
    assert terminal.run("user", "add", ALICE, PASSWORD) == 100


def test_existing_hash_is_taken_as_it_is(terminal: Terminal) -> None:
    assert terminal.run("user", "add", ALICE, "--hash", stdin=SHA512 + "\n") == 0
    assert terminal.stored().accounts[ALICE].hash == SHA512


@pytest.mark.parametrize(
    "text",
    [
        "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaA",
        "$y$j9T$abcdefghijklmnopqrstuv$" + "x" * 43,
        "$6$rounds=5000$salt$" + "x" * 86,
        "$2b$12$" + "x" * 53,
    ],
)
def test_hashes_that_the_verifier_knows(terminal: Terminal, text: str) -> None:
    assert terminal.run("user", "add", ALICE, "--hash", stdin=text) == 0


@pytest.mark.parametrize("text", [PASSWORD, "$1$salt$hash", "x", "$6$$", "$2b$12$short"])
def test_what_is_no_known_hash_is_refused(terminal: Terminal, text: str) -> None:
    assert terminal.run("user", "add", ALICE, "--hash", stdin=text + "\n") == 1


def test_existing_account_is_refused_before_a_password_is_asked_for(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.add()
    assert terminal.run("user", "add", ALICE) == 1
    assert "this account exists" in capsys.readouterr().err


def test_unknown_domain_is_refused_with_what_to_do(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    assert terminal.add("bob@example.net") == 1
    assert "postern domain add example.net" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["alice", "a/b@example.org", "../../x@example.org", "a@b c"])
def test_address_that_cannot_be_one_is_refused(terminal: Terminal, address: str) -> None:
    assert terminal.add(address) == 1


def test_account_whose_password_is_elsewhere(terminal: Terminal) -> None:
    assert terminal.run("user", "add", ALICE, "--no-password") == 0
    before = terminal.stored().accounts[ALICE]
    assert before.hash == passwords.NO_PASSWORD
    assert terminal.run("user", "passwd", ALICE, stdin=PASSWORD + "\n") == 0
    assert terminal.run("user", "passwd", ALICE, "--no-password") == 0
    assert terminal.stored().accounts[ALICE] == before
    assert terminal.run("user", "passwd", ALICE, "--no-password", "--hash") == 100


def test_passwd_changes_the_hash_and_nothing_else(terminal: Terminal) -> None:
    terminal.add()
    before = terminal.stored().accounts[ALICE]
    assert terminal.run("user", "passwd", ALICE, stdin="another password\n") == 0
    after = terminal.stored().accounts[ALICE]
    assert argon2.PasswordHasher().verify(after.hash, "another password")
    assert (after.uid, after.home, after.state) == (before.uid, before.home, before.state)


def test_states_and_quota(terminal: Terminal) -> None:
    terminal.add(ALICE, "--quota", "1G")
    assert terminal.stored().accounts[ALICE].quota == 1 << 30
    for words, state in (
        (["disable", ALICE], "disabled"),
        (["enable", ALICE], "enabled"),
        (["state", ALICE, "send-only"], "send-only"),
    ):
        assert terminal.run("user", *words) == 0
        assert terminal.stored().accounts[ALICE].state == state
    assert terminal.run("user", "quota", ALICE, "0") == 0
    assert terminal.stored().accounts[ALICE].quota == 0
    assert terminal.run("user", "state", ALICE, "asleep") == 100


def test_quota_is_in_the_maildir_for_whoever_delivers(terminal: Terminal) -> None:
    terminal.add(ALICE, "--quota", "1K")
    path = terminal.places.home(ALICE) + "/Maildir/maildirsize"
    assert Path(path).read_text() == "1024S\n0 0\n"
    assert (os.stat(path).st_uid, os.stat(path).st_gid) == (20000, 20000)
    deliver(terminal.places)
    terminal.run("user", "quota", ALICE, "2K")
    assert Path(path).read_text() == "2048S\n4 1\n"
    terminal.run("user", "quota", ALICE, "0")
    assert not os.path.exists(path)


def test_what_counts_against_a_quota(tmp_path: Path) -> None:
    for folder in ("", ".Sent", ".Trash"):
        for part in ("new", "cur", "tmp"):
            (tmp_path / folder / part).mkdir(parents=True)
    (tmp_path / "new/1").write_text("xx")
    (tmp_path / "cur/2,S=1000:2,S").write_text("x")
    (tmp_path / "cur/3,S=x:2,S").write_text("x")
    (tmp_path / ".Sent/cur/4").write_text("xxxx")
    (tmp_path / ".Trash/cur/5").write_text("xxxx")
    (tmp_path / "tmp/6").write_text("xxxx")
    (tmp_path / "new/link").symlink_to("/etc/passwd")
    assert maildirsize.usage(str(tmp_path)) == (2 + 1000 + 1 + 4, 4)


@pytest.mark.parametrize("plant", [os.mkfifo, lambda path: os.symlink("../victim", path)])
def test_a_quota_is_not_written_into_what_a_user_has_left_there(
    tmp_path: Path, plant: Callable[[str], None]
) -> None:
    (tmp_path / "Maildir" / "tmp").mkdir(parents=True)
    plant(f"{tmp_path}/Maildir/tmp/maildirsize.{os.getpid()}")
    assert maildirsize.write(str(tmp_path), 1000)
    assert (tmp_path / "Maildir" / "maildirsize").read_text() == "1000S\n0 0\n"
    assert not (tmp_path / "Maildir" / "victim").exists()


def test_disabled_account_still_gets_mail(terminal: Terminal) -> None:
    terminal.add()
    terminal.run("user", "disable", ALICE)
    assert b"=example.org-alice:" in Path(terminal.places.users, "cdb").read_bytes()


@pytest.mark.parametrize("verb", ["passwd", "del", "disable", "enable"])
def test_account_that_is_not_there(
    terminal: Terminal, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    assert terminal.run("user", verb, ALICE, stdin=PASSWORD) == 1
    assert f"{ALICE}: no such account" in capsys.readouterr().err


def test_list(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    terminal.add()
    capsys.readouterr()
    assert terminal.run("user", "list") == 0
    assert capsys.readouterr().out == f"{ALICE}\tenabled\t20000\t-\n"


def deliver(places: Layout) -> str:
    path = places.home(ALICE) + "/Maildir/new/1.mail"
    Path(path).write_text("mail")
    os.chown(path, 20000, 20000)
    return path


def test_del_keeps_the_mail(terminal: Terminal) -> None:
    terminal.add()
    mail = deliver(terminal.places)
    assert terminal.run("user", "del", ALICE) == 0
    assert os.path.exists(mail)
    assert ALICE not in terminal.stored().accounts
    assert b"=example.org-alice:" not in Path(terminal.places.users, "cdb").read_bytes()


def test_del_purge_removes_it(terminal: Terminal) -> None:
    terminal.add()
    deliver(terminal.places)
    assert terminal.run("user", "del", "--purge", ALICE) == 0
    assert not os.path.exists(terminal.places.home(ALICE))


def test_purge_after_del(terminal: Terminal) -> None:
    terminal.add()
    deliver(terminal.places)
    terminal.run("user", "del", ALICE)
    assert terminal.run("user", "del", "--purge", ALICE) == 0
    assert not os.path.exists(terminal.places.home(ALICE))
    assert terminal.run("user", "del", "--purge", ALICE) == 1


def test_purge_follows_no_link_of_the_user(terminal: Terminal, tmp_path: Path) -> None:
    terminal.add()
    (tmp_path / "precious").write_text("x")
    os.symlink(tmp_path, terminal.places.home(ALICE) + "/link")
    assert terminal.run("user", "del", "--purge", ALICE) == 0
    assert (tmp_path / "precious").exists()


def test_purge_is_done_as_the_user(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal.add()
    report = Path(terminal.places.root, "report")
    report.touch()
    report.chmod(0o666)

    def who(home: str) -> bool:
        report.write_text(f"{os.getresuid()} {os.getresgid()} {os.getgroups()}")
        return False

    monkeypatch.setattr(accounts, "_remove_content", who)
    assert terminal.run("user", "del", "--purge", ALICE) == 1
    assert report.read_text() == "(20000, 20000, 20000) (20000, 20000, 20000) [20000]"


def test_uid_is_never_used_again(terminal: Terminal) -> None:
    terminal.add()
    terminal.run("user", "del", "--purge", ALICE)
    terminal.add("bob@example.org")
    assert terminal.stored().accounts["bob@example.org"].uid == 20001


def test_mail_of_a_former_account_is_not_shown_to_a_new_one(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.add()
    deliver(terminal.places)
    terminal.run("user", "del", ALICE)
    assert terminal.add() == 1
    assert f"postern user del --purge {ALICE}" in capsys.readouterr().err


def test_empty_home_of_a_former_account_is_used_again(terminal: Terminal) -> None:
    terminal.add()
    terminal.run("user", "del", ALICE)
    assert terminal.add() == 0
    assert terminal.stored().accounts[ALICE].uid == 20000


def test_home_that_another_account_owns_is_not_taken(terminal: Terminal) -> None:
    terminal.add()
    data.make_home(terminal.places, "bob@example.org", Owner(20000, 20000))
    assert terminal.add("bob@example.org") == 1


@pytest.mark.parametrize("step", ["make_home", "save", "publish"])
def test_interrupted_add_can_be_repeated_and_wastes_no_uid_on_two(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    save = store.save

    def crash(*given: object) -> None:
        if step == "save" and not given[1].accounts:  # type: ignore[attr-defined]
            save(*given)  # type: ignore[arg-type]
            return
        raise KeyboardInterrupt

    module = {"make_home": data, "save": store, "publish": publish}[step]
    monkeypatch.setattr(module, step, crash)
    with pytest.raises(KeyboardInterrupt):
        terminal.add()
    monkeypatch.undo()
    other = Terminal(terminal.places, monkeypatch)
    assert other.add("bob@example.org") == 0
    assert other.add() == (1 if step == "publish" else 0)
    found = other.stored().accounts
    assert found[ALICE].uid != found["bob@example.org"].uid
    assert os.stat(other.places.home(ALICE)).st_uid == found[ALICE].uid


def test_alias(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    terminal.add()
    assert terminal.run("alias", "add", "info@example.org", ALICE, "x@elsewhere.example") == 0
    dot_qmail = Path(terminal.places.alias, ".qmail-example:org-info")
    assert dot_qmail.read_text() == f"&{ALICE}\n&x@elsewhere.example\n"
    capsys.readouterr()
    terminal.run("alias", "list")
    assert capsys.readouterr().out == f"info@example.org\t{ALICE} x@elsewhere.example\n"
    assert terminal.run("alias", "del", "info@example.org", "x@elsewhere.example") == 0
    assert dot_qmail.read_text() == f"&{ALICE}\n"
    assert terminal.run("alias", "del", "info@example.org") == 0
    assert not dot_qmail.exists()


def test_last_target_takes_the_alias_with_it(terminal: Terminal) -> None:
    terminal.run("alias", "add", "info@example.org", "a@b.example")
    terminal.run("alias", "del", "info@example.org", "a@b.example")
    assert not terminal.stored().aliases


def test_alias_more_targets_are_added(terminal: Terminal) -> None:
    terminal.run("alias", "add", "info@example.org", "a@b.example")
    terminal.run("alias", "add", "info@example.org", "c@d.example", "a@b.example")
    assert terminal.stored().aliases["info@example.org"] == ("a@b.example", "c@d.example")


@pytest.mark.parametrize(
    "words",
    [
        ["add", ALICE, "b@example.org"],
        ["add", "info@example.net", ALICE],
        ["add", "info@example.org", "info@example.org"],
        ["add", "info@example.org", "|rm"],
        ["del", "none@example.org"],
        ["del", "known@example.org", "other@example.org"],
    ],
)
def test_alias_that_cannot_be(terminal: Terminal, words: list[str]) -> None:
    terminal.add()
    terminal.run("alias", "add", "known@example.org", ALICE)
    before = terminal.stored()
    assert terminal.run("alias", *words) == 1
    assert terminal.stored() == before


def test_account_instead_of_an_alias_is_refused(terminal: Terminal) -> None:
    terminal.run("alias", "add", ALICE, "a@b.example")
    assert terminal.add() == 1


def test_domain(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    Path(terminal.places.control, "me").write_text("mail.example.org\n")
    assert terminal.run("domain", "add", "Bücher.example") == 0
    assert terminal.run("domain", "add", "xn--bcher-kva.example") == 1
    assert terminal.add("bob@xn--bcher-kva.example") == 0
    rcpthosts = Path(terminal.places.control, "rcpthosts")
    assert "xn--bcher-kva.example" in rcpthosts.read_text()
    assert terminal.run("domain", "del", "xn--bcher-kva.example") == 1
    assert "still has bob@" in capsys.readouterr().err
    terminal.run("user", "del", "--purge", "bob@xn--bcher-kva.example")
    assert terminal.run("domain", "del", "xn--bcher-kva.example") == 0
    assert os.listdir(terminal.places.homes) == []
    assert "xn--" not in rcpthosts.read_text()
    assert terminal.run("domain", "del", "xn--bcher-kva.example") == 1
    capsys.readouterr()
    terminal.run("domain", "list")
    assert capsys.readouterr().out == "example.org\n"


def test_domain_with_control_files_of_the_administrator_says_what_is_left_to_do(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(terminal.places.control, "me").write_text("mail.example.org\n")
    Path(terminal.places.control, "rcpthosts").write_text("example.org\n")
    assert terminal.run("domain", "add", "new.example") == 0
    assert "control/rcpthosts is not ours" in capsys.readouterr().err
    assert terminal.add() == 0
    assert "not ours" not in capsys.readouterr().err


def test_volume_that_was_never_started_is_prepared(
    places: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.unlink(places.lock) if os.path.exists(places.lock) else None
    os.rmdir(places.accounts)
    fresh = Terminal(places, monkeypatch)
    assert fresh.run("domain", "add", "example.org") == 0
    assert fresh.add() == 0


def test_change_that_could_not_be_published_is_published_by_the_next(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    newu = Path(terminal.places.qmail, "bin/qmail-newu")
    script = newu.read_text()
    newu.write_text("#!/bin/sh\nexit 111\n")
    assert terminal.add() == 111
    assert "the change is stored" in capsys.readouterr().err
    newu.write_text(script)
    assert terminal.add("bob@example.org") == 0
    assert b"=example.org-alice:" in Path(terminal.places.users, "cdb").read_bytes()


def test_damaged_store_stops_every_change(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(terminal.places.store).write_text("{}")
    assert terminal.add() == 111
    assert "accounts.json" in capsys.readouterr().err
    assert Path(terminal.places.store).read_text() == "{}"
