"""checkpassword-pam: its command line, and libpam itself with a service of the test's own."""

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from acceptutils.checkpassword import libpam, pam
from acceptutils.checkpassword.apart import Found, Refused
from acceptutils.checkpassword.libpam import Library, PamError, PamSystemError
from acceptutils.checkpassword.login import Login
from acceptutils.checkpassword.pam import Options, parse_arguments
from acceptutils.checkpassword.program import Unavailable

# Command line --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-s mail prog -x", Options("mail", ["prog", "-x"])),
        ("-smail -- prog", Options("mail", ["prog"])),
        ("--service mail prog", Options("mail", ["prog"])),
        ("--service=mail prog -- -e", Options("mail", ["prog", "--", "-e"])),
        ("-s mail -e -H prog", Options("mail", ["prog"], switches={"noenv", "no-chdir-home"})),
        (
            "-s a --noenv --no-chdir-home p",
            Options("a", ["p"], switches={"noenv", "no-chdir-home"}),
        ),
        ("--debug --stdout -s a p", Options("a", ["p"], switches={"debug", "stdout"})),
        (
            "-s a --identity accounts --user {local} --account={local}@b p",
            Options("a", ["p"], "accounts", "{local}", "{local}@b"),
        ),
    ],
)
def test_command_line(words: str, expected: Options) -> None:
    assert parse_arguments(words.split(), {}) == expected


def test_service_from_the_environment() -> None:
    env = {"PAM_SERVICE": "pop"}
    assert parse_arguments(["prog"], env).service == "pop"
    assert parse_arguments(["-s", "mail", "prog"], env).service == "mail"


