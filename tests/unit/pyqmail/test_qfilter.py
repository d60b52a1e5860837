"""qmail-qfilter and qmail-qfilter-queue in front of a real queue server."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pyqmail.qfilter import mail
from pyqmail.qfilter import program as qfilter
from pyqmail.queue import client, errors

ENVELOPE = b"Fa@b.c\0Tx@y.z\0Tu@v.w\0\0"
MESSAGE = b"Subject: x\n\nbody\n"


@pytest.fixture
def run(server, monkeypatch) -> Callable[..., int]:
    """Return a function: filters -> exit status of qmail-qfilter, run in a child."""

    def start(
        *argv: str,
        main=qfilter.qmail_qfilter,
        message: bytes = MESSAGE,
        envelope: bytes = ENVELOPE,
        **more: str,
    ) -> int:
        reads, writes = zip(os.pipe(), os.pipe(), strict=True)
        feeder = os.fork()
        if not feeder:
            for number in reads:
                os.close(number)
            try:
                os.close(writes[1]) if not envelope else None
                qfilter.write_all(writes[0], message)
                os.close(writes[0])
                if envelope:
                    qfilter.write_all(writes[1], envelope)
            except BrokenPipeError:
                pass
            finally:
                os._exit(0)
        pid = os.fork()
        if not pid:
            status = 99
            try:
                for number in writes:
                    os.close(number)
                os.dup2(reads[0], 0)
                os.dup2(reads[1], 1)
                status = main(["qmail-qfilter", *argv], {**server.env, **more})
            finally:
                os._exit(status)
        for number in (*reads, *writes):
            os.close(number)
        os.waitpid(feeder, 0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return start


@pytest.fixture
def queued(server) -> Callable[[], tuple[bytes, bytes]]:
    """Return a function that returns the one queued message and its envelope."""

    def get() -> tuple[bytes, bytes]:
        [(message, envelope)] = server.queued().values()
        return message.split(b"\n", 1)[1], envelope[envelope.index(b"F") :]

    return get


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_message_goes_through_the_filters_in_order(run, queued) -> None:
    assert run(*sh("echo one; cat"), "--", *sh("echo two; cat")) == 0
    assert queued() == (b"two\none\n" + MESSAGE, ENVELOPE[:-1])


def test_filter_that_writes_nothing_changes_nothing(run, queued) -> None:
    assert run("true", "--", *sh("cat >/dev/null")) == 0
    assert queued() == (MESSAGE, ENVELOPE[:-1])


def test_filter_need_not_read(run, queued) -> None:
    assert run(*sh("echo new"), message=b"x" * 3_000_000) == 0
    assert queued()[0] == b"new\n"


@pytest.mark.parametrize("place", ["/tmp", "/nonexistent"])
def test_large_message_keeps_every_byte(run, queued, monkeypatch, place: str) -> None:
    monkeypatch.setattr(mail, "TEMPORARY", place)
    message = bytes(range(256)) * 12_000
    assert run("cat", "--", "cat", message=message) == 0
    assert queued()[0] == message


def test_large_message_is_kept_where_there_is_room(run, queued, tmp_path: Path) -> None:
    where = sh("readlink /proc/self/fd/0")
    assert run(*where, message=b"x" * 3_000_000, TMPDIR=str(tmp_path)) == 0
    assert queued()[0].startswith(os.fsencode(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "result"),
    [(31, 31), (40, 40), (100, 31), (111, 71), (1, 1), (71, 71), (115, 71), (127, 120)],
)
def test_status_of_a_filter(run, server, status: int, result: int) -> None:
    assert run(*sh(f"cat; exit {status}")) == result
    assert server.queued() == {}


def test_drop(run, server, tmp_path: Path) -> None:
    assert run(*sh("exit 99"), "--", "touch", str(tmp_path / "ran")) == 0
    assert server.queued() == {}
    assert not (tmp_path / "ran").exists()


def test_no_later_filter_runs_after_a_refusal(run, tmp_path: Path) -> None:
    assert run(*sh("exit 31"), "--", "touch", str(tmp_path / "ran")) == 31
    assert not (tmp_path / "ran").exists()


def test_killed_filter(run, server) -> None:
    assert run(*sh("kill -9 $$")) == errors.BUG
    assert server.queued() == {}


def test_filter_that_hangs_is_killed(run, monkeypatch) -> None:
    monkeypatch.setattr(qfilter, "FILTER_SECONDS", 0.05)
    assert run("sleep", "600") == errors.TIMEOUT


def test_missing_filter(run, server) -> None:
    assert run("/nonexistent/filter") == errors.NOT_EXECUTED
    assert server.queued() == {}


@pytest.mark.parametrize("argv", [(), ("--",), ("cat", "--")])
def test_misuse(run, argv: tuple[str, ...]) -> None:
    assert run(*argv) == errors.BUG


def test_environment(run, queued) -> None:
    script = 'echo "$QMAILUSER|$QMAILHOST|$QMAILRCPTS|$QMAILQUEUE|$OTHER"'
    assert run(*sh(script), OTHER="kept", QMAILQUEUE="hidden") == 0
    assert queued()[0] == b"a|b.c|x@y.z\nu@v.w\n||kept\n"


def test_environment_has_sizes_and_the_parents_number(run, queued) -> None:
    script = 'echo "$MSGSIZE|$ENVSIZE|$NUMRCPTS|$QMAILPPID"'
    assert run(*sh("echo one"), "--", *sh(f"{script} >/dev/null; cat; {script}")) == 0
    assert queued()[0] == b"one\n4|%d|2|%d\n" % (len(ENVELOPE), os.getpid())


@pytest.mark.parametrize("how", ["descriptor", "variable"])
def test_another_program_takes_the_place_of_qmail_queue(run, server, tmp_path, how: str) -> None:
    program = tmp_path / "queue"
    program.write_text(f"#!/bin/sh\ncat >{tmp_path}/message; cat <&1 >{tmp_path}/envelope; exit 32")
    program.chmod(0o755)
    more = {"QQF_QMAILQUEUE": str(program)} if how == "variable" else {}
    script = f"printf '{program}\\0' >&5; cat" if how == "descriptor" else "cat"
    assert run(*sh(script), **more) == 32
    assert (tmp_path / "message").read_bytes() == MESSAGE
    assert (tmp_path / "envelope").read_bytes() == ENVELOPE
    assert server.queued() == {}


def test_very_many_recipients_do_not_stop_a_filter(run, queued) -> None:
    envelope = b"Fa@b\0" + b"Tsomebody@example.org\0" * 9000 + b"\0"
    assert run("cat", envelope=envelope) == 0
    assert queued()[1] == envelope[:-1]


def test_envelope_is_on_3_and_a_new_one_on_4(run, queued) -> None:
    assert run(*sh("cat <&3 | sed s/x@y.z/n@e.w/ >&4; cat")) == 0
    assert queued() == (MESSAGE, ENVELOPE[:-1].replace(b"x@y.z", b"n@e.w"))


def test_filter_that_breaks_the_envelope(run, server) -> None:
    assert run(*sh("echo nonsense >&4; cat")) == errors.BAD_ENVELOPE
    assert server.queued() == {}


@pytest.mark.parametrize(
    ("envelope", "status"),
    [(b"", 54), (b"Fa@b\0Tx@y\0", 54), (b"nonsense\0", 91), (b"F" + b"x" * 1100 + b"\0", 11)],
)
def test_bad_envelope_runs_no_filter(run, tmp_path, envelope: bytes, status: int) -> None:
    assert run("touch", str(tmp_path / "ran"), envelope=envelope) == status
    assert not (tmp_path / "ran").exists()


def test_program_of_ours_is_a_filter_without_being_executed(run, queued) -> None:
    tls = {"SSL_CIPHER": "AES", "SSL_PROTOCOL": "TLSv1.3", "PATH": ""}
    assert run("qmail-qfilter-addtlsheader", **tls) == 0
    message = queued()[0]
    assert message.startswith(b"Received: (ucspitls")
    assert message.endswith(MESSAGE)


def test_filters_from_a_file(run, queued, server) -> None:
    (server.home / "control/filters").write_text(
        "# comment\n\nsed  s/x/y/ \nqmail-qfilter-addtlsheader\n"
    )
    more = {"QMAILQUEUEFILTERS": "control/filters"}
    assert run(main=qfilter.qmail_qfilter_queue, **more) == 0
    assert queued()[0] == MESSAGE.replace(b"x", b"y")


def test_empty_file_means_no_filter(run, queued, server) -> None:
    (server.home / "control/filters").write_text("\n")
    more = {"QMAILQUEUEFILTERS": "control/filters"}
    assert run(main=qfilter.qmail_qfilter_queue, **more) == 0
    assert queued() == (MESSAGE, ENVELOPE[:-1])


@pytest.mark.parametrize("more", [{}, {"QMAILQUEUEFILTERS": "control/missing"}])
def test_no_file_is_a_temporary_error(run, server, more: dict[str, str]) -> None:
    assert run(main=qfilter.qmail_qfilter_queue, **more) == errors.NO_CONTROL
    assert server.queued() == {}


@pytest.mark.parametrize("descriptor", [4, 6])
def test_words_of_a_filter_reach_the_one_who_queues(server, tmp_path, descriptor: int) -> None:
    (server.home / "control/filters").write_text(f"{tmp_path}/filter\n")
    script = tmp_path / "filter"
    script.write_text(f"#!/bin/sh\nprintf 'Dno, sorry' >&{descriptor}\nexit 82\n")
    script.chmod(0o755)
    injection = client.open_queue(
        {
            **server.env,
            "QMAILQUEUE": "qmail-qfilter-queue",
            "QMAILQUEUEFILTERS": "control/filters",
        }
    )
    injection.write(MESSAGE)
    result = injection.finish(b"a@b", [b"x@y"])
    assert errors.reply_for(result) == b"554 no, sorry"


def test_client_that_thinks_better_of_it_runs_no_filter(server, tmp_path: Path) -> None:
    (server.home / "control/filters").write_text(f"touch {tmp_path}/ran\n")
    injection = client.open_queue(
        {
            **server.env,
            "QMAILQUEUE": "qmail-qfilter-queue",
            "QMAILQUEUEFILTERS": "control/filters",
        }
    )
    injection.write(MESSAGE)
    injection.abort()
    assert not (tmp_path / "ran").exists()
