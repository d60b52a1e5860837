"""rblsmtpd as a process, between a client and a program."""

import os
import re
import socket
import time
import traceback
from pathlib import Path

import dns.rcode
import pytest
from harness.dnsserver import Dns

from acceptutils.rblsmtpd import lookup, program
from ucspi import chain

ADDRESS = "192.0.2.1"
NAME = "1.2.0.192.bl.example"
ALLOWED = "1.2.0.192.allow.example"
PATIENCE = 20.0


class Client:
    """The client of an rblsmtpd that runs with these arguments and variables."""

    def __init__(self, log: Path, *arguments: str, **env: str) -> None:
        self._log = log
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(PATIENCE)
        self._pid = os.fork()
        if self._pid == 0:
            status = 99
            try:
                for descriptor in (0, 1):
                    os.dup2(theirs.fileno(), descriptor)
                output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(output, 2)
                chain.close_all_but({0, 1, 2})
                full = {"PATH": "/usr/bin:/bin", "DNSCACHEIP": "127.0.0.1", **env}
                served = ("sh", "-c", "echo let in; cat >/dev/null")
                status = program.main(["rblsmtpd", *arguments, *served], full)
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(status)
        theirs.close()

    def say(self, data: bytes) -> None:
        self.socket.sendall(data)

    def end(self) -> tuple[int, bytes, str]:
        """Return the exit status, everything that was said, and the log."""
        said = b""
        while chunk := self.socket.recv(65536):
            said += chunk
        self.socket.close()
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return status, said, self._log.read_text()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def outcome(log: Path, *arguments: str, **env: str) -> bytes:
    """Return what a client hears that asks for a recipient, or the program's words."""
    client = Client(log, *arguments, **env)
    client.say(b"RCPT TO:<x>\r\nQUIT\r\n")
    client.socket.shutdown(socket.SHUT_WR)
    status, said, _ = client.end()
    assert status == 0
    return said.removeprefix(b"220 rblsmtpd.local\r\n").removesuffix(b"221 rblsmtpd.local\r\n")


IN = b"let in\n"


def test_the_variable_decides_before_any_list(log: Path, dns_server: Dns) -> None:
    dns_server.list_address(NAME)
    arguments = ("-b", "-r", "bl.example")
    said = outcome(log, *arguments, TCPREMOTEIP=ADDRESS, RBLSMTPD="no %IP%")
    assert said == b"451 no %IP%\r\n"
    said = outcome(log, *arguments, TCPREMOTEIP=ADDRESS, RBLSMTPD="-never")
    assert said == b"553 never\r\n"
    assert outcome(log, *arguments, TCPREMOTEIP=ADDRESS, RBLSMTPD="") == IN
    assert dns_server.asked == []


@pytest.mark.parametrize(("flag", "code"), [("-b", b"553"), ("-B", b"451"), ("-C", b"451")])
def test_who_is_listed_is_refused_and_logged(
    flag: str, code: bytes, log: Path, dns_server: Dns
) -> None:
    dns_server.list_address(NAME, text="see x?%IP%")
    said = outcome(log, flag, "-r", "bl.example", TCPREMOTEIP=ADDRESS, SESSION_ID="s1")
    assert said == code + b" see x?192.0.2.1\r\n"
    line = f"rblsmtpd: {ADDRESS} pid \\d+: {code.decode()} see x\\?192.0.2.1"
    assert re.fullmatch(f"{line} ip={ADDRESS} session=s1\n", log.read_text())


def test_who_is_not_listed_is_let_in_without_a_word(log: Path, dns_server: Dns) -> None:
    assert outcome(log, "-r", "bl.example", TCPREMOTEIP=ADDRESS) == IN
    assert log.read_text() == ""


def test_an_ipv6_client_is_looked_up(log: Path, dns_server: Dns) -> None:
    nibbles = ".".join("20010db8000000000000000000000001"[::-1])
    dns_server.list_address(f"{nibbles}.bl.example")
    said = outcome(log, "-r", "bl.example", TCPREMOTEIP="2001:db8::1")
    assert said == b"451 2001:db8::1 is listed in bl.example\r\n"


def test_an_ipv4_client_of_an_ipv6_socket_is_an_ipv4_client(log: Path, dns_server: Dns) -> None:
    dns_server.list_address(NAME)
    said = outcome(log, "-r", "bl.example:away", TCPREMOTEIP=f"::ffff:{ADDRESS}")
    assert said == b"451 away\r\n"


def test_a_text_of_ours_and_codes(log: Path, dns_server: Dns) -> None:
    dns_server.list_address(NAME, code="127.0.0.4", text="theirs")
    refusing = ("-r", "bl.example=127.0.0.[2..4]:ours, %IP%")
    assert outcome(log, *refusing, TCPREMOTEIP=ADDRESS) == b"451 ours, 192.0.2.1\r\n"
    assert outcome(log, "-r", "bl.example=127.0.0.[2..3]", TCPREMOTEIP=ADDRESS) == IN


