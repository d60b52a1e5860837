"""Recipients refused at RCPT: by programs, and by asking the socket."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyqmail.rcptcheck import programs
from pyqmail.rcptcheck.checks import CANNOT_CHECK, NO_MAILBOX, RecipientChecks, checks_for
from pyqmail.smtp.reply import Reply


class Mailboxes:
    """Answers on a socket as the one who knows the mailboxes would."""

    def __init__(self, path: str, answers: dict[bytes, bytes], once: bool = False) -> None:
        self.asked: list[bytes] = []
        self.connections = 0
        self._answers = answers
        self._once = once
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(path)
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            while question := connection.recv(2000):
                self.asked.append(question)
                connection.send(self._answers.get(question, b"0"))
                if self._once:
                    break
            connection.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def mailboxes(tmp_path: Path) -> Iterator[Callable[..., Mailboxes]]:
    made: list[Mailboxes] = []

    def make(answers: dict[bytes, bytes], once: bool = False) -> Mailboxes:
        made.append(Mailboxes(str(tmp_path / "sock"), answers, once))
        return made[-1]

    yield make
    for one in made:
        one.close()


def checks(tmp_path: Path, *programs: str) -> RecipientChecks:
    words = [program.split() for program in programs]
    return RecipientChecks(words, {"PATH": os.environ["PATH"]}, str(tmp_path / "sock"))


@pytest.mark.parametrize(
    ("answer", "refusal"),
    [(b"1", None), (b"0", NO_MAILBOX), (b"t", CANNOT_CHECK), (b"?", CANNOT_CHECK)],
)
def test_answers_of_the_socket(
    tmp_path: Path, mailboxes: Callable[..., Mailboxes], answer: bytes, refusal: Reply | None
) -> None:
    known = mailboxes({b"joe@example.org": answer})
    assert checks(tmp_path)(b"", b"joe@example.org") == refusal
    assert known.asked == [b"joe@example.org"]


def test_one_connection_serves_many_questions(
    tmp_path: Path, mailboxes: Callable[..., Mailboxes]
) -> None:
    known = mailboxes({b"a": b"1"})
    check = checks(tmp_path)
    assert [check(b"", box) for box in (b"a", b"b", b"a")] == [None, NO_MAILBOX, None]
    assert known.connections == 1


def test_stale_connection_is_replaced(tmp_path: Path, mailboxes: Callable[..., Mailboxes]) -> None:
    mailboxes({b"a": b"1"}, once=True)
    check = checks(tmp_path)
    assert [check(b"", b"a") for _ in range(3)] == [None, None, None]


def test_no_socket_lets_pass(tmp_path: Path) -> None:
    assert checks(tmp_path)(b"", b"anybody@example.org") is None


def test_empty_path_switches_the_question_off() -> None:
    assert RecipientChecks([], {}, "")(b"", b"anybody@example.org") is None


def test_dead_socket_puts_off(tmp_path: Path) -> None:
    socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).bind(str(tmp_path / "sock"))
    assert checks(tmp_path)(b"", b"anybody@example.org") == CANNOT_CHECK


@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        ("exit 0", None),
        ("exit 1", None),
        ("exit 100", NO_MAILBOX),
        ("exit 111", CANNOT_CHECK),
        ("exit 120", CANNOT_CHECK),
        ("kill -9 $$", CANNOT_CHECK),
    ],
)
def test_exit_statuses_of_programs(tmp_path: Path, status: str, refusal: Reply | None) -> None:
    program = tmp_path / "check"
    program.write_text(f"#!/bin/sh\n{status}\n")
    program.chmod(0o755)
    assert checks(tmp_path, str(program))(b"", b"x@y") == refusal


def test_missing_program_puts_off(tmp_path: Path) -> None:
    assert checks(tmp_path, "/nonexistent/check")(b"", b"x@y") == CANNOT_CHECK


def test_program_gets_the_addresses_and_cannot_reach_the_client(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "check"
    program.write_text('#!/bin/sh\ncat\necho "$SENDER to $RECIPIENT $1"\n')
    program.chmod(0o755)
    assert checks(tmp_path, f"{program} word")(b"a@b", b"c@d") is None
    assert capfd.readouterr() == ("", "a@b to c@d word\n")


def test_first_refusal_counts(tmp_path: Path) -> None:
    program = tmp_path / "deny"
    program.write_text("#!/bin/sh\nexit 100\n")
    program.chmod(0o755)
    later = f"touch {tmp_path}/ran"
    assert checks(tmp_path, "true", str(program), later)(b"", b"x@y") == NO_MAILBOX
    assert not (tmp_path / "ran").exists()


def test_control_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "rcptchecks").write_text(
        "# comment\nfalse -x\nqmail-rcptcheck-realrcptto\n"
    )
    monkeypatch.chdir(tmp_path)
    made = checks_for({"QMAIL_RECIPIENT_SOCKET": "/x"})
    assert (made._programs, made._path) == ([["false", "-x"]], "/x")


@pytest.mark.parametrize(
    ("variable", "wanted"),
    [
        ("/opt/my check", [["/opt/my check"], ["true"]]),
        ("/var/qmail/bin/qmail-rcptcheck", [["true"]]),
        ("qmail-rcptcheck", [["true"]]),
        ("", [["true"]]),
    ],
)
def test_one_more_program_from_the_environment(
    variable: str, wanted: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "rcptchecks").write_text("true\n")
    monkeypatch.chdir(tmp_path)
    assert checks_for({"RCPTCHECK": variable})._programs == wanted


def say(tmp_path: Path, name: str, status: int) -> str:
    path = tmp_path / name
    path.write_text(f"#!/bin/sh\nexit {status}\n")
    path.chmod(0o755)
    return f"{path}\n"


@pytest.mark.parametrize(
    ("statuses", "result"),
    [([], 0), ([0, 1], 0), ([0, 100, 111], 100), ([111, 100], 111), ([120], 120), ([99], 0)],
)
def test_rcptcheck_runs_what_is_listed(tmp_path: Path, statuses: list[int], result: int) -> None:
    (tmp_path / "control").mkdir()
    lines = [say(tmp_path, f"check{i}", status) for i, status in enumerate(statuses)]
    (tmp_path / "control" / "rcptchecks").write_text("".join(lines))
    env = {"QMAIL_HOME": str(tmp_path), "SENDER": "", "RECIPIENT": "x@y"}
    assert programs.rcptcheck(["qmail-rcptcheck"], env) == result


@pytest.mark.parametrize(
    ("recipient", "result"),
    [("spam@x.y", 100), ("SPAM@X.y", 100), ("any@bad.example", 100), ("joe@x.y", 0)],
)
def test_badrcptto(tmp_path: Path, recipient: str, result: int) -> None:
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "badrcptto").write_text("spam@x.y\n@bad.example\n")
    env = {"QMAIL_HOME": str(tmp_path), "RECIPIENT": recipient}
    assert programs.badrcptto(["qmail-rcptcheck-badrcptto"], env) == result


def test_badrcptto_without_a_list(tmp_path: Path) -> None:
    (tmp_path / "control").mkdir()
    env = {"QMAIL_HOME": str(tmp_path), "RECIPIENT": "a@b"}
    assert programs.badrcptto(["qmail-rcptcheck-badrcptto"], env) == 0


@pytest.mark.parametrize(("answer", "result"), [(b"1", 0), (b"0", 100), (b"t", 111)])
def test_realrcptto(
    tmp_path: Path, mailboxes: Callable[..., Mailboxes], answer: bytes, result: int
) -> None:
    mailboxes({b"x@y": answer})
    env = {"QMAIL_RECIPIENT_SOCKET": str(tmp_path / "sock"), "RECIPIENT": "x@y"}
    assert programs.realrcptto(["qmail-rcptcheck-realrcptto"], env) == result


@pytest.mark.parametrize("program", [programs.rcptcheck, programs.badrcptto, programs.realrcptto])
def test_without_a_recipient_nothing_can_be_said(tmp_path: Path, program) -> None:
    assert program(["x"], {"QMAIL_HOME": str(tmp_path / "missing")}) == 120
