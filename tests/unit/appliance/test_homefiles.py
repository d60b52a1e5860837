"""``postern user file``: what an account's home says about its mail."""

import io
import os
import stat
from pathlib import Path

import pytest

from appliance import admin, store
from appliance.layout import Layout
from appliance.store import Store

ALICE = "alice@example.org"
HASH = "$6$abcdefgh$" + "x" * 86 + "\n"
FILTERS = ".ofmipd/filters"


class Terminal:
    """Runs ``postern user`` with a given standard input."""

    def __init__(self, places: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
        self.places = places
        self._monkeypatch = monkeypatch
        assert self.run("add", ALICE, "--hash", stdin=HASH) == 0
        self.home = Path(places.home(ALICE))

    def run(self, *words: str, stdin: str = "") -> int:
        pipe = io.TextIOWrapper(io.BytesIO(stdin.encode()))
        self._monkeypatch.setattr("sys.stdin", pipe)
        return admin.main(["user", *words], {}, self.places)


@pytest.fixture
def terminal(places: Layout, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    store.save(places, Store(("example.org",)))
    return Terminal(places, monkeypatch)


@pytest.mark.parametrize(
    ("name", "mode"), [(".qmail", 0o600), (".qmail-x", 0o600), (FILTERS, 0o600), ("bin/f", 0o700)]
)
def test_put_makes_a_file_of_the_accounts_own(terminal: Terminal, name: str, mode: int) -> None:
    assert terminal.run("file", "put", ALICE, name, stdin="one\n") == 0
    assert terminal.run("file", "put", ALICE, name, stdin="two\n") == 0
    made = terminal.home / name
    assert made.read_text() == "two\n"
    assert stat.S_IMODE(made.stat().st_mode) == mode
    for path in (made, *made.relative_to(terminal.home).parents[:-1]):
        assert (terminal.home / path).stat().st_uid == 20000
        assert not (terminal.home / path).stat().st_mode & 0o077
    assert len(list(made.parent.iterdir())) == (2 if made.parent == terminal.home else 1)


def test_show_list_and_del(terminal: Terminal, capfd: pytest.CaptureFixture[str]) -> None:
    for name in (".qmail", FILTERS):
        assert terminal.run("file", "put", ALICE, name, stdin=f"{name}!\n") == 0
    capfd.readouterr()
    assert terminal.run("file", "list", ALICE) == 0
    assert capfd.readouterr().out == f"{FILTERS}\n.qmail\n"
    assert terminal.run("file", "show", ALICE, FILTERS) == 0
    assert capfd.readouterr().out == f"{FILTERS}!\n"
    assert terminal.run("file", "del", ALICE, FILTERS) == 0
    assert not (terminal.home / FILTERS).exists()
    assert terminal.run("file", "del", ALICE, FILTERS) == 1
    assert terminal.run("file", "show", ALICE, FILTERS) == 1


@pytest.mark.parametrize(
    "name", ["Maildir/new/x", "../bob/.qmail", ".qmail/x", ".ofmipd/..", "bin/../x", ".bashrc", ""]
)
def test_no_other_file_is_touched(terminal: Terminal, name: str) -> None:
    assert terminal.run("file", "put", ALICE, name, stdin="x") == 100


def test_root_follows_no_link_of_the_users(terminal: Terminal, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)
    (terminal.home / ".qmail").symlink_to(secret)
    assert terminal.run("file", "show", ALICE, ".qmail") == 1
    assert terminal.run("file", "put", ALICE, ".qmail", stdin="x") == 0
    assert secret.read_text() == "root's"
    os.symlink(tmp_path, terminal.home / "bin")
    assert terminal.run("file", "put", ALICE, "bin/f", stdin="x") == 1
    assert not (tmp_path / "f").exists()


def test_no_account_no_file(terminal: Terminal) -> None:
    assert terminal.run("file", "put", "bob@example.org", ".qmail", stdin="x") == 1
