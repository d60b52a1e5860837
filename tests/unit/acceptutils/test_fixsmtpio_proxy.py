"""The shipped program over real descriptors, with servers that behave and that do not."""

import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from acceptutils import ucspitls
from acceptutils.fixsmtpio import deadline, program, server
from acceptutils.fixsmtpio.proxy import Proxy
from ucspi import chain

SECONDS = 20.0  # before a test gives up

SHIPPED = Path(__file__).parents[3] / "templates" / "control" / "fixsmtpio.j2"


# Servers. Each is a program of its own: descriptors 0 and 1, arguments, an exit status.


def smtp(argv: list[str], env: dict[str, str]) -> int:
    """Answer line by line; write what was read to the file argv[1], when there is one."""
    record = open(argv[1], "ab", buffering=0) if len(argv) > 1 else None
    source = os.fdopen(0, "rb")
    name = b"tls" if "FIXSMTPIOTLS" in env else b"plain"
    os.write(1, b"220 server " + name + b"\r\n")
    in_message = False
    for line in iter(source.readline, b""):
        if record:
            record.write(line)
        verb = line.split()[0].upper() if line.split() else b""
        if in_message:
            if line == b".\r\n":
                in_message = False
                os.write(1, b"250 queued\r\n")
        elif verb == b"EHLO":
            os.write(1, b"250-server\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
        elif verb == b"DATA":
            in_message = True
            os.write(1, b"354 go\r\n")
        elif verb == b"QUIT":
            os.write(1, b"221 server\r\n")
            return 0
        elif verb == b"CRASH":
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.kill(os.getpid(), signal.SIGKILL)
        elif verb == b"EXIT":
            return int(line.split()[1])
        elif verb == b"ENV":
            os.write(1, b"250 " + env.get(line.split()[1].decode(), "unset").encode() + b"\r\n")
        else:
            os.write(1, b"250 ok\r\n")
    if record:
        record.write(b"<end of file>")
    return 9


def fast(argv: list[str], env: dict[str, str]) -> int:
    """Answer every line with as few system calls as possible."""
    os.write(1, b"220 hi\r\n")
    while data := os.read(0, 65536):
        view = b"250 ok\r\n" * data.count(b"\n")
        while view:
            view = view[os.write(1, view) :]
    return 0


def talks_before_it_reads(argv: list[str], env: dict[str, str]) -> int:
    """Write far more than a pipe holds for the first line, before reading the rest."""
    os.write(1, b"220 hi\r\n")
    os.read(0, 1)
    text = b"".join(b"250-%05d%s\r\n" % (number, b"x" * 40) for number in range(1000))
    text = (text + b"250 done\r\n") * 20
    while text:
        text = text[os.write(1, text) :]
    lines = 0
    while data := os.read(0, 65536):
        lines += data.count(b"\n")
    return min(lines, 250)


def silent(argv: list[str], env: dict[str, str]) -> int:
    """Read and say nothing."""
    os.write(1, b"220 hi\r\n")
    while os.read(0, 65536):
        pass
    return 4


def hung(argv: list[str], env: dict[str, str]) -> int:
    """Neither read nor end, whatever happens."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(1, b"220 hi\r\n")
    while True:
        signal.pause()


def says(argv: list[str], env: dict[str, str]) -> int:
    """Write argv[1] and end with status argv[2]."""
    os.write(1, argv[1].encode("latin-1"))
    return int(argv[2])


SERVERS = {function.__name__: function for function in (smtp, fast, silent, hung, says)}
SERVERS["talks-before-it-reads"] = talks_before_it_reads


class End:
    """Our end of a pipe or of a socket."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor

    def ready(self, mask: int, seconds: float = SECONDS) -> bool:
        poll = select.poll()
        poll.register(self.descriptor, mask)
        return bool(poll.poll(seconds * 1000))

    def read(self) -> bytes:
        """Return what comes next, b"" at the end of file or after a reset."""
        assert self.ready(select.POLLIN), "nothing comes"
        try:
            return os.read(self.descriptor, 65536)
        except ConnectionResetError:
            return b""

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            assert self.ready(select.POLLOUT), "nothing is taken"
            view = view[self.write_some(view) :]

    def write_some(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self.descriptor, data)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Running:
    """fixsmtpio in a process of its own, and the client's end of its descriptors."""

    def __init__(self, pid: int, reading: End, writing: End, log: Path) -> None:
        self.pid = pid
        self.reading = reading
        self.writing = writing
        self._log = log
        self._read = b""
        self._status: int | None = None

    def send(self, data: bytes) -> None:
        self.writing.write(data)

    def until(self, text: bytes) -> bytes:
        """Read up to and with text, and return what came."""
        while text not in self._read:
            data = self.reading.read()
            assert data, f"end of file before {text!r}; read {self._read!r}; {self.log()}"
            self._read += data
        end = self._read.index(text) + len(text)
        found, self._read = self._read[:end], self._read[end:]
        return found

    def line(self) -> bytes:
        return self.until(b"\r\n")

    def rest(self) -> bytes:
        """Read to the end of file."""
        while data := self.reading.read():
            self._read += data
        found, self._read = self._read, b""
        return found

    def half_close(self) -> None:
        """Send nothing more, and go on reading."""
        if self.writing is self.reading:
            with socket.socket(fileno=os.dup(self.writing.descriptor)) as same:
                same.shutdown(socket.SHUT_WR)
        else:
            self.writing.close()

    def hang_up(self) -> None:
        self.reading.close()
        self.writing.close()

    def exchange(self, data: bytes) -> bytes:
        """Send data while reading, half-close, and return all that came."""
        came = [self._read]
        view = memoryview(data)
        while view:
            poll = select.poll()
            poll.register(self.writing.descriptor, select.POLLOUT)
            mask = select.POLLIN | (select.POLLOUT if self.writing is self.reading else 0)
            poll.register(self.reading.descriptor, mask)
            assert poll.poll(SECONDS * 1000), "deadlock"
            view = view[self.writing.write_some(view) :]
            if self.reading.ready(select.POLLIN, 0):
                came.append(self.reading.read())
        self.half_close()
        return b"".join(came) + self.rest()

    def status(self) -> int:
        """Return the exit status, negative for a signal."""
        if self._status is None:
            descriptor = os.pidfd_open(self.pid)
            ended = End(descriptor).ready(select.POLLIN)
            os.close(descriptor)
            assert ended, f"fixsmtpio does not end; {self.log()}"
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def log(self) -> str:
        return self._log.read_text()

    def end(self) -> None:
        self.hang_up()
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


Start = Callable[..., Running]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "me").write_text("mail.example.org\n")
    return tmp_path


