"""The programs made for .qmail files: forward, except, bouncesaying, condredirect, preline."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from pyqmail.local import conditional, forward, preline

MESSAGE = b"Subject: hello\n\nbody\n"
LINES = {
    "UFLINE": "From sam date\n",
    "RPLINE": "Return-Path: <sam>\n",
    "DTLINE": "Delivered-To: joe@h\n",
}


class Run(NamedTuple):
    """What a program did."""

    status: int
    output: bytes
    errors: bytes


Main = Callable[[list[str], dict[str, str]], int]
Execute = Callable[..., Run]


@pytest.fixture
def execute(tmp_path: Path) -> Execute:
    queue = tmp_path / "queue-program"
    queue.write_text(
        f"#!/bin/sh\ncat > {tmp_path}/q.message\ncat <&1 > {tmp_path}/q.envelope\n"
        'exit "${Q_STATUS:-0}"\n'
    )
    queue.chmod(0o755)

    def run(main: Main, *argv: str, env: dict[str, str] | None = None) -> Run:
        (tmp_path / "message").write_bytes(MESSAGE)
        files = [os.open(tmp_path / "message", os.O_RDONLY)]
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
        files += [os.open(tmp_path / name, flags) for name in ("output", "errors")]
        base = {"PATH": "/usr/bin:/bin", "SENDER": "sam@x", "NEWSENDER": "list-owner@h", **LINES}
        base["QMAILQUEUE"] = str(queue)
        base |= env or {}
        pid = os.fork()
        if not pid:
            status = 70
            try:
                import sys

                for wanted, file in enumerate(files):
                    os.dup2(file, wanted)
                sys.stderr = os.fdopen(2, "w", closefd=False)
                status = main(["program", *argv], base)
                sys.stderr.flush()
            finally:
                os._exit(status)
        for file in files:
            os.close(file)
        _, wait_status = os.waitpid(pid, 0)
        output, errors = ((tmp_path / name).read_bytes() for name in ("output", "errors"))
        return Run(os.waitstatus_to_exitcode(wait_status), output, errors)

    return run


def test_forward_queues_with_the_new_sender(execute: Execute, tmp_path: Path) -> None:
    run = execute(forward.main, "a@x", "b@y")
    assert run.status == 0
    assert run.errors.startswith(b"forward: qp ")
    assert (tmp_path / "q.message").read_bytes() == b"Delivered-To: joe@h\n" + MESSAGE
    assert (tmp_path / "q.envelope").read_bytes() == b"Flist-owner@h\0Ta@x\0Tb@y\0\0"


@pytest.mark.parametrize(
    ("status", "code", "text"),
    [
        ("31", 100, b"mail server permanently rejected message (#5.3.0)"),
        ("71", 111, b"mail server temporarily rejected message (#4.3.0)"),
    ],
)
def test_forward_passes_on_what_the_queue_says(
    execute: Execute, status: str, code: int, text: bytes
) -> None:
    run = execute(forward.main, "a@x", env={"Q_STATUS": status})
    assert run == (code, b"", b"forward: fatal: " + text + b"\n")


def test_forward_belongs_into_a_qmail_file(tmp_path: Path, capsys) -> None:
    assert forward.main(["forward", "a@x"], {}) == 100
    assert capsys.readouterr().err == "forward: fatal: NEWSENDER not set\n"


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (["true"], (100, b"", b"")),
        (["false"], (0, b"", b"")),
        (["sh", "-c", "exit 99"], (0, b"", b"")),
        (["sh", "-c", "exit 100"], (0, b"", b"")),
        (["sh", "-c", "exit 111"], (111, b"", b"except: fatal: temporary child error\n")),
        (["sh", "-c", "kill -9 $$"], (111, b"", b"except: fatal: child crashed\n")),
    ],
)
def test_except(execute: Execute, program: list[str], expected: Run) -> None:
    assert execute(conditional.except_, *program) == expected


def test_except_gives_the_program_the_message(execute: Execute) -> None:
    assert execute(conditional.except_, "grep", "body").status == 100
    assert execute(conditional.except_, "grep", "nobody").status == 0


def test_except_of_a_program_that_does_not_exist_lets_the_message_pass(execute: Execute) -> None:
    assert execute(conditional.except_, "/nonexistent/program").status == 0


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["go away"], (100, b"", b"go away\n")),
        (["go away", "true"], (100, b"", b"go away\n")),
        (["go away", "false"], (0, b"", b"")),
        (
            ["go away", "sh", "-c", "exit 111"],
            (111, b"", b"bouncesaying: fatal: temporary child error\n"),
        ),
    ],
)
def test_bouncesaying(execute: Execute, argv: list[str], expected: Run) -> None:
    assert execute(conditional.bouncesaying, *argv) == expected


def test_condredirect_forwards_the_whole_message_and_stops(
    execute: Execute, tmp_path: Path
) -> None:
    run = execute(conditional.condredirect, "new@x", "grep", "body")
    assert run.status == 99
    assert run.errors.startswith(b"condredirect: qp ")
    assert (tmp_path / "q.message").read_bytes() == b"Delivered-To: joe@h\n" + MESSAGE
    assert (tmp_path / "q.envelope").read_bytes() == b"Fsam@x\0Tnew@x\0\0"


def test_condredirect_does_nothing_if_the_program_fails(execute: Execute, tmp_path: Path) -> None:
    assert execute(conditional.condredirect, "new@x", "false") == (0, b"", b"")
    assert not (tmp_path / "q.message").exists()


def test_condredirect_that_cannot_queue_defers(execute: Execute) -> None:
    run = execute(conditional.condredirect, "new@x", "true", env={"Q_STATUS": "53"})
    assert run == (111, b"", b"condredirect: fatal: qq write error or disk full (#4.3.0)\n")


@pytest.mark.parametrize(
    ("main", "argv"),
    [
        (conditional.except_, []),
        (conditional.bouncesaying, []),
        (conditional.condredirect, ["new@x"]),
        (preline.main, []),
        (preline.main, ["-x", "cat"]),
        (preline.main, ["-f"]),
    ],
)
def test_wrong_usage_bounces(execute: Execute, main: Main, argv: list[str]) -> None:
    run = execute(main, *argv)
    assert run.status == 100
    assert b": usage: " in run.errors


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ((), ("UFLINE", "RPLINE", "DTLINE")),
        (("-f",), ("RPLINE", "DTLINE")),
        (("-r",), ("UFLINE", "DTLINE")),
        (("-fd",), ("RPLINE",)),
        (("-f", "-F"), ("UFLINE", "RPLINE", "DTLINE")),
        (("-frd", "--"), ()),
    ],
)
def test_preline_puts_the_lines_in_front(
    execute: Execute, options: tuple[str, ...], names: tuple[str, ...]
) -> None:
    run = execute(preline.main, *options, "cat", "-")
    expected = "".join(LINES[name] for name in names).encode() + MESSAGE
    assert run == (0, expected, b"")


def test_preline_returns_the_commands_status_even_if_it_did_not_read(execute: Execute) -> None:
    assert execute(preline.main, "sh", "-c", "exit 99").status == 99


def test_preline_of_a_command_that_is_not_there_bounces(execute: Execute) -> None:
    run = execute(preline.main, "no-such-command")
    assert run.status == 100
    assert run.errors.startswith(b"no-such-command: not found")


def test_preline_of_a_command_that_crashes_defers(execute: Execute) -> None:
    run = execute(preline.main, "sh", "-c", "kill -9 $$")
    assert run == (111, b"", b"preline: fatal: child crashed\n")


def test_preline_needs_the_environment_of_a_delivery(execute: Execute, capsys) -> None:
    assert preline.main(["preline", "cat"], {"UFLINE": "x"}) == 100
