"""greetdelay: who cannot wait to be greeted is refused."""

import os
import re
import select
import socket
import time
import traceback
from pathlib import Path

import pytest

from acceptutils import greetdelay
from ucspi import chain

PATIENCE = 20.0
CLIENT = {"TCPREMOTEIP": "192.0.2.1", "SESSION_ID": "s1"}


class Client:
    """The client of a greetdelay with these variables, which lets in who has waited."""

    def __init__(self, log: Path, *arguments: str, **env: str) -> None:
        self._log = log
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(PATIENCE)
        self.pid = os.fork()
        if self.pid == 0:
            status = 99
            try:
                for descriptor in (0, 1):
                    os.dup2(theirs.fileno(), descriptor)
                os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
                chain.close_all_but({0, 1, 2})
                full = {"PATH": "/usr/bin:/bin", **CLIENT, **env}
                words = arguments or ("sh", "-c", "echo welcome; cat; exit 7")
                status = greetdelay.main(["greetdelay", *words], full)
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(status)
        theirs.close()

    def end(self, *, silently: bool = True) -> tuple[int, bytes, str]:
        """Say nothing more; return the exit status, everything that was said, and the log."""
        if silently:
            self.socket.shutdown(socket.SHUT_WR)
        said = b""
        while chunk := self.socket.recv(65536):
            said += chunk
        self.socket.close()
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return status, said, self._log.read_text()

    def is_silent(self, seconds: float) -> bool:
        return not select.select([self.socket], [], [], seconds)[0]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_the_greeting_comes_after_the_delay(log: Path) -> None:
    began = time.monotonic()
    client = Client(log, GREETDELAY="0.4")
    assert client.socket.recv(100) == b"welcome\n"
    assert time.monotonic() - began >= 0.4
    client.socket.sendall(b"now it is my turn\n")
    assert client.end() == (7, b"now it is my turn\n", "")


def test_who_speaks_first_is_refused_and_logged(log: Path) -> None:
    client = Client(log, GREETDELAY="20")
    client.socket.sendall(b"EHLO spam.example\r\nMAIL FROM:<>\r\n")
    status, said, logged = client.end(silently=False)
    assert (status, said) == (111, b"554 smtp protocol violation (#5.5.1)\r\n")
    assert re.fullmatch(
        r"greetdelay \d+ client spoke first, after \d\.\d seconds ip=192\.0\.2\.1 session=s1\n",
        logged,
    )


def test_who_goes_away_is_not_served(log: Path) -> None:
    status, said, logged = Client(log, GREETDELAY="20").end()
    assert (status, said) == (1, b"")
    assert " client gone after " in logged


def test_waiting_costs_no_cpu(log: Path) -> None:
    client = Client(log, GREETDELAY="20")
    assert client.is_silent(0.5)
    fields = Path(f"/proc/{client.pid}/stat").read_text().rpartition(")")[2].split()
    before = int(fields[11]) + int(fields[12])
    assert client.is_silent(1)
    fields = Path(f"/proc/{client.pid}/stat").read_text().rpartition(")")[2].split()
    assert int(fields[11]) + int(fields[12]) - before <= 1
    client.end()


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"GREETDELAY": ""},
        {"GREETDELAY": "0"},
        {"GREETDELAY": "20", "RELAYCLIENT": ""},
        {"GREETDELAY": "20", "GREETDELAY_ALLOW": "::1/128,192.0.2.0/24"},
        {"GREETDELAY": "20", "GREETDELAY_ALLOW": "::1/128 192.0.2.1"},
        {"GREETDELAY": "20", "GREETDELAY_ALLOW": "2001:db8::/32", "TCPREMOTEIP": "2001:db8::1"},
        {"GREETDELAY": "20", "GREETDELAY_ALLOW": "127.0.0.0/8", "TCPREMOTEIP": "::ffff:127.0.0.1"},
    ],
)
def test_some_need_not_wait_and_may_speak_first(env: dict[str, str], log: Path) -> None:
    client = Client(log, **env)
    client.socket.sendall(b"at once\n")
    assert client.end() == (7, b"welcome\nat once\n", "")


@pytest.mark.parametrize("text", ["x", "-1", "1e9", "1.x", "nan", "٣"])
def test_a_delay_that_is_none_is_said_and_not_waited_for(text: str, log: Path) -> None:
    status, said, logged = Client(log, GREETDELAY=text).end()
    assert (status, said) == (7, b"welcome\n")
    assert "not a number of seconds: " in logged


def test_a_wrong_network_is_said_and_waited_for_no_more_than_once(log: Path) -> None:
    status, said, logged = Client(log, GREETDELAY="0.1", GREETDELAY_ALLOW="1.2.3").end()
    assert (status, said) == (1, b"")
    assert "not an address: 1.2.3" in logged


def test_no_delay_is_longer_than_a_client_waits() -> None:
    assert greetdelay.seconds({"GREETDELAY": "99999999"}) == 240


def test_nothing_to_run_is_misuse(capfd: pytest.CaptureFixture[str]) -> None:
    assert greetdelay.main(["greetdelay"], {}) == 100
    assert "usage: greetdelay prog" in capfd.readouterr().err