@pytest.fixture(params=["socket", "pipes"])
def start(home: Path, request: pytest.FixtureRequest) -> Iterator[Start]:
    """Start fixsmtpio with rules and a server, over one socket or over two pipe-like ends."""
    running: list[Running] = []

    def run(
        *argv: str,
        rules: str | None = "",
        before: Callable[[], None] | None = None,
        timeout: int | None = None,
        **env: str,
    ) -> Running:
        if rules is not None:
            (home / "control" / "fixsmtpio").write_text(rules)
        if timeout is not None:
            (home / "control" / "timeoutsmtpd").write_text(f"{timeout}\n")
        if request.param == "socket":
            ours, theirs = (end.detach() for end in socket.socketpair())
            reading = writing = End(ours)
            client = (theirs, theirs)
        else:
            (read_out, write_out), (read_in, write_in) = os.pipe(), os.pipe()
            reading, writing = End(read_out), End(write_in)
            client = (read_in, write_out)
        log = home / f"log{len(running)}"
        pid = os.fork()
        if pid == 0:
            _run(list(argv), {**env, "QMAIL_HOME": str(home)}, client, log, before)
        for descriptor in set(client):
            os.close(descriptor)
        running.append(Running(pid, reading, writing, log))
        return running[-1]

    yield run
    for one in running:
        one.end()