@pytest.mark.parametrize(
    "words",
    [
        "prog",
        "-s",
        "-s mail",
        "-s mail --",
        "-s ../mail prog",
        "-x -s mail prog",
        "--noenv=yes -s mail prog",
        "--service= prog",
        "-s mail --identity root prog",
        "-s mail --account {login} prog",
        "-s mail --user alice prog",
        "-s mail --identity accounts --account everybody prog",
    ],
)
def test_misuse(words: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert pam.main(["checkpassword-pam", *words.split()], {}) == 2
    assert "usage: checkpassword-pam" in capfd.readouterr().err


@pytest.mark.parametrize(("word", "text"), [("--help", "usage"), ("--version", "postern")])
def test_what_is_only_told(word: str, text: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert pam.main(["checkpassword-pam", word], {}) == 0
    assert text in capfd.readouterr().out


# What is made of PAM's answer ----------------------------------------------------------------


class Answering:
    """A library that says what the test wants."""

    def __init__(self, answer: bytes | Exception | None) -> None:
        self.answer = answer
        self.asked: list[tuple[object, ...]] = []

    def __call__(self) -> "Answering":
        return self

    def check(self, *given: object) -> bytes | None:
        self.asked.append(given[:4])
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def ask(
    monkeypatch: pytest.MonkeyPatch,
    answer: bytes | Exception | None,
    login: bytes = b"alice@example.org",
    **options: Any,
) -> tuple[Found | None, list[tuple[object, ...]]]:
    library = Answering(answer)
    monkeypatch.setattr(libpam, "Library", library)
    chosen = Options("mail", ["prog"], **options)
    found = pam.ask_pam(chosen, Login(login), b"swordfish", "192.0.2.1", lambda _: None)
    return found, library.asked


def test_an_account_by_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    templates = {"user": "{local}", "account": "{local}@x", "identity": "accounts"}
    found, asked = ask(monkeypatch, b"alice", **templates)
    assert found == Found("alice@x")
    assert asked == [("mail", b"alice", b"swordfish", "192.0.2.1")]


def test_refused_and_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(monkeypatch, None)[0] is None
    with pytest.raises(Unavailable, match="mail: no module"):
        ask(monkeypatch, PamError("no module"))
    with pytest.raises(Refused, match="mail: error"):
        ask(monkeypatch, PamSystemError("error"))


def test_a_name_that_is_no_text_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(monkeypatch, b"alice", login=b"\xff") == (None, [])


@pytest.mark.parametrize("name", [b"root", b"no such user", b"\xff"])
def test_users_that_nobody_may_become(monkeypatch: pytest.MonkeyPatch, name: bytes) -> None:
    with pytest.raises(Refused):
        ask(monkeypatch, name)


def test_only_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = ask(monkeypatch, b"root", login=b"root", switches=frozenset({"noenv"}))
    assert found == Found("root")


def test_no_libpam_is_a_failure_for_now(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise OSError("libpam.so.0: cannot open shared object file")

    monkeypatch.setattr(libpam, "Library", absent)
    chosen = Options("mail", ["prog"])
    with pytest.raises(Unavailable, match=r"libpam\.so\.0"):
        pam.ask_pam(chosen, Login(b"alice"), b"x", "", lambda _: None)
    monkeypatch.setitem(sys.modules, "acceptutils.checkpassword.libpam", None)
    pam.preload(["checkpassword-pam"], {})


# libpam ---------------------------------------------------------------------------------------

SCRIPT = """#!/bin/sh
read -r word
test "$PAM_USER/$PAM_RHOST/$word" = "alice/192.0.2.1/correct horse"
"""


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of the service "mail", in a folder that libpam reads instead of /etc/pam.d."""
    try:
        library = Library()
        start = library._pam.pam_start_confdir
    except (OSError, AttributeError):
        pytest.skip("no libpam that reads its configuration elsewhere")
    start.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_char_p]
    start.argtypes.append(ctypes.c_void_p)

    def elsewhere(name: bytes, user: bytes, conversation: Any, handle: Any) -> int:
        return int(start(name, user, conversation, bytes(tmp_path), handle))

    monkeypatch.setattr(library._pam, "pam_start", elsewhere)
    monkeypatch.setattr(libpam, "Library", lambda: library)
    script = tmp_path / "script"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    file = tmp_path / "mail"
    file.write_text(
        f"auth required pam_exec.so quiet expose_authtok {script}\naccount required pam_permit.so\n"
    )
    yield file


def says(password: bytes, user: bytes = b"alice", notes: list[str] | None = None) -> bytes | None:
    note = [].append if notes is None else notes.append
    return libpam.Library().check("mail", user, password, "192.0.2.1", note)


def test_pam_is_asked_with_password_and_address(service: Path) -> None:
    notes: list[str] = []
    assert says(b"correct horse", notes=notes) == b"alice"
    for password, user in ((b"wrong", b"alice"), (b"correct horse", b"bob")):
        with pytest.raises(PamSystemError):  # pam_exec's word for no
            says(password, user, notes)
    assert [note.partition(":")[0] for note in notes] == [
        "pam_authenticate",
        "pam_acct_mgmt",
        "pam_authenticate",
        "pam_authenticate",
    ]
    assert "horse" not in "".join(notes)


def test_an_account_phase_that_fails_is_a_refusal(service: Path) -> None:
    service.write_text("auth required pam_permit.so\naccount required pam_deny.so\n")
    notes: list[str] = []
    assert says(b"anything", notes=notes) is None
    assert notes[0].startswith("pam_authenticate: Success")


def test_a_module_that_is_not_there_is_a_failure_for_now(service: Path) -> None:
    service.write_text("auth required pam_nowhere.so\n")
    with pytest.raises(PamError):
        says(b"anything")


def test_a_service_without_authentication_lets_nobody_in(service: Path) -> None:
    service.write_text("account required pam_permit.so\n")
    assert says(b"anything") is None


def test_what_a_module_says_is_noted(service: Path) -> None:
    service.write_text(
        "auth optional pam_echo.so hello %u\nauth required pam_permit.so\n"
        "account required pam_permit.so\n"
    )
    notes: list[str] = []
    assert says(b"anything", notes=notes) == b"alice"
    # PAM_SILENT asks modules to say nothing; some do.
    assert {note.partition(":")[0] for note in notes} <= {
        "says",
        "pam_authenticate",
        "pam_acct_mgmt",
    }
