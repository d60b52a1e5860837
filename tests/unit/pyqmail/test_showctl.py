"""qmail-showctl explains what is there, names what is not, and shows no secret."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def showctl(home: Path) -> tuple[int, str]:
    """Run qmail-showctl on a home; return its status and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "ucspi", "qmail-showctl"],
        env={**os.environ, "QMAIL_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A qmail home with nothing but control/me."""
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "me").write_text("mx.example.org\n")
    return tmp_path


def test_what_is_built_in_comes_first(home: Path) -> None:
    printed = showctl(home)[1]
    assert printed.startswith(
        f"qmail home directory: {home}.\n"
        "user-ext delimiter: -.\n"
        "paternalism (in decimal): 18.\n"
        "silent concurrency limit: 120.\n"
        "subdirectory split: 23.\n"
        "user ids: "
    )


def test_defaults_are_said_to_be_defaults(home: Path) -> None:
    status, printed = showctl(home)
    assert status == 0
    assert "\n\nme: My name is mx.example.org.\n" in printed
    assert "\n\nhelohost: (Default.) SMTP client HELO host name is mx.example.org.\n" in printed
    assert "\n\ndatabytes: (Default.) SMTP DATA limit is 0 bytes.\n" in printed
    assert "\n\nrcpthosts: (Default.) SMTP clients may send messages to any recipient.\n" in printed


def test_list_files_give_a_sentence_for_each_line(home: Path) -> None:
    (home / "control" / "locals").write_text("# ours\na.example\nb.example  \n")
    assert (
        "\n\nlocals: \n"
        "Messages for a.example are delivered locally.\n"
        "Messages for b.example are delivered locally.\n\n"
    ) in showctl(home)[1]


def test_a_number_that_is_none_is_told(home: Path) -> None:
    (home / "control" / "databytes").write_text("10M\n")
    (home / "control" / "queuelifetime").write_text("0060 \n")
    printed = showctl(home)[1]
    assert "databytes: Oops! Not a number: 10M.\n" in printed
    assert "queuelifetime: Message lifetime in the queue is 60 seconds.\n" in printed


def test_one_unreadable_file_hides_no_other(home: Path) -> None:
    (home / "control" / "helohost").mkdir()
    status, printed = showctl(home)
    assert status == 0
    assert "helohost: Oops! Trouble reading this file.\n" in printed
    assert "virtualdomains: (Default.) No virtual domains.\n" in printed


def test_control_characters_do_not_reach_the_terminal(home: Path) -> None:
    (home / "control" / "smtpgreeting").write_bytes(b"mx\x1b[2J \xff\n")
    assert "smtpgreeting: SMTP greeting: 220 mx?[2J ?.\n" in showctl(home)[1]


@pytest.mark.parametrize(
    ("made_at", "said"),
    [
        (None, "Oops! morercpthosts exists but morercpthosts.cdb doesn't."),
        (1000, "Oops! morercpthosts.cdb is older than morercpthosts."),
        (3000, "Modified recently enough; hopefully up to date."),
    ],
)
def test_forgotten_newmrh_is_told(home: Path, made_at: int | None, said: str) -> None:
    for name, when in (("morercpthosts", 2000), ("morercpthosts.cdb", made_at)):
        if when is not None:
            (home / "control" / name).write_text("more.example\n")
            os.utime(home / "control" / name, (when, when))
    printed = showctl(home)[1]
    assert f"morercpthosts.cdb: {said}\n" in printed
    assert "No rcpthosts; doesn't matter that morercpthosts has more.example.\n" in printed


def test_database_without_its_source_is_told(home: Path) -> None:
    (home / "control" / "rcpthosts").write_text("example.org\n")
    (home / "control" / "morercpthosts.cdb").write_text("")
    printed = showctl(home)[1]
    assert "Oops! morercpthosts.cdb exists but morercpthosts doesn't.\n" in printed
    assert "morercpthosts: (Default.) No effect.\n" in printed


def test_unknown_files_are_named(home: Path) -> None:
    (home / "control" / "rcpthost").write_text("typo.example\n")
    assert "rcpthost: I have no idea what this file does." in showctl(home)[1]


def test_passwords_of_routes_are_not_shown(home: Path) -> None:
    (home / "control" / "smtproutes").write_text(":relay.example:587 user secret-word\n")
    printed = showctl(home)[1]
    assert "secret-word" not in printed
    assert "smtproutes: \nSMTP route: :relay.example:587 with a login\n" in printed


@pytest.mark.parametrize(
    "name", ["srs_secrets", "checkpassword-ldap-password", "checkpassword-sql"]
)
def test_secrets_are_known_and_not_shown(home: Path, name: str) -> None:
    (home / "control" / name).write_text("password = secret-word\nolder-word\n")
    printed = showctl(home)[1]
    assert "-word" not in printed
    assert f"\n{name}: " in printed
    assert "no idea" not in printed


def test_no_home_is_a_temporary_failure(tmp_path: Path) -> None:
    status, printed = showctl(tmp_path / "nothing")
    assert status == 111
    assert printed.startswith("qmail-showctl: ")


def test_home_without_control_files_is_told(tmp_path: Path) -> None:
    told = "qmail-showctl: unable to read control: No such file or directory\n"
    assert showctl(tmp_path) == (111, told)