def _run(
    argv: list[str],
    env: dict[str, str],
    client: tuple[int, int],
    log: Path,
    before: Callable[[], None] | None,
) -> None:
    """Be fixsmtpio: does not return."""
    status = 99
    try:
        stderr = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        chain.place({0: client[0], 1: client[1], 2: stderr})
        chain.close_all_but({0, 1, 2, *Engine.lent})
        chain._targets = dict.fromkeys(SERVERS, "none:none")
        chain._loaded.update(SERVERS)
        if before:
            before()
        status = program.main(["fixsmtpio", *argv], env)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


# A session


def test_session_passes_and_exits_as_the_server_does(start: Start) -> None:
    client = start("smtp")
    assert client.line() == b"220 server plain\r\n"
    client.send(b"EHLO me\r\n")
    assert client.until(b"250 8BITMIME\r\n") == b"250-server\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
    client.send(b"EXIT 7\r\n")
    assert client.rest() == b"421 server closed the connection (#4.3.0)\r\n"
    assert client.status() == 7


def test_shipped_rules(start: Start) -> None:
    client = start("smtp", rules=SHIPPED.read_text())
    assert client.line() == b"220 mail.example.org ESMTP\r\n"
    client.send(b"EHLO me\r\n")
    assert client.line() == b"250-mail.example.org\r\n"
    assert client.until(b"250 8BITMIME\r\n") == b"250-PIPELINING\r\n250 8BITMIME\r\n"
    client.send(b"QUIT\r\n")
    assert client.rest() == b"221 mail.example.org\r\n"
    assert client.status() == 0


def test_shipped_rules_for_an_authenticated_client_that_hangs_up(start: Start) -> None:
    client = start("smtp", rules=SHIPPED.read_text(), AUTHUP_USER="alice")
    assert client.line().startswith(b"235 ")
    client.send(b"AUTH PLAIN x\r\n")
    assert client.line() == b"502 unimplemented (#5.5.1)\r\n"
    client.hang_up()
    assert client.status() == 0


def test_foreign_server_is_executed(start: Start, home: Path) -> None:
    script = home / "server"
    script.write_text(
        "#!/bin/sh\nprintf '220 sh\\r\\n'; read line; printf '221 bye\\r\\n'; exit 3\n"
    )
    script.chmod(0o755)
    client = start(str(script))
    assert client.line() == b"220 sh\r\n"
    client.send(b"QUIT\r\n")
    assert client.rest() == b"221 bye\r\n"
    assert client.status() == 3


def test_program_that_cannot_be_executed(start: Start) -> None:
    client = start("no-such-program")
    assert client.rest() == b"421 server closed the connection (#4.3.0)\r\n"
    assert client.status() == 127
    assert "no-such-program: not found" in client.log()


def test_nofixsmtpio_becomes_the_server(start: Start) -> None:
    client = start("smtp", rules="this does not parse", NOFIXSMTPIO="")
    assert client.line() == b"220 server plain\r\n"
    client.half_close()
    assert client.status() == 9


def test_without_a_rule_file_the_server_is_left_as_it_is(start: Start) -> None:
    client = start("smtp", rules=None)
    assert client.line() == b"220 server plain\r\n"


def test_without_a_program_it_is_misuse(start: Start) -> None:
    assert start().status() == 100


def test_rules_that_do_not_parse(start: Start) -> None:
    client = start("smtp", rules="# fine\n:ehlo::*:300:\n")
    assert client.rest() == b"421 unable to read controls (#4.3.0)\r\n"
    assert client.status() == 18
    assert "fixsmtpio: unable to parse control/fixsmtpio: line 2, column 10" in client.log()


def test_rules_that_do_not_parse_are_left_to_authup(start: Start) -> None:
    client = start("smtp", rules="x", AUTHUP_USER="alice")
    assert client.rest() == b""
    assert client.status() == 18


