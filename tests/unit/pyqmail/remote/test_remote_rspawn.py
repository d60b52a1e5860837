"""qmail-rspawn: the whole program over its two pipes."""

import os
import select
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyqmail.send.spawnprotocol import Report, ReportReader, Request, encode_request

DEADLINE = 30  # seconds within which anything that is waited for must happen


def answer(listener: socket.socket, record: list[bytes]) -> None:
    """Be an SMTP server for one connection that takes one message."""
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(DEADLINE)
        connection.sendall(b"220 sink\r\n")
        data = b""
        for ending, reply in (
            (b"\r\n", b"250 sink\r\n"),
            (b">\r\n", b"250 sender\r\n"),
            (b"net>\r\n", b"250 recipient\r\n"),
            (b"DATA\r\n", b"354 go\r\n"),
            (b"\r\n.\r\n", b"250 queued\r\n"),
        ):
            while not data.endswith(ending):
                data += connection.recv(4096)
            connection.sendall(reply)
        record.append(data)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("control", "queue/mess/1", "queue/lock"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "control/me").write_text("client.example.org\n")
    (tmp_path / "queue/mess/1/1").write_bytes(b"Subject: x\n\nbody\n")
    (tmp_path / "queue/lock/tcpto").write_bytes(b"x" * 1024)
    return tmp_path


class Rspawn:
    """A running qmail-rspawn and our ends of its pipes."""

    def __init__(self, home: Path) -> None:
        env = {
            "QMAIL_HOME": str(home),
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        request_read, self.requests = os.pipe()
        self.reports, report_write = os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, request_read, 0), (os.POSIX_SPAWN_DUP2, report_write, 1)]
        argv = [sys.executable, "-m", "ucspi", "qmail-rspawn"]
        self.pid = os.posix_spawn(sys.executable, argv, env, file_actions=actions)
        os.close(request_read)
        os.close(report_write)
        self.reader = ReportReader()

    def ask(self, request: Request) -> Report:
        os.write(self.requests, encode_request(request))
        while True:
            readable, _, _ = select.select([self.reports], [], [], DEADLINE)
            assert readable, "no report"
            data = os.read(self.reports, 4096)
            assert data, "qmail-rspawn ended"
            for report in self.reader.feed(data):
                return report

    def end(self) -> int:
        os.close(self.requests)
        os.close(self.reports)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def rspawn(home: Path) -> Iterator[Rspawn]:
    started = Rspawn(home)
    yield started
    assert started.end() == 0


def test_a_message_is_sent_and_reported(rspawn: Rspawn, home: Path) -> None:
    record: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        server = threading.Thread(target=answer, args=(listener, record))
        server.start()
        port = listener.getsockname()[1]
        (home / "control/smtproutes").write_text(f"example.net:127.0.0.1:{port}\n")
        report = rspawn.ask(Request(3, b"1/1", b"sam@x", b"joe@example.net"))
        server.join(DEADLINE)
    text = b"K127.0.0.1 accepted message.\nRemote host said: 250 queued\n"
    assert report == Report(3, text)
    assert record[0].endswith(
        b"RCPT TO:<joe@example.net>\r\nDATA\r\nSubject: x\r\n\r\nbody\r\n.\r\n"
    )


def test_hosts_that_timed_out_are_forgotten_at_the_start(rspawn: Rspawn, home: Path) -> None:
    rspawn.ask(Request(0, b"1/9", b"", b"a@b"))  # it has started
    assert (home / "queue/lock/tcpto").read_bytes() == bytes(1024)


def test_an_address_without_a_host_is_refused(rspawn: Rspawn) -> None:
    text = b"DSorry, address must include host name. (#5.1.3)\n"
    assert rspawn.ask(Request(119, b"1/1", b"", b"joe")) == Report(119, text)
    text = b"ZInternal error: delnum too big. (#4.3.5)\n"
    assert rspawn.ask(Request(120, b"1/1", b"", b"joe@x")) == Report(120, text)
