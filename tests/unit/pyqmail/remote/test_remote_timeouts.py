"""qmail-tcpto and qmail-tcpok: the table of hosts that did not answer, seen and cleared."""

import ipaddress
import os
from typing import Any

import pytest

from pyqmail.queue import layout
from pyqmail.remote import tcpto, timeouts

Queue = Any  # conftest.py
NOW = 1_800_000_000


def noted(*addresses: str) -> bytes:
    """Return a table in which each of the addresses has timed out, and one has answered since."""
    table = bytearray(tcpto.SIZE)
    for number, address in enumerate((*addresses, "198.51.100.7")):
        packed = ipaddress.IPv4Address(address).packed
        for later in range(2):
            when = NOW - 1000 * number + 200 * later
            change = tcpto.change(bytes(table), packed, when, timed_out=address in addresses)
            if change is not None:
                table[change[0] : change[0] + len(change[1])] = change[1]
    return bytes(table)


def test_each_host_that_timed_out_has_a_line() -> None:
    assert timeouts.lines(noted("192.0.2.1", "192.0.2.9"), NOW + 300) == [
        "192.0.2.1 timed out 100 seconds ago; # recent timeouts: 2",
        "192.0.2.9 timed out 1100 seconds ago; # recent timeouts: 2",
    ]


@pytest.mark.parametrize("table", [b"", bytes(tcpto.SIZE), bytes(7)])
def test_table_without_time_outs_has_none(table: bytes) -> None:
    assert timeouts.lines(table, NOW) == []


def test_shown_then_forgotten(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(queue.home)
    table = queue.directory / layout.TCPTO
    table.write_bytes(noted("192.0.2.1"))
    inode = table.stat().st_ino
    assert timeouts.show(["qmail-tcpto"], queue.env) == 0
    assert capfd.readouterr().out.startswith("192.0.2.1 timed out ")
    os.chdir(queue.home)
    assert timeouts.forget(["qmail-tcpok"], queue.env) == 0
    assert table.read_bytes() == bytes(tcpto.SIZE)
    assert table.stat().st_ino == inode
    os.chdir(queue.home)
    assert timeouts.show(["qmail-tcpto"], queue.env) == 0
    assert capfd.readouterr().out == ""


def test_missing_table_is_told(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(queue.home)
    (queue.directory / layout.TCPTO).unlink()
    assert timeouts.forget(["qmail-tcpok"], queue.env) == 111
    told = "qmail-tcpok: fatal: lock/tcpto: No such file or directory\n"
    assert capfd.readouterr().err == told