def test_fixup_without_a_host_name(start: Start, home: Path) -> None:
    (home / "control" / "me").unlink()
    client = start("smtp", rules=":ehlo::*::&fixsmtpio_fixup\n")
    assert client.status() == 18
    assert "neither exists" in client.log()


def test_debug_log(start: Start) -> None:
    client = start("smtp", rules=":noop:RSET :*::250 fine", FIXSMTPIODEBUG="", TCPREMOTEIP="::1")
    client.line()
    client.send(b"NOOP x\r\n")
    client.line()
    client.hang_up()
    client.status()
    assert f"fixsmtpio {client.pid} smtp " in client.log()
    for text in ("1: NOOP x ", "2: RSET NOOP x ", "3: 250 ok ", "4: 250 fine "):
        assert f" {text}ip=::1" in client.log()


# What is on the way


def test_dot_split_at_every_byte_and_commands_behind_it(start: Start, home: Path) -> None:
    record = home / "record"
    client = start("smtp", str(record))
    client.line()
    client.send(b"DATA\r\n")
    client.line()
    for byte in b"hello\r\n.\r\nRSET\r\nQUIT\r\n":
        client.send(bytes([byte]))
    assert client.rest() == b"250 queued\r\n250 ok\r\n221 server\r\n"
    assert record.read_bytes() == b"DATA\r\nhello\r\n.\r\nRSET\r\nQUIT\r\n"
    assert client.status() == 0


def test_bare_lf_is_refused_and_the_server_sees_no_end_of_message(start: Start, home: Path) -> None:
    record = home / "record"
    client = start("smtp", str(record))
    client.line()
    client.send(b"DATA\r\n")
    client.line()
    client.send(b"hello\n.\nMAIL FROM:<smuggled@example.org>\r\n.\r\n")
    assert client.rest() == b"451 See http://pobox.com/~djb/docs/smtplf.html.\r\n"
    client.status()
    assert record.read_bytes() == b"DATA\r\nhello<end of file>"
    assert "bare CR or LF in DATA" in client.log()


def test_end_of_file_in_data_queues_nothing(start: Start, home: Path) -> None:
    record = home / "record"
    client = start("smtp", str(record))
    client.line()
    client.send(b"DATA\r\n")
    client.line()
    client.send(b"hello\r\n.")
    client.half_close()
    assert client.rest() == b""
    assert client.status() == 9
    assert record.read_bytes() == b"DATA\r\nhello<end of file>"


def test_half_closed_client_gets_every_reply(start: Start) -> None:
    client = start("smtp", rules=":clienteof::*:0:")
    client.send(b"EHLO me\r\nNOOP\r\nDATA\r\nhello\r\n.\r\nRSET\r\n")
    client.half_close()
    shown = client.rest()
    assert shown.startswith(b"220 ")
    assert shown.endswith(b"8BITMIME\r\n250 ok\r\n354 go\r\n250 queued\r\n250 ok\r\n")
    assert client.status() == 0


def test_early_talker_is_answered_in_order(start: Start) -> None:
    client = start("smtp")
    client.send(b"NOOP\r\nQUIT\r\n")
    assert client.rest() == b"220 server plain\r\n250 ok\r\n221 server\r\n"


def test_sixty_thousand_pipelined_commands_are_all_answered(start: Start) -> None:
    client = start("fast")
    shown = client.exchange(b"RSET\r\n" * 60000)
    assert shown == b"220 hi\r\n" + b"250 ok\r\n" * 60000
    assert client.status() == 0


