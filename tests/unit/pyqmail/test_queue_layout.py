"""The queue directory: netqmail's names, owners and modes, made without full root powers."""

import ctypes
import os
import shutil
import stat
import struct
from pathlib import Path
from typing import Any

import pytest

from pyqmail.queue import ids, layout, prepare

Queue = Any  # conftest.py
root_only = pytest.mark.skipif(os.getuid() != 0, reason="gives files away")

# path, type and mode, owner as netqmail's installation makes them.
EXPECTED = [
    (".", "drwxr-x---", "qmailq"),
    ("pid", "drwx------", "qmailq"),
    ("intd", "drwx------", "qmailq"),
    ("todo", "drwxr-x---", "qmailq"),
    ("bounce", "drwx------", "qmails"),
    ("mess", "drwxr-x---", "qmailq"),
    ("mess/0", "drwxr-x---", "qmailq"),
    ("mess/22", "drwxr-x---", "qmailq"),
    ("info/22", "drwx------", "qmails"),
    ("local/1", "drwx------", "qmails"),
    ("remote/1", "drwx------", "qmails"),
    ("lock", "drwxr-x---", "qmailq"),
    ("lock/sendmutex", "-rw-------", "qmails"),
    ("lock/tcpto", "-rw-r--r--", "qmailr"),
    ("lock/trigger", "prw--w--w-", "qmails"),
]


def snapshot(directory: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for path in [directory, *directory.rglob("*")]:
        status = path.stat()
        key = str(path.relative_to(directory))
        found[key] = status.st_mode, status.st_uid, status.st_gid
    return found


@root_only
def test_a_fresh_queue_is_netqmails(queue: Queue) -> None:
    users = ids.lookup()
    for path, mode, owner in EXPECTED:
        status = (queue.directory / path).stat()
        assert stat.filemode(status.st_mode) == mode, path
        assert (status.st_uid, status.st_gid) == (getattr(users, owner), users.group), path
    assert (queue.directory / "lock/tcpto").read_bytes() == bytes(1024)
    assert len(list(queue.directory.rglob("*"))) == 9 + 4 * 23 + 3
    assert not (queue.directory / "mess/23").exists()


def test_a_complete_queue_is_left_alone(queue: Queue) -> None:
    before = snapshot(queue.directory)
    (queue.directory / "lock/tcpto").write_bytes(b"x" * 1024)
    assert layout.prepare(str(queue.directory), ids.lookup()) == []
    assert snapshot(queue.directory) == before
    assert (queue.directory / "lock/tcpto").read_bytes() == b"x" * 1024


def test_what_is_missing_is_put_back(queue: Queue) -> None:
    before = snapshot(queue.directory)
    (queue.directory / "lock/trigger").unlink()
    (queue.directory / "lock/tcpto").unlink()
    shutil.rmtree(queue.directory / "local/7")
    done = layout.prepare(str(queue.directory), ids.lookup())
    assert sorted(done) == ["local/7", "lock/tcpto", "lock/trigger"]
    assert snapshot(queue.directory) == before


@root_only
def test_a_creation_cut_short_is_completed(queue: Queue) -> None:
    before = snapshot(queue.directory)
    users = ids.lookup()
    os.chown(queue.directory / "info/3", users.qmailq, users.group)
    os.chown(queue.directory / "lock/trigger", users.qmailq, users.group)
    assert layout.prepare(str(queue.directory), users) == ["info/3", "lock/trigger"]
    assert snapshot(queue.directory) == before


def test_something_else_in_the_way_is_an_error(queue: Queue) -> None:
    (queue.directory / "lock/trigger").unlink()
    (queue.directory / "lock/trigger").write_bytes(b"")
    with pytest.raises(layout.LayoutError, match="lock/trigger is in the way"):
        layout.prepare(str(queue.directory), ids.lookup())


def keep_only_capabilities_to_change_owner_and_id() -> None:
    """Give up all other powers of root in this process (capset(2))."""
    mask = 1 << 0 | 1 << 6 | 1 << 7  # CHOWN, SETGID, SETUID
    header = struct.pack("Ii", 0x20080522, 0)
    data = struct.pack("6I", mask, mask, 0, 0, 0, 0)
    assert ctypes.CDLL(None).capset(header, data) == 0


@root_only
@pytest.mark.parametrize("remove", [".", "lock/trigger", "info"])
def test_it_needs_only_the_capabilities_to_change_owner_and_id(queue: Queue, remove: str) -> None:
    before = snapshot(queue.directory)
    path = queue.directory / remove
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    closed = queue.home / "closed"
    closed.mkdir(0o700)
    os.chown(closed, 20000, 20000)
    pid = os.fork()
    if not pid:
        status = 99
        try:
            keep_only_capabilities_to_change_owner_and_id()
            with pytest.raises(PermissionError):
                os.listdir(closed)  # the powers are really gone
            status = prepare.main(["qmail-queue-prepare"], queue.env)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert snapshot(queue.directory) == before


@root_only
@pytest.mark.parametrize("trap", ["lock/tcpto", "lock/sendmutex", "lock", "mess", "info/3"])
def test_a_symbolic_link_in_the_queue_gives_nobody_elses_file_away(queue: Queue, trap: str) -> None:
    """Who is qmailq or qmails can put one there, and root comes by at each start."""
    victim = queue.home / "victim"
    if trap in ("lock/tcpto", "lock/sendmutex"):
        (queue.directory / trap).unlink()
        victim.write_bytes(bytes(1024))
    else:
        shutil.rmtree(queue.directory / trap)
        victim.mkdir()
    (queue.directory / trap).symlink_to(victim)
    with pytest.raises(layout.LayoutError, match=f"{trap} is in the way"):
        layout.prepare(str(queue.directory), ids.lookup())
    assert victim.stat().st_uid == 0
    assert victim.is_file() or list(victim.iterdir()) == []


@root_only
def test_a_second_name_of_somebody_elses_file_is_not_given_away(queue: Queue) -> None:
    victim = queue.home / "victim"
    victim.write_bytes(b"")
    (queue.directory / "lock/tcpto").unlink()
    (queue.directory / "lock/tcpto").hardlink_to(victim)
    with pytest.raises(layout.LayoutError, match="lock/tcpto is in the way"):
        layout.prepare(str(queue.directory), ids.lookup())
    assert victim.stat().st_uid == 0


@root_only
def test_a_new_file_does_not_follow_a_link_either(queue: Queue) -> None:
    victim = queue.home / "victim"
    (queue.directory / "lock/tcpto").unlink()
    (queue.directory / "lock/tcpto.new").symlink_to(victim)
    with pytest.raises(OSError, match="lock/tcpto"):
        layout.prepare(str(queue.directory), ids.lookup())
    assert not victim.exists()


def test_looking_leaves_no_descriptor_open(queue: Queue) -> None:
    before = len(os.listdir("/proc/self/fd"))
    layout.prepare(str(queue.directory), ids.lookup())
    assert len(os.listdir("/proc/self/fd")) == before
