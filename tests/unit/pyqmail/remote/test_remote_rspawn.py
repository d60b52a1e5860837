"""qmail-rspawn: the whole program over its two pipes."""

import os
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyqmail import spawn
from pyqmail.remote import rspawn as rspawn_module
from pyqmail.send.spawnprotocol import Report, ReportReader, Request, encode_request

Sink = Any  # it is in conftest.py
DEADLINE = 30  # seconds within which anything that is waited for must happen


@pytest.fixture
def queue(home: Path) -> Path:
    """The home of qmail-remote's tests, with a queue."""
    for name in ("queue/mess/1", "queue/lock"):
        (home / name).mkdir(parents=True)
    (home / "queue/mess/1/1").write_bytes(b"Subject: x\n\nbody\n")
    (home / "queue/lock/tcpto").write_bytes(b"x" * 1024)
    return home


class Rspawn:
    """A running qmail-rspawn and our ends of its pipes."""

    def __init__(self, home: Path, log: int = 2) -> None:
        env = {
            "QMAIL_HOME": str(home),
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        request_read, self.requests = os.pipe()
        self.reports, report_write = os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, request_read, 0), (os.POSIX_SPAWN_DUP2, report_write, 1)]
        actions.append((os.POSIX_SPAWN_DUP2, log, 2))
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

    def children(self) -> list[int]:
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(number) for number in listed.split()]

    def end(self) -> int:
        os.close(self.requests)
        os.close(self.reports)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def rspawn(queue: Path) -> Iterator[Rspawn]:
    started = Rspawn(queue)
    yield started
    assert started.end() == 0


ACCEPTED = b"K127.0.0.1 accepted message.\nRemote host said: 250 queued\n"


def ended(sink: Sink, count: int) -> None:
    """Wait until so many connections to the sink have ended with a QUIT."""
    until = time.monotonic() + DEADLINE
    while sum(record.endswith(b"QUIT\r\n") for record in sink.records) < count:
        assert time.monotonic() < until, sink.records
        time.sleep(0.01)


def test_a_message_is_sent_and_reported(rspawn: Rspawn, sink: Sink) -> None:
    assert rspawn.ask(Request(3, b"1/1", b"sam@x", b"joe@example.net")) == Report(3, ACCEPTED)
    assert sink.messages == [b"Subject: x\r\n\r\nbody\r\n.\r\n"]


def test_a_burst_goes_over_one_connection_which_then_ends(rspawn: Rspawn, sink: Sink) -> None:
    for number in range(20):
        address = b"joe%d@example.net" % number
        assert rspawn.ask(Request(0, b"1/1", b"sam@x", address)) == Report(0, ACCEPTED)
    ended(sink, 1)  # without a further delivery
    (record,) = sink.records
    assert record.count(b"EHLO") == 1
    assert record.count(b"RSET\r\n") == 19
    assert len(sink.messages) == 20
    recipients = [f"RCPT TO:<joe{number}@example.net>\r\n".encode() for number in range(20)]
    assert [record.count(recipient) for recipient in recipients] == [1] * 20
    assert rspawn.ask(Request(0, b"1/1", b"", b"joe@example.net")) == Report(0, ACCEPTED)
    assert len(sink.records) == 2


def test_a_connection_that_waits_ends_with_qmail_rspawn(queue: Path, sink: Sink) -> None:
    rspawn = Rspawn(queue)
    assert rspawn.ask(Request(0, b"1/1", b"", b"joe@example.net")) == Report(0, ACCEPTED)
    assert rspawn.end() == 0
    ended(sink, 1)


def test_a_child_that_waits_holds_its_connection_and_nothing_of_the_mail(
    rspawn: Rspawn, sink: Sink
) -> None:
    rspawn.ask(Request(0, b"1/1", b"", b"joe@example.net"))
    (child,) = rspawn.children()
    held = {int(path.name): os.readlink(path) for path in Path(f"/proc/{child}/fd").iterdir()}
    _, channel, *connection = [held.pop(number) for number in sorted(set(held) - {0, 1, 2})]
    assert set(held.values()) == {"/dev/null"}
    assert channel.startswith("socket:")
    assert len(connection) == 1 and connection[0].startswith("socket:")


def test_each_delivery_has_a_line_in_the_log(queue: Path, sink: Sink, tmp_path: Path) -> None:
    with open(tmp_path / "log", "w+b") as log:
        rspawn = Rspawn(queue, log.fileno())
        rspawn.ask(Request(0, b"1/1", b"", b"joe@example.net"))
        rspawn.ask(Request(0, b"1/1", b"", b"joe@example.org"))
        sink.replies["message"] = "550 no"
        rspawn.ask(Request(0, b"1/1", b"", b"joe@example.org"))
        assert rspawn.end() == 0
        log.seek(0)
        lines = log.read().decode().splitlines()
    assert lines == [
        "qmail-remote: message 1 to example.net: no TLS ip=127.0.0.1",
        "qmail-remote: message 1 to example.org: no TLS, message 2 of the connection ip=127.0.0.1",
        "qmail-remote: message 1 to example.org: no TLS, message 3 of the connection ip=127.0.0.1",
    ]


def test_children_that_wait_do_not_pile_up(rspawn: Rspawn, queue: Path, sink: Sink) -> None:
    """When enough of them wait, the first takes what there is, and ends its connection."""
    port = sink.port
    hosts = [type(sink)(f"127.0.0.{n}", port) for n in range(2, 16)]
    lines = "".join(f"d{n}.example:127.0.0.{n}:{port}\n" for n in range(2, 16))
    (queue / "control/smtproutes").write_text(lines)
    try:
        for number in range(2, 16):
            address = b"joe@d%d.example" % number
            report = rspawn.ask(Request(0, b"1/1", b"", address))
            assert report.text.startswith(b"K127.0.0.%d accepted" % number)
        assert len(rspawn.children()) <= spawn.IDLE_SPARE + 1
        for host in hosts:
            ended(host, 1)
            assert len(host.messages) == 1
    finally:
        for host in hosts:
            host.close()


@pytest.mark.parametrize(
    ("domain", "key"),
    [
        (b"a.example", b"relay:25"),
        (b"B.example", b"relay:25"),
        (b"c.example", b"c.example"),
        (b"D.Other", b"d.other"),
    ],
)
def test_what_may_share_a_connection(tmp_path: Path, domain: bytes, key: bytes) -> None:
    path = tmp_path / "smtproutes"
    destinations = rspawn_module.Destinations(str(path))
    assert destinations.key(domain) == domain.lower()
    path.write_text("# one relay\n.example:relay:25 joe secret\nc.example:\n")
    assert destinations.key(domain) == key
    path.unlink()
    assert destinations.key(domain) == domain.lower()


def test_hosts_that_timed_out_are_forgotten_at_the_start(rspawn: Rspawn, queue: Path) -> None:
    rspawn.ask(Request(0, b"1/9", b"", b"a@b"))  # it has started
    assert (queue / "queue/lock/tcpto").read_bytes() == bytes(1024)


def test_an_address_without_a_host_is_refused(rspawn: Rspawn) -> None:
    text = b"DSorry, address must include host name. (#5.1.3)\n"
    assert rspawn.ask(Request(119, b"1/1", b"", b"joe")) == Report(119, text)
    text = b"ZInternal error: delnum too big. (#4.3.5)\n"
    assert rspawn.ask(Request(120, b"1/1", b"", b"joe@x")) == Report(120, text)
