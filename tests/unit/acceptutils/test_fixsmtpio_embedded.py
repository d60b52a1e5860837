"""A server held in fixsmtpio's own process: to the client there is no difference."""

import itertools
import os
import re
import select
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acceptutils.fixsmtpio import deadline, program
from acceptutils.fixsmtpio.embedded import Embedded
from pyqmail.smtpd import program as smtpd
from ucspi import chain
from ucspi.dialogue import ConnectionEnded, Dialogue, Ending, Talk, TimedOut, Wait

SECONDS = 20.0
SHIPPED = Path(__file__).parents[3] / "templates" / "control" / "fixsmtpio.j2"

# Stands for the queue: what it got comes to the end of one file.
QUEUE = """#!/bin/sh
exec 3<&1
message=$(cat)
envelope=$(tr '\\0' '|' <&3)
[ -z "$envelope" ] || printf '%s\\n%s\\n' "$message" "$envelope" >> "$QUEUED"
"""


class Came(NamedTuple):
    """What a client and the queue saw of a whole session."""

    output: bytes
    status: int
    queued: bytes
    processes: int


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "control").mkdir()
        for control, content in (
            ("me", "mail.example.org"),
            ("rcpthosts", "example.org"),
            ("databytes", "3000"),
            ("fixsmtpio", SHIPPED.read_text()),
        ):
            (directory / "control" / control).write_text(content + "\n")
        queue = directory / "queue"
        queue.write_text(QUEUE)
        queue.chmod(0o755)
        yield directory


def hold(
    home: Path,
    pieces: list[bytes],
    *,
    embedded: bool = True,
    before: Callable[[], None] = lambda: None,
    half_close: bool = True,
) -> Came:
    """Run one session and return what came of it."""
    queued = home / "queued"
    queued.unlink(missing_ok=True)
    ours, theirs = socket.socketpair()
    report_read, report_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _be_fixsmtpio(home, theirs, report_write, embedded, before)
    theirs.close()
    os.close(report_write)
    ours.settimeout(SECONDS)
    output = b""

    def send() -> None:
        try:
            for piece in pieces:
                ours.sendall(piece)
            if half_close:
                ours.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has ended already

    sender = threading.Thread(target=send)
    sender.start()
    try:
        while data := ours.recv(65536):
            output += data
    except ConnectionResetError:
        pass
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
    sender.join()
    ours.close()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    forks = len(os.read(report_read, 1000))
    os.close(report_read)
    return Came(output, status, queued.read_bytes() if queued.exists() else b"", forks)


def _be_fixsmtpio(
    home: Path, client: socket.socket, report: int, embedded: bool, before: Callable[[], None]
) -> None:
    status = 99
    try:
        chain.place({0: client.fileno(), 1: client.fileno()})
        chain._targets = {"qmail-smtpd": "none:none"}
        # What is not in the dialogue's module cannot be known to have one.
        chain._loaded = {"qmail-smtpd": smtpd.main if embedded else piped}
        os.register_at_fork(before=lambda: os.write(report, b"."))
        before()
        env = {
            "QMAIL_HOME": str(home),
            "QMAILQUEUE": str(home / "queue"),
            "QUEUED": str(home / "queued"),
            "TCPREMOTEIP": "192.0.2.1",
            "PATH": "/usr/bin:/bin",
        }
        status = program.main(["fixsmtpio", "qmail-smtpd"], env)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status & 255)


def piped(argv: list[str], env: dict[str, str]) -> int:
    return smtpd.main(argv, env)


def timeless(came: Came) -> Came:
    """Take out what differs from one run to the next: times, process ids."""
    output = re.sub(rb"250 ok \d+ qp \d+", b"250 ok TIME qp PID", came.output)
    queued = re.sub(rb"; \d+ \w+ \d{4} [\d:]+ ", b"; DATE ", came.queued)
    return came._replace(output=output, queued=queued, processes=0)


MESSAGE = b"Subject: x\r\n\r\n.. dots\r\nbody\r\n.\r\n"
BEGIN = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<me@example.org>\r\n"
WHOLE = b"EHLO me\r\n" + BEGIN + b"DATA\r\n" + MESSAGE + b"NOOP\r\nQUIT\r\n"


def test_it_needs_no_process(home: Path) -> None:
    came = hold(home, [b"EHLO me\r\nQUIT\r\n"])
    assert came.processes == 0
    assert came.status == 0
    assert came.output.startswith(b"220 mail.example.org ESMTP\r\n250-mail.example.org\r\n")
    assert came.output.endswith(b"221 mail.example.org\r\n")


def test_a_message_is_queued(home: Path) -> None:
    came = hold(home, [WHOLE])
    assert came.processes == 1  # the queue's
    assert b"Subject: x\n\n. dots\nbody\nFa@b.example|Tme@example.org||\n" in came.queued