def test_the_order_of_the_lists_counts(log: Path, dns_server: Dns) -> None:
    dns_server.list_address(NAME, text="why")
    dns_server.list_address(ALLOWED)
    block, allow = ("-r", "bl.example"), ("-a", "allow.example")
    assert outcome(log, *allow, *block, TCPREMOTEIP=ADDRESS) == IN
    assert outcome(log, *block, *allow, TCPREMOTEIP=ADDRESS) == b"451 why\r\n"


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        (("-n", "198.51.100.1,192.0.2.0/24"), {"TCPREMOTEIP": ADDRESS}),
        ((), {"TCPREMOTEIP": ADDRESS, "RELAYCLIENT": ""}),
        ((), {}),
    ],
)
def test_some_are_not_looked_up(
    arguments: tuple[str, ...], env: dict[str, str], log: Path, dns_server: Dns
) -> None:
    assert outcome(log, "-r", "bl.example", *arguments, **env) == IN
    assert dns_server.asked == []


def test_without_lists_nothing_is_looked_up(log: Path, dns_server: Dns) -> None:
    assert outcome(log, TCPREMOTEIP=ADDRESS) == IN
    assert dns_server.asked == []


def test_an_address_that_is_none_lets_in_and_says_so(log: Path, dns_server: Dns) -> None:
    assert outcome(log, "-r", "bl.example", TCPREMOTEIP="unknown") == IN
    assert "not looked up: not an address: unknown" in log.read_text()


@pytest.mark.usefixtures("impatient")
def test_a_list_that_is_silent_lets_in_and_says_so(log: Path, dns_server: Dns) -> None:
    dns_server.reaction = lambda wire: []
    assert outcome(log, "-r", "bl.example", TCPREMOTEIP=ADDRESS) == IN
    assert ": unable to ask bl.example: no answer ip=" in log.read_text()


def test_a_list_that_fails_keeps_out_if_it_is_told_to(log: Path, dns_server: Dns) -> None:
    dns_server.reaction = lambda wire: dns_server.answer(wire, dns.rcode.SERVFAIL)
    said = outcome(log, "-b", "-c", "-r", "bl.example", TCPREMOTEIP=ADDRESS)
    assert said == b"451 temporary RBL lookup error\r\n"


def test_a_list_that_does_not_serve_this_resolver_lets_in(log: Path, dns_server: Dns) -> None:
    dns_server.list_address(NAME, code="127.255.255.254", text="Error: open resolver")
    assert outcome(log, "-r", "bl.example", TCPREMOTEIP=ADDRESS) == IN
    assert ": unable to ask bl.example: answers 127.255.255.254 ip=" in log.read_text()


def test_a_silent_list_does_not_delay_what_another_decides(
    log: Path, dns_server: Dns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "ATTEMPTS", (15, 15))
    dns_server.list_address(NAME, text="why")
    dns_server.reaction = lambda wire: dns_server.answer(wire) if b"silent" not in wire else []
    lists = ("-r", "bl.example", "-r", "silent.example")
    began = time.monotonic()
    assert outcome(log, *lists, TCPREMOTEIP=ADDRESS) == b"451 why\r\n"
    assert time.monotonic() - began < 15  # the first attempt would last as long


def test_it_ends_in_time_whatever_the_client_does(log: Path) -> None:
    client = Client(log, "-t", "1", RBLSMTPD="no")
    client.say(b"NOOP\r\nRCP")
    status, said, _ = client.end()
    assert (status, said) == (0, b"220 rblsmtpd.local\r\n250 rblsmtpd.local\r\n")


def test_it_ends_in_time_for_a_client_that_does_not_read(log: Path) -> None:
    client = Client(log, "-t", "1", RBLSMTPD="no")
    client.socket.setblocking(False)
    sent = 0
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        try:
            sent += client.socket.send(b"RCPT\r\n" * 1000)
        except BlockingIOError:
            time.sleep(0.01)
    client.socket.settimeout(PATIENCE)
    status, said, _ = client.end()
    assert status == 0
    assert len(said) < 20_000_000


def test_a_client_that_half_closes_gets_every_reply(log: Path) -> None:
    client = Client(log, RBLSMTPD="no")
    client.say(b"EHLO x\r\nRCPT TO:<x>\r\n")
    client.socket.shutdown(socket.SHUT_WR)
    status, said, _ = client.end()
    assert status == 0
    assert said == b"220 rblsmtpd.local\r\n250 rblsmtpd.local\r\n451 no\r\n"


def test_a_client_that_is_gone_is_no_trouble(log: Path) -> None:
    client = Client(log, RBLSMTPD="no")
    client.socket.close()
    client.socket = socket.socketpair()[0]
    client.socket.shutdown(socket.SHUT_RDWR)
    status, _, said = client.end()
    assert status == 0
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "arguments", [("-x",), ("-t", "x"), ("-t",), ("-r", "a..b"), ("-n", "1.2.3"), ("-a", "=1")]
)
def test_a_wrong_command_line_is_misuse(arguments: tuple[str, ...], log: Path) -> None:
    status, said, logged = Client(log, *arguments).end()
    assert (status, said) == (100, b"")
    assert "usage: rblsmtpd " in logged


def test_a_program_is_wanted(capfd: pytest.CaptureFixture[str]) -> None:
    assert program.main(["rblsmtpd", "-b"], {}) == 100
    assert "usage: rblsmtpd " in capfd.readouterr().err