def test_client_that_does_not_read_is_slowed_down_and_loses_nothing(start: Start) -> None:
    client = start("fast")
    line = b"NOOP " + b"x" * 994 + b"\r\n"
    stream = line * 60_000
    sent = 0
    # Until nothing more is taken for a while; without a bound all of it would be.
    while sent < len(stream) and client.writing.ready(select.POLLOUT, 0.3):
        sent += client.writing.write_some(stream[sent : sent + 65536])
    assert sent < len(stream)
    whole = -(-sent // len(line))
    shown = client.exchange(stream[sent : whole * len(line)])
    assert shown == b"220 hi\r\n" + b"250 ok\r\n" * whole


def test_server_that_writes_before_it_reads_does_not_deadlock(start: Start) -> None:
    client = start("talks-before-it-reads")
    shown = client.exchange(b"NOOP\r\n" * 20 + b"NOOP " + b"x" * 3000 + b"\r\n")
    assert shown.count(b"250 done\r\n") == 20
    assert client.status() == 21


def test_big_message_passes_unchanged(start: Start, home: Path) -> None:
    record = home / "record"
    client = start("smtp", str(record))
    message = b"".join(b"%06d%s\r\n" % (number, b"x" * 70) for number in range(30000)) + b".\r\n"
    shown = client.exchange(b"DATA\r\n" + message + b"QUIT\r\n")
    assert shown == b"220 server plain\r\n354 go\r\n250 queued\r\n221 server\r\n"
    assert record.read_bytes() == b"DATA\r\n" + message + b"QUIT\r\n"


def test_partial_line_costs_nothing_while_it_waits(start: Start, home: Path) -> None:
    counter = home / "turns"

    def count() -> None:
        turn = Proxy._wait

        def counted(self: Proxy) -> None:
            with counter.open("ab") as file:
                file.write(b".")
            turn(self)

        Proxy._wait = counted  # type: ignore[method-assign]

    client = start("smtp", before=count)
    client.line()
    client.send(b"NO")
    time.sleep(0.2)  # in which a loop that spins would turn thousands of times
    client.send(b"OP\r\n")
    client.line()
    assert counter.stat().st_size < 20


@pytest.mark.parametrize("flood", [b"x" * 4098, b"NOOP " + b"x" * 5000 + b"\r\n", b"NO\0OP\r\n"])
def test_line_too_long_or_with_nul_ends_the_session(start: Start, flood: bytes) -> None:
    client = start("smtp")
    client.line()
    client.send(flood)
    assert client.rest() == b"500 line too long (#5.5.2)\r\n"
    assert client.status() == 9


def test_flood_without_newline_ends_early(start: Start) -> None:
    client = start("smtp")
    client.line()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        for _ in range(1000):
            client.send(b"x" * 65536)
    assert client.status() == 9


# Ends


def test_server_that_crashes_makes_us_end_the_same_way(start: Start) -> None:
    client = start("smtp")
    client.line()
    client.send(b"CRASH\r\n")
    assert client.rest() == b"421 server closed the connection (#4.3.0)\r\n"
    assert client.status() == -signal.SIGKILL
    assert "smtp crashed: signal 9" in client.log()


def test_crash_of_an_authenticated_server_is_left_to_authup(start: Start) -> None:
    client = start("smtp", AUTHUP_USER="alice")
    client.line()
    client.send(b"CRASH\r\n")
    assert client.rest() == b""
    assert client.status() == -signal.SIGKILL


def test_servers_timeout_is_told_by_our_status(start: Start) -> None:
    client = start(
        "says",
        "220 hi\r\n451 timeout (#4.4.2)\r\n",
        "1",
        rules=SHIPPED.read_text(),
        AUTHUP_USER="a",
    )
    assert client.rest().startswith(b"235 ")
    assert client.status() == 16


def test_server_without_a_timeout_gets_ours(start: Start) -> None:
    def hurry() -> None:
        deadline.GRACE = 0.0

    client = start("silent", rules=":timeout::*:16:", timeout=1, before=hurry)
    assert client.rest() == b"220 hi\r\n"
    assert client.status() == 16
    assert f"fixsmtpio {client.pid} timed out" in client.log()


def test_command_has_an_absolute_deadline_however_its_bytes_drip(start: Start) -> None:
    def hurry() -> None:
        deadline.COMMAND_SECONDS = 0.3

    client = start("smtp", before=hurry)
    client.line()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        for _ in range(1000):
            client.send(b"x")
            time.sleep(0.02)  # the attack itself
    assert client.rest() == b"451 timeout (#4.4.2)\r\n"


def test_hung_server_is_ended_by_force(start: Start) -> None:
    def hurry() -> None:
        server.END_SECONDS = server.TERM_SECONDS = 0.1

    client = start("hung", rules=":clienteof::*:0:", before=hurry)
    client.line()
    client.hang_up()
    assert client.status() == 0


def test_hung_server_has_no_status_of_its_own(start: Start) -> None:
    def hurry() -> None:
        server.END_SECONDS = server.TERM_SECONDS = 0.1
        deadline.SILENT_END_SECONDS = 0.1

    client = start("hung", before=hurry)
    client.line()
    client.hang_up()
    assert client.status() == 100


def test_malformed_reply_of_a_server_does_not_reach_the_client(start: Start) -> None:
    client = start("says", "220 hi\r\nsh: command not found\r\n", "1")
    assert client.rest() == b"220 hi\r\n421 malformed reply from the server (#4.3.0)\r\n"
    assert "malformed reply from the server" in client.log()


def test_endless_reply_of_a_server_is_cut_off(start: Start) -> None:
    client = start("says", "220 " + "x" * 1_000_000, "1")
    assert client.rest() == b"421 malformed reply from the server (#4.3.0)\r\n"


def test_reply_without_its_line_end_is_shown(start: Start) -> None:
    client = start("says", "220-hi\r\n220 there", "5")
    assert client.rest() == b"220-hi\r\n220 there\r\n"
    assert client.status() == 5


# STARTTLS


class Engine:
    """The other side of UCSPI-TLS: what the client says inside TLS goes through `client`."""

    lent: ClassVar[tuple[int, ...]] = ()  # what a new process gets beside its client

    def __init__(self) -> None:
        self.control, self._control = socket.socketpair()
        self.client, self._plain = socket.socketpair()
        for end in (self.control, self.client):
            end.settimeout(SECONDS)
        ends = (self._control, self._plain, self._plain)
        Engine.lent = tuple(os.dup(end.fileno()) for end in ends)

    def lend(self) -> None:
        """In the new process: promise the descriptors."""
        ucspitls.provider = lambda: ucspitls.Descriptors(*self.lent)

    def close_theirs(self) -> None:
        for number in self.lent:
            os.close(number)
        Engine.lent = ()
        self._control.close()
        self._plain.close()

    def shake_hands(self) -> None:
        self.close_theirs()
        assert self.control.recv(1) == b"Y"
        self.control.sendall(b"SSL_PROTOCOL=TLSv1.3\0SSL_CIPHER=X\0\0")

    def ask(self, text: bytes, until: bytes) -> bytes:
        self.client.sendall(text)
        read = b""
        while not read.endswith(until):
            data = self.client.recv(65536)
            assert data, read
            read += data
        return read


WILD_RULES = {
    "shipped": SHIPPED.read_text(),
    "without FIXSMTPIOTLS": ":greeting::2*::&fixsmtpio_fixup\n:ehlo::2*::&fixsmtpio_fixup\n",
    "October 2018": (
        ":greeting::2*::&fixsmtpio_fixup\n:ehlo::2*::&fixsmtpio_fixup\n"
        "AUTHUP_USER:ehlo::250?STARTTLS*::\n"
        "AUTHUP_USER:starttls:NOOP :*::502 unimplemented (#5.5.1)\n"
    ),
    "empty": "",
}


@pytest.mark.parametrize("rules", WILD_RULES.values(), ids=WILD_RULES)
def test_starttls_restarts_the_server_and_swallows_its_greeting(start: Start, rules: str) -> None:
    engine = Engine()
    client = start("smtp", rules=rules, before=engine.lend, UCSPITLS="")
    client.line()
    client.send(b"EHLO me\r\n")
    assert (b"STARTTLS" in client.until(b"250 8BITMIME\r\n")) == bool(rules)
    client.send(b"STARTTLS\r\nMAIL FROM:<injected@example.org>\r\n")
    assert client.line() == b"220 Ready to start TLS (#5.7.0)\r\n"
    engine.shake_hands()
    reply = engine.ask(b"EHLO me\r\n", b"250 8BITMIME\r\n")
    assert reply.startswith(b"250-")
    assert reply.count(b"\r\n") == 3
    assert b"STARTTLS" not in reply
    assert engine.ask(b"ENV SSL_CIPHER\r\n", b"\r\n") == b"250 X\r\n"
    assert engine.ask(b"ENV FIXSMTPIOTLS\r\n", b"\r\n") == b"250 1\r\n"
    assert engine.ask(b"ENV UCSPITLS\r\n", b"\r\n") == b"250 unset\r\n"
    assert engine.ask(b"STARTTLS\r\n", b"\r\n") == b"502 unimplemented (#5.5.1)\r\n"
    engine.ask(b"QUIT\r\n", b"\r\n")
    assert client.status() == 0
    assert "negotiated TLS" in client.log()


def test_failed_handshake_ends_the_session(start: Start) -> None:
    engine = Engine()
    client = start("smtp", before=engine.lend, UCSPITLS="!")
    client.line()
    client.send(b"NOOP\r\nMAIL FROM:<>\r\nSTARTTLS\r\n")
    assert client.line() == b"250 ok\r\n"
    assert client.line() == b"530 Must start TLS first (#5.7.0)\r\n"
    assert client.line() == b"220 Ready to start TLS (#5.7.0)\r\n"
    engine.close_theirs()
    assert engine.control.recv(1) == b"Y"
    engine.control.close()
    assert client.status() == 1
    assert "unable to start TLS" in client.log()


def test_foreign_server_has_no_descriptor_but_its_own(start: Start, home: Path) -> None:
    script = home / "server"
    script.write_text(
        "#!/bin/sh\nopen=\nfor n in 3 4 5 6 7 8 9; do\n"
        "[ -e /proc/$$/fd/$n ] && open=$open,$n\ndone\nprintf '220 %s\\r\\n' \"$open\"\n"
    )
    script.chmod(0o755)
    assert start(str(script)).line() == b"220 \r\n"


def registered_sees_descriptors(argv: list[str], env: dict[str, str]) -> int:
    opened = [number for number in range(3, 64) if _is_open(number)]
    os.write(1, b"220 %d\r\n" % len(opened))
    return 0


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


SERVERS["sees"] = registered_sees_descriptors


def test_server_in_process_has_no_descriptor_but_its_own(start: Start) -> None:
    engine = Engine()
    client = start("sees", before=engine.lend, UCSPITLS="")
    engine.close_theirs()
    assert client.line() == b"220 0\r\n"


# Control files, kept between forks


def test_changed_control_files_are_noticed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from acceptutils.fixsmtpio import settings

    env = {"QMAIL_HOME": str(home)}
    monkeypatch.chdir(home)
    (home / "control" / "fixsmtpio").write_text(":noop::*::1\n")
    first = settings.load(env)
    assert settings.load(env) is first
    (home / "control" / "fixsmtpio").write_text(":noop::*::1\n:rset::*::2\n")
    assert len(settings.load(env).rules.rules) == 2
    (home / "control" / "smtpgreeting").write_text("other.example.org\n")
    assert settings.load(env).greeting == b"other.example.org"


def test_preload_reads_the_files_and_stays_where_it_is(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from acceptutils.fixsmtpio import settings

    calls: list[Any] = []
    monkeypatch.setattr(settings, "_kept", None)
    here = os.getcwd()
    (home / "control" / "fixsmtpio").write_text("wrong")
    program.preload(["fixsmtpio"], {"QMAIL_HOME": str(home)})
    assert settings._kept is None
    (home / "control" / "fixsmtpio").write_text(":noop::*::1\n")
    program.preload(["fixsmtpio"], {"QMAIL_HOME": str(home)})
    assert os.getcwd() == here
    monkeypatch.chdir(home)
    monkeypatch.setattr(settings, "_read", lambda: calls.append(1))
    settings.load({"QMAIL_HOME": str(home)})
    assert not calls
