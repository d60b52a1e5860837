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


def test_defaults_are_said_to_be_defaults(home: Path) -> None:
    status, printed = showctl(home)
    assert status == 0
    assert "me:\nMy name is mx.example.org.\n" in printed
    assert "helohost:\n(Default.) SMTP client HELO host name is mx.example.org.\n" in printed
    assert "rcpthosts:\n(Default.) SMTP clients may send to any recipient.\n" in printed


def test_list_files_give_a_sentence_for_each_line(home: Path) -> None:
    (home / "control" / "locals").write_text("# ours\na.example\nb.example  \n")
    printed = showctl(home)[1]
    assert "Messages for a.example are delivered locally.\n" in printed
    assert "Messages for b.example are delivered locally.\n" in printed


def test_unknown_files_are_named(home: Path) -> None:
    (home / "control" / "rcpthost").write_text("typo.example\n")
    assert "rcpthost: I have no idea what this file does." in showctl(home)[1]


def test_passwords_of_routes_are_not_shown(home: Path) -> None:
    (home / "control" / "smtproutes").write_text(":relay.example:587 user secret-word\n")
    printed = showctl(home)[1]
    assert "secret-word" not in printed
    assert "SMTP routes, with 1 lines." in printed


def test_secrets_are_counted_and_not_shown(home: Path) -> None:
    (home / "control" / "srs_secrets").write_text("secret-word\nolder-word\n")
    printed = showctl(home)[1]
    assert "-word" not in printed
    assert "Secrets of forwarded mail's senders, 2 of them." in printed


def test_no_home_is_a_temporary_failure(tmp_path: Path) -> None:
    status, printed = showctl(tmp_path / "nothing")
    assert status == 111
    assert printed.startswith("qmail-showctl: ")
