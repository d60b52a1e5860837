"""qmail-start: who runs as whom, with which descriptors, and how it ends."""

import os
import re
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

Queue = Any  # conftest.py
DEADLINE = 20  # seconds
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="starts programs under other users")

# Takes the place of qmail-lspawn and qmail-rspawn: each report says who delivered.
SPAWNER = """
import os
from pyqmail.send import spawnprotocol as sp

def main(argv, env):
    fds = os.listdir("/proc/self/fd")[:-1]
    who = "%s uid %d gid %d groups %s descriptors %s umask %o args %s" % (
        argv[0], os.getuid(), os.getgid(), os.getgroups(), sorted(map(int, fds)), os.umask(0o77),
        argv[1:])
    os.write(1, sp.encode_limit(3))
    reader = sp.RequestReader()
    while data := os.read(0, 65536):
        for request in reader.feed(data):
            if request.recipient.startswith(b"die"):
                return 0
            os.write(1, sp.encode_report(sp.Report(request.delivery, b"K" + who.encode())))
    return 0
"""


class Running:
    """A started qmail-start and its log."""

    def __init__(self, queue: Queue, *arguments: str) -> None:
        self.queue = queue
        site = queue.home / "site"
        (site / "fake-1.dist-info").mkdir(parents=True, exist_ok=True)
        (site / "spawner_of_the_test.py").write_text(SPAWNER)
        (site / "fake-1.dist-info" / "entry_points.txt").write_text(
            "[acceptutils.programs]\n"
            "qmail-lspawn = spawner_of_the_test:main\n"
            "qmail-rspawn = spawner_of_the_test:main\n"
        )
        env = queue.env | {"PYTHONPATH": f"{site}:{queue.env['PYTHONPATH']}"}
        self.read, write = os.pipe()
        self.pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", "-m", "ucspi", "qmail-start", *arguments],
            env,
            file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)],
        )
        queue._children.append(self.pid)
        os.close(write)
        self.log = b""

    def wait_log(self, pattern: bytes) -> re.Match[bytes]:
        until = time.monotonic() + DEADLINE
        while not (found := re.search(pattern, self.log, re.MULTILINE)):
            readable, _, _ = select.select([self.read], [], [], until - time.monotonic())
            data = os.read(self.read, 65536) if readable else b""
            assert data, f"{pattern!r} is not in the log\n{self.log.decode()}"
            self.log += data
        return found

    def children(self) -> dict[str, int]:
        """Return the user of each child that is alive, by command name or argument."""
        found = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    text = Path(f"/proc/{name}/status").read_text()
                except OSError:
                    continue
                if f"\nPPid:\t{self.pid}\n" in text and "State:\tZ" not in text:
                    found[name] = int(re.search(r"^Uid:\t(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]
        return found


@pytest.fixture
def notify() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def test_each_program_has_its_user_and_only_its_descriptors(
    queue: Queue, notify: tuple[int, int]
) -> None:
    os.set_inheritable(notify[1], True)
    secret = os.open(queue.home / "control/me", os.O_RDONLY)
    os.set_inheritable(secret, True)
    queue.put(b"s@x", b"a@mx.example.org", b"b@far.example")
    running = Running(queue, "-n", str(notify[1]), "./Maildir/")
    os.close(secret)
    running.wait_log(rb"^end msg")
    assert os.read(notify[0], 10) == b"\n"
    pattern = rb"success: (qmail-.spawn)_uid_(\d+)_gid_2107_groups_\[\]_descriptors_(\S*)_umask_77_"
    found = {m[1]: (int(m[2]), m[3]) for m in re.finditer(pattern, running.log)}
    assert found == {
        b"qmail-lspawn": (0, b"[0,_1,_2]"),
        b"qmail-rspawn": (7795, b"[0,_1,_2]"),
    }
    assert b"qmail-lspawn_" in running.log and b"_args_['./Maildir/']" in running.log
    status = Path(f"/proc/{running.pid}/status").read_text()
    assert "\nUid:\t7796\t7796\t7796\t7796\n" in status
    assert "\nGid:\t2107\t2107\t2107\t2107\n" in status
    assert sorted(running.children().values()) == [0, 7794, 7795]
    targets = [os.readlink(f"/proc/{running.pid}/fd/{n}") for n in range(7)]
    assert all(target.startswith("pipe:") for target in targets) and len(set(targets)) == 7
    assert str(queue.home / "control/me") not in [
        os.readlink(entry.path) for entry in os.scandir(f"/proc/{running.pid}/fd")
    ]
    assert queue.stop(running.pid) == 0


def test_all_end_with_qmail_send(queue: Queue) -> None:
    running = Running(queue, "./Maildir/")
    running.wait_log(rb"^status: local 0/3 remote 0/3$")
    pids = [int(pid) for pid in running.children()]
    assert len(pids) == 3
    ends = [os.pidfd_open(pid) for pid in pids]
    assert queue.stop(running.pid) == 0
    for end in ends:
        assert select.select([end], [], [], DEADLINE)[0], "a companion is left"
        os.close(end)
    running.wait_log(rb"^status: exiting$")


def test_the_death_of_a_companion_ends_all(queue: Queue) -> None:
    running = Running(queue, "./Maildir/")
    running.wait_log(rb"^status: local 0/3 remote 0/3$")
    queue.put(b"s@x", b"die@mx.example.org")
    queue.pull()
    running.wait_log(rb"^alert: oh no! lost spawn connection! dying...$")
    assert queue.wait(running.pid) == 0


def test_a_logger_gets_the_log(queue: Queue) -> None:
    copy = queue.home / "log"
    copy.mkdir()
    os.chown(copy, 7792, 2108)
    logger = ["/bin/sh", "-c", f"id -u >{copy}/id; id -g >>{copy}/id; cat >{copy}/text; echo done"]
    running = Running(queue, "./Maildir/", *logger)
    queue.put(b"s@x", b"a@mx.example.org")
    until = time.monotonic() + DEADLINE
    while not (copy / "text").exists() or b"end msg" not in (copy / "text").read_bytes():
        assert time.monotonic() < until, "the message was not delivered"
        select.select([], [], [], 0.01)
    assert queue.stop(running.pid, signal.SIGTERM) == 0
    running.wait_log(rb"^done$")
    assert (copy / "id").read_text() == "7792\n2108\n"
    assert (copy / "text").read_bytes().endswith(b"status: exiting\n")


@pytest.mark.parametrize("arguments", [["-n"], ["-n", "x"]])
def test_wrong_usage(queue: Queue, arguments: list[str]) -> None:
    assert queue.wait(Running(queue, *arguments).pid) == 100