# Commands that a server may get in any order, whole messages and broken ones among them.
PARTS = st.sampled_from(
    [
        *(b"EHLO me\r\n", b"HELO me\r\n", b"NOOP\r\n", b"RSET\r\n", b"HELP\r\n", b"VRFY x\r\n"),
        *(b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<me@example.org>\r\n"),
        *(b"RCPT TO:<me@elsewhere.example>\r\n", b"DATA\r\n", MESSAGE, BEGIN + b"DATA\r\n"),
        *(BEGIN + b"DATA\r\n" + MESSAGE, b"x\ny\r\n.\r\n", b"a" * 3100 + b"\r\n.\r\n"),
        *(b"BDAT 5\r\nRSET\r\n", b"QUIT\r\n", b"AUTH PLAIN\r\n", b"\0\r\n", b"x" * 5000),
        *(b"STARTTLS\r\n", b"\r\n", b"NOOP", b"MAIL FROM:<>\r\n"),
    ]
)


@settings(max_examples=20, deadline=None)
@given(parts=st.lists(PARTS, max_size=8), cuts=st.lists(st.integers(0, 6000), max_size=5))
def test_any_dialogue_in_any_pieces_is_the_same_as_with_a_process(
    home: Path, parts: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(parts)
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[a:b] for a, b in itertools.pairwise(places)]
    within = timeless(hold(home, pieces))
    apart = timeless(hold(home, [stream], embedded=False))
    assert within == apart


def test_very_many_pipelined_commands_are_all_answered(home: Path) -> None:
    came = hold(home, [b"RSET\r\n" * 60_000 + b"QUIT\r\n"])
    assert came.output.count(b"250 flushed\r\n") == 60_000
    assert came.output.endswith(b"221 mail.example.org\r\n")


def test_an_end_of_file_in_a_message_queues_nothing(home: Path) -> None:
    came = hold(home, [BEGIN + b"DATA\r\nSubject: cut\r\n"])
    assert came.queued == b""
    assert came.output.endswith(b"354 go ahead\r\n")


def test_the_servers_own_time_limit_is_kept(home: Path) -> None:
    (home / "control" / "timeoutsmtpd").write_text("1\n")
    try:
        came = hold(home, [b"NOO"], half_close=False)
    finally:
        (home / "control" / "timeoutsmtpd").unlink()
    assert came.output.endswith(b"451 timeout (#4.4.2)\r\n")


def test_our_own_time_limit_is_kept(home: Path) -> None:
    def hurry() -> None:
        deadline.COMMAND_SECONDS = 0.3

    begin = time.monotonic()
    came = hold(home, [b"NOO"], half_close=False, before=hurry)
    assert came.output.endswith(b"451 timeout (#4.4.2)\r\n")
    assert time.monotonic() - begin < SECONDS


def test_a_client_that_is_gone_before_its_greeting_ends_the_session_at_once(home: Path) -> None:
    """It would keep a place among the connections for half a minute, for one reset each."""
    ours, theirs = socket.socketpair()
    ours.close()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _be_fixsmtpio(home, theirs, write, True, lambda: None)
    theirs.close()
    handle = os.pidfd_open(pid)
    ended, _, _ = select.select([handle], [], [], deadline.SILENT_END_SECONDS / 2)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for descriptor in (handle, read, write):
        os.close(descriptor)
    assert ended


def test_a_mistake_of_the_servers_is_a_temporary_error(home: Path) -> None:
    def broken(argv: list[str], env: dict[str, str]) -> Dialogue:
        yield Wait(b"220 hi\r\n", time.monotonic() + 10)
        raise RuntimeError("boom")

    def break_it() -> None:
        smtpd.dialogue = broken

    came = hold(home, [b"NOOP\r\n"], before=break_it)
    assert came.status == 111
    assert came.output.endswith(b"421 server closed the connection (#4.3.0)\r\n")


# The parts.


def steps(argv: list[str], env: dict[str, str]) -> Dialogue:
    talk = Talk(10)
    talk.say(b"hello ")
    yield from talk.flush()
    talk.say(b"there\r\n")
    try:
        while line := (yield from talk.line(100)):
            talk.say(b"<" + line + b">")
    except TimedOut:
        return Ending(5, b"late")
    except ConnectionEnded:
        return Ending(6, b"gone")
    return Ending(7, talk.said() + b"bye")


def started() -> Embedded:
    server = Embedded(steps([], {}), {})
    assert server.start() == b"hello there\r\n"
    return server


def test_it_is_fed_and_answers() -> None:
    server = started()
    assert server.feed(b"a\r\nb\r\nc") == b"<a><b>"
    assert server.feed(b"\r\n\r\n") == b"<c>bye"
    assert server.has_ended
    assert server.end() == 7


@pytest.mark.parametrize(
    ("end", "said", "status"), [("time_out", b"late", 5), ("hang_up", b"gone", 6)]
)
def test_it_is_told_that_nothing_comes(end: str, said: bytes, status: int) -> None:
    server = started()
    assert getattr(server, end)() == said
    assert server.end() == status


def test_it_is_late_after_its_deadline() -> None:
    server = started()
    assert not server.is_late(time.monotonic())
    assert server.is_late(time.monotonic() + 11)
    server.hang_up()
    assert not server.is_late(time.monotonic() + 11)


def test_ended_at_once_it_hears_nothing_more() -> None:
    server = started()
    assert server.end(at_once=True) == 0
    assert server.has_ended


def test_the_loop_polls_nothing_while_it_waits(home: Path) -> None:
    """A client that says nothing costs no processor time."""
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _be_fixsmtpio(home, theirs, write, True, lambda: None)
    theirs.close()
    ours.settimeout(SECONDS)
    assert ours.recv(100).startswith(b"220 ")
    time.sleep(0.5)
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    switches_before = _switches(pid)
    select.select([], [], [], 1.0)
    assert _switches(pid) - switches_before <= 2
    assert fields[0] == "S"
    ours.close()
    os.waitpid(pid, 0)
    os.close(read)
    os.close(write)


def _switches(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
