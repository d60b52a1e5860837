"""``postern restore``: whole or not at all, from whatever somebody calls a backup."""

import fcntl
import hashlib
import io
import json
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance import (
    accounts,
    backup,
    backup_files,
    backup_format,
    durable,
    restore,
    restore_archive,
    restore_volume,
    start,
    store,
)
from appliance.backup_format import FormatError
from appliance.backup_progress import Progress
from appliance.layout import CHECKPW, DKIM, QMAILQ, QMAILS, Layout, Owner
from appliance.restore import RestoreError
from appliance.restore_volume import VolumeError

ALICE = Owner(20000, 20000)
HASH = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA"
HOME = "home/example.org/alice"
SPARSE = 5 << 20


def put(path: str, content: bytes, owner: Owner, mode: int = 0o600) -> None:
    Path(path).write_bytes(content)
    os.chmod(path, mode)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    os.chown(path, *owner)


def make_queue(places: Layout) -> None:
    os.mkdir(places.queue, 0o750)
    for place in backup_format.queue_places():
        os.mkdir(f"{places.queue}/{place.path}", place.mode)
        os.chown(f"{places.queue}/{place.path}", *place.owner)
    os.chown(places.queue, *QMAILQ)


@pytest.fixture
def volume(places: Layout) -> Layout:
    """A volume with an account, its mail, and two messages in the queue."""
    make_queue(places)
    with store.locked(places):
        store.save(places, store.Store().with_domains("example.org"))
    accounts.add(places, "alice@example.org", HASH)
    home = places.home("alice@example.org")
    put(home + "/Maildir/new/1.a.host", b"one", ALICE)
    put(home + "/" + os.fsdecode(b"odd \xff\n\xe2\x82\xac"), b"odd", ALICE, 0o640)
    put(home + "/" + "long" * 60, b"long", ALICE)
    os.symlink("Maildir/new", home + "/link")
    os.chown(home + "/link", *ALICE, follow_symlinks=False)
    with open(home + "/sparse", "wb") as file:
        file.seek(SPARSE)
        file.write(b"end")
    os.chown(home + "/sparse", *ALICE)
    os.utime(home + "/Maildir/cur", (1_600_000_000, 1_600_000_000))
    os.mkdir(places.dkim + "/example.org", 0o750)
    os.chown(places.dkim + "/example.org", 0, DKIM.gid)
    put(places.dkim + "/example.org/s.pem", b"pem", Owner(0, DKIM.gid), 0o640)
    put(places.key, b"key", Owner(0, 0), 0o400)
    for kind, number, content in (
        ("mess", 77, b"waiting"),
        ("info", 77, b"Fa@example.org\0"),
        ("remote", 77, b"Tb@far.example\0"),
        ("bounce", 77, b"<c@far.example>:\nno\n\n"),
        ("mess", 78, b"new"),
        ("todo", 78, b"u1\0p1\0Fa@example.org\0Tb@far.example\0"),
    ):
        mode, owner = backup_format.queue_owner(kind)
        put(f"{places.queue}/{backup_format.queue_path(kind, number)}", content, owner, mode)
    return places


@pytest.fixture
def tar(volume: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A backup of that volume."""
    monkeypatch.setattr(backup_files, "HOLES_FROM", 1 << 20)
    with (tmp_path / "b.tar").open("wb") as file:
        assert backup.write(volume, backup.Output(file.fileno()))
    return (tmp_path / "b.tar").read_bytes()


@pytest.fixture
def empty() -> Iterator[Layout]:
    """A volume that nothing was done with, in a directory that every user may pass."""
    root = tempfile.mkdtemp(prefix="postern-")
    os.chmod(root, 0o755)
    places = Layout(root)
    os.makedirs(places.data)
    yield places
    shutil.rmtree(root)


@pytest.fixture(autouse=True)
def not_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk of whoever runs the tests has other things to write, too."""
    monkeypatch.setattr(restore_volume, "sync", lambda directory: None)
    monkeypatch.setattr(durable, "sync_directory", lambda directory: None)


def give(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put content on standard input."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def run(content: bytes, places: Layout, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(os, "isatty", lambda descriptor: False)
    give(content, monkeypatch)
    return restore.main(["restore", *words], {}, places)


def seen(directory: str) -> dict[str, tuple[Any, ...]]:
    """Everything below a directory but times of the directories of the queue."""
    found: dict[str, tuple[Any, ...]] = {}
    for path, directories, files in os.walk(directory):
        for name in (*directories, *files):
            full = f"{path}/{name}"
            status = os.lstat(full)
            content: Any = None
            if stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(Path(full).read_bytes()).hexdigest()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(full)
            times = None if stat.S_ISLNK(status.st_mode) else int(status.st_mtime)
            key = os.path.relpath(full, directory)
            found[key] = (status.st_mode, status.st_uid, status.st_gid, times, content)
    return found


def test_everything_comes_back(
    volume: Layout, tar: bytes, empty: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tar, empty, monkeypatch) == 0
    for piece in ("accounts", "dkim", "tls", "srs", "alias", "home"):
        before, after = seen(f"{volume.data}/{piece}"), seen(f"{empty.data}/{piece}")
        before.pop("lock", None)
        assert after == before
    assert store.load(empty) == store.load(volume)
    for piece in ("users", "cache", "tmp"):
        assert os.path.isdir(f"{empty.data}/{piece}")
    left = set(os.listdir(empty.data))
    assert left == {"queue", "users", "cache", "tmp", *backup_format.SMALL, "home"}
    assert os.stat(empty.home("alice@example.org") + "/sparse").st_blocks * 512 < SPARSE


def test_messages_have_the_numbers_of_their_inodes(
    tar: bytes, empty: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tar, empty, monkeypatch) == 0
    by_text = {}
    for path in Path(empty.queue, "mess").glob("*/*"):
        number = path.stat().st_ino
        assert path == Path(empty.queue, backup_format.queue_path("mess", number))
        by_text[path.read_bytes()] = number

    def file(kind: str, text: bytes) -> Path:
        return Path(empty.queue, backup_format.queue_path(kind, by_text[text]))

    assert set(by_text) == {b"waiting", b"new"}
    assert file("info", b"waiting").read_bytes() == b"Fa@example.org\0"
    assert file("remote", b"waiting").read_bytes() == b"Tb@far.example\0"
    assert file("bounce", b"waiting").read_bytes() == b"<c@far.example>:\nno\n\n"
    assert file("todo", b"new").read_bytes().startswith(b"u1\0p1\0F")
    assert len([path for path in Path(empty.queue).rglob("*") if path.is_file()]) == 6
    # A message's age is in it, and when it is due.
    for kind in ("info", "remote"):
        assert file(kind, b"waiting").stat().st_mtime == 1_700_000_000


def test_queue_has_its_owners(
    volume: Layout, tar: bytes, empty: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tar, empty, monkeypatch) == 0
    for path in ("", *(place.path for place in backup_format.queue_places())):
        one, other = os.stat(f"{volume.queue}/{path}"), os.stat(f"{empty.queue}/{path}")
        assert (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)
    found = {
        path.parent.name if path.parent.name in ("todo", "bounce") else path.parent.parent.name: (
            stat.S_IMODE(path.stat().st_mode),
            path.stat().st_uid,
        )
        for path in Path(empty.queue).rglob("*")
        if path.is_file()
    }
    assert found == {
        "mess": (0o644, QMAILQ.uid),
        "todo": (0o644, QMAILQ.uid),
        "info": (0o600, QMAILS.uid),
        "remote": (0o600, QMAILS.uid),
        "bounce": (0o600, QMAILS.uid),
    }


def test_account_without_home_gets_one(
    tar: bytes, empty: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was deleted while the backup was made, after the accounts were read."""
    without = rebuilt(tar, lambda member: not member.name.startswith("home/"))
    assert run(without, empty, monkeypatch) == 0
    home = os.stat(empty.home("alice@example.org"))
    assert (home.st_uid, stat.S_IMODE(home.st_mode)) == (ALICE.uid, 0o700)
    assert os.listdir(empty.home("alice@example.org")) == ["Maildir"]


# What is refused ----------------------------------------------------------------------------


def rebuilt(
    tar: bytes,
    wanted: Callable[[tarfile.TarInfo], bool] = lambda member: True,
    *added: tuple[tarfile.TarInfo, bytes],
    first: dict[str, Any] | None = None,
) -> bytes:
    """Return a backup with other members and a right checksum."""
    result = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape") as archive:
        for member in archive:
            if member.name == backup_format.LAST or not wanted(member):
                continue
            file = archive.extractfile(member) if member.isfile() else None
            content = file.read() if file else b""
            member.pax_headers = {}  # holes are zeros now
            if first is not None and member.name == backup_format.FIRST:
                content = json.dumps(first).encode()
                member.size = len(content)
            write(result, member, content)
    for member, content in added:
        write(result, member, content)
    last = tarfile.TarInfo(backup_format.LAST)
    digest = hashlib.sha256(result.getvalue()).hexdigest()
    content = json.dumps({"format": 1, "sha256": digest}).encode()
    last.size = len(content)
    write(result, last, content)
    return result.getvalue() + bytes(1024)


def write(result: io.BytesIO, member: tarfile.TarInfo, content: bytes) -> None:
    result.write(member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
    result.write(content + bytes(-len(content) % 512))


def info(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.uid = member.gid = 20000
    member.mode = 0o600
    for field, value in fields.items():
        setattr(member, field, value)
    return member


HOSTILE = {
    "absolute": info("/etc/cron.d/x"),
    "dots": info(HOME + "/../../../../etc/x"),
    "dots inside": info(HOME + "/x/../y"),
    "elsewhere": info("run/postern/x"),
    "derived": info("users/assign"),
    "directory itself missing": info(HOME + "/nowhere/x"),
    "twice": info(HOME + "/Maildir/new/1.a.host"),
    "in a file": info(HOME + "/Maildir/new/1.a.host/x"),
    "device": info(HOME + "/null", tarfile.CHRTYPE, devmajor=1, devminor=3),
    "block device": info(HOME + "/sda", tarfile.BLKTYPE),
    "fifo": info(HOME + "/fifo", tarfile.FIFOTYPE),
    "hard link": info(HOME + "/hard", tarfile.LNKTYPE, linkname="accounts/accounts.json"),
    "link out": info(HOME + "/out", tarfile.SYMTYPE, linkname="../../../accounts"),
    "absolute link": info(HOME + "/out", tarfile.SYMTYPE, linkname="/etc/passwd"),
    "through a link": info(HOME + "/link/x"),
    "home is a link": info("home/example.org/bob", tarfile.SYMTYPE, linkname="alice"),
    "system uid": info(HOME + "/x", uid=7802),
    "user's account store": info("accounts/x", uid=20000),
    "setuid": info(HOME + "/x", mode=0o4755),
    "piece that is a file": info("queue"),
    "queue directory": info("queue/mess/5", tarfile.DIRTYPE),
    "queue link": info("queue/mess/8/77", tarfile.SYMTYPE, linkname="x"),
    "message twice": info("queue/mess/8/77"),
    "envelope twice": info("queue/info/8/77"),
    "envelope first": info("queue/info/1/24"),
    "message alone": info("queue/mess/1/24"),
    "wrong place in the queue": info("queue/mess/2/24"),
    "too long": info(HOME + "/" + "x/" * 1500 + "x"),
    "component too long": info(HOME + "/" + "x" * 256),
    "holes that overlap the next member": info(
        HOME + "/x",
        pax_headers={"GNU.sparse.map": "0,5120", "GNU.sparse.size": "5120"},
    ),
    "hole of no size": info(HOME + "/x", pax_headers={"GNU.sparse.map": "-5,-5"}),
    "time that is none": info(HOME + "/x", pax_headers={"mtime": "nan"}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_member(
    name: str,
    tar: bytes,
    empty: Layout,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = seen("/etc/cron.d") if os.path.isdir("/etc/cron.d") else {}
    hostile = rebuilt(tar, lambda member: True, (HOSTILE[name], b""))
    assert run(hostile, empty, monkeypatch) in ((1, 111) if "component" in name else (1,))
    said = capsys.readouterr().err
    assert said.startswith("postern: ") and said.count("\n") == 1
    assert os.listdir(empty.data) == []
    assert before == (seen("/etc/cron.d") if os.path.isdir("/etc/cron.d") else {})


def test_the_same_without_a_hostile_member_is_taken(
    tar: bytes, empty: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = rebuilt(tar, lambda member: True, (info(HOME + "/x", size=1), b"x"))
    assert run(more, empty, monkeypatch) == 0
    assert Path(empty.home("alice@example.org"), "x").read_bytes() == b"x"


def test_truncated_anywhere_is_refused(tar: bytes, empty: Layout) -> None:
    last = tar.rindex(backup_format.LAST.encode())
    # In the beginning, in a header, in a file, between members, in the last member.
    for length in (0, 100, 512, 5000, len(tar) // 2, len(tar) // 2 // 512 * 512, last, last + 600):
        with pytest.raises(FormatError):
            unpack(tar[:length], empty)


def test_truncated_says_so(
    tar: bytes, empty: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tar[: len(tar) // 2], empty, monkeypatch) == 1
    line = "postern: the backup ends too early: it is truncated, or was not finished\n"
    assert capsys.readouterr().err == line
    assert os.listdir(empty.data) == []


def unpack(content: bytes, places: Layout) -> None:
    stage = restore_volume.stage(places)
    os.mkdir(stage.root)
    try:
        restore_archive.unpack(io.BytesIO(content), stage, Progress())
    finally:
        shutil.rmtree(stage.root)


def test_changed_byte_is_found(tar: bytes, empty: Layout) -> None:
    for text in (b"waiting", b"Tb@far.example", b'"version"', b"$argon2id$v=19"):
        assert tar.count(text) >= 1
        damaged = tar.replace(text, text[:-1] + b"~", 1)
        with pytest.raises((FormatError, store.StoreError)):
            unpack(damaged, empty)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not a backup"),
        (
            b"\x28\xb5\x2f\xfd" + bytes(range(256)) * 8,
            "not a backup made by postern backup; is it compressed",
        ),
        (bytes(10240), "not a backup"),
    ],
    ids=["nothing", "compressed", "zeros"],
)
def test_no_backup_at_all(content: bytes, why: str, empty: Layout) -> None:
    with pytest.raises(FormatError, match=why):
        unpack(content, empty)


def test_other_archive_is_none(empty: Layout) -> None:
    result = io.BytesIO()
    with tarfile.open(fileobj=result, mode="w") as archive:
        archive.addfile(info("home", tarfile.DIRTYPE))
    with pytest.raises(FormatError, match="not a backup made by postern backup"):
        unpack(result.getvalue(), empty)


def test_format_of_the_future_is_refused(tar: bytes, empty: Layout) -> None:
    with pytest.raises(FormatError, match="format 2; this postern reads format 1"):
        unpack(rebuilt(tar, first={"format": 2}), empty)


def test_something_behind_the_end_is_refused(tar: bytes, empty: Layout) -> None:
    with pytest.raises(FormatError, match="something follows its end"):
        unpack(tar + b"x", empty)


def test_header_that_asks_for_all_memory_is_refused(tar: bytes, empty: Layout) -> None:
    huge = info("x", tarfile.XHDTYPE, size=1 << 32)
    with pytest.raises(FormatError, match="impossible size"):
        unpack(rebuilt(tar, lambda member: True, (huge, b"")), empty)


def test_headers_of_headers_without_end_are_refused(tar: bytes, empty: Layout) -> None:
    nested = (info("x", tarfile.XHDTYPE), b"")
    with pytest.raises(FormatError):
        unpack(rebuilt(tar, lambda member: True, *[nested] * 3000), empty)


def test_accounts_that_cannot_be_read_are_refused(tar: bytes, empty: Layout) -> None:
    with pytest.raises(FormatError, match="no accounts"):
        unpack(rebuilt(tar, lambda member: member.name != "accounts/accounts.json"), empty)


# The volume ---------------------------------------------------------------------------------


def test_volume_that_is_not_empty_stays_as_it_is(
    tar: bytes, empty: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(empty.data, "file").touch()
    assert run(tar, empty, monkeypatch) == 1
    assert "is not empty; --replace would" in capsys.readouterr().err
    assert os.listdir(empty.data) == ["file"]


def test_replaced_volume_has_nothing_of_the_old_one(
    volume: Layout, tar: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts.add(volume, "bob@example.org", HASH)
    put(volume.users + "/assign", b"old", Owner(0, 0))
    before = seen(volume.home("alice@example.org"))
    assert run(tar, volume, monkeypatch, "--replace") == 0
    assert set(store.load(volume).accounts) == {"alice@example.org"}
    assert not os.path.exists(volume.home("bob@example.org"))
    assert os.listdir(volume.users) == []
    assert seen(volume.home("alice@example.org")) == before
    assert not set(os.listdir(volume.data)) & set(restore_volume.OURS)


def test_bad_backup_replaces_nothing(
    volume: Layout, tar: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = seen(volume.data)
    assert run(tar[: len(tar) // 2], volume, monkeypatch, "--replace") == 1
    after = seen(volume.data)
    assert after == before


def test_running_appliance_is_not_replaced(volume: Layout, tar: bytes) -> None:
    os.mkdir(volume.queue + "/lock", 0o750)
    put(volume.queue + "/lock/sendmutex", b"", QMAILS)
    os.chown(volume.queue + "/lock", *QMAILQ)
    descriptor = os.open(volume.queue + "/lock/sendmutex", os.O_WRONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(VolumeError, match="the appliance is running"):
            restore.restore(volume, replace=True)
    finally:
        os.close(descriptor)


def test_two_restores_at_once(empty: Layout) -> None:
    with restore_volume.alone(empty):
        os.mkdir(f"{empty.data}/.restore")
        with pytest.raises(VolumeError, match="a restore is running"):
            restore.restore(empty, replace=False)
        with pytest.raises(VolumeError, match="a restore is running"):
            restore_volume.settle(empty)


def crash_at(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let the program die at the call of rename or fchown with this number."""
    left = count

    def counting(name: str) -> None:
        original: Callable[..., Any] = getattr(os, name)

        def call(*words: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return original(*words, **options)

        monkeypatch.setattr(os, name, call)

    for name in ("rename", "fchown"):
        counting(name)


class Killed(BaseException):
    """No cleaning up after this."""


@pytest.mark.parametrize("old", [False, True], ids=["empty", "replace"])
def test_crash_anywhere_leaves_the_old_volume_or_the_new_one(
    old: bool, volume: Layout, tar: bytes, empty: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = volume if old else empty
    marker = volume.users + "/assign"
    outcomes = set()
    count = 0
    while True:
        if old:
            put(marker, b"old", Owner(0, 0))
        with monkeypatch.context() as patch:
            give(tar, patch)
            crash_at(patch, count)
            patch.setattr(restore.restore_volume, "discard", crashed_discard)
            try:
                restore.restore(target, replace=old)
                break
            except Killed:
                pass
        said = restore_volume.settle(target)
        is_new = os.path.exists(target.store) and not os.path.exists(marker) if old else None
        if not old:
            is_new = os.path.exists(target.store)
            assert is_new or os.listdir(target.data) == []
        outcomes.add((is_new, said))
        assert store.load(target).accounts.keys() == (
            {"alice@example.org"} if is_new or old else set()
        )
        assert not set(os.listdir(target.data)) & set(restore_volume.OURS)
        if not old:
            for name in os.listdir(target.data):
                restore_volume.discard(f"{target.data}/{name}")
        count += 3 if not is_new else 1
    assert {is_new for is_new, _ in outcomes} == {False, True}


real_discard = restore_volume.discard


def crashed_discard(path: str) -> None:
    """Clean up only where nobody has died."""
    import sys

    if sys.exc_info()[0] is not Killed:
        real_discard(path)


def half_commit(places: Layout) -> None:
    os.rename(f"{places.data}/.restore", f"{places.data}/.restored")
    raise Killed


def test_restore_after_one_that_was_interrupted_at_its_end(
    tar: bytes, empty: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may hold another backup; what is there is only what the first one put there."""
    with monkeypatch.context() as patch:
        give(tar, patch)
        patch.setattr(restore_volume, "commit", half_commit)
        with pytest.raises(Killed):
            restore.restore(empty, replace=False)
    assert os.listdir(empty.data) == [".restored"]
    other = rebuilt(tar, lambda member: True, (info(HOME + "/second"), b""))
    assert run(other, empty, monkeypatch) == 0
    assert "finished a restore that was interrupted" in capsys.readouterr().err
    assert os.path.exists(empty.home("alice@example.org") + "/second")


def test_start_finishes_what_was_interrupted(tar: bytes, empty: Layout) -> None:
    stage = restore_volume.stage(empty)
    os.mkdir(stage.root)
    restore_archive.unpack(io.BytesIO(tar), stage, Progress())
    os.rename(stage.root, f"{empty.data}/.restored")
    assert restore_volume.settle(empty) == "finished a restore that was interrupted at its end"
    assert "alice@example.org" in store.load(empty).accounts
    assert restore_volume.settle(empty) == ""
    assert start.restore_volume is restore_volume


def test_files_of_others_are_removed_by_taking_them_back(
    empty: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the right to override, root enters and changes only what is root's."""
    top = f"{empty.data}/old"
    os.makedirs(top + "/a/b")
    put(top + "/a/b/c", b"", ALICE)
    os.symlink("/etc", top + "/a/link")
    for path in ("/a/b", "/a", ""):
        os.chown(top + path, *ALICE)
    scandir = os.scandir

    def only_own(path: Any) -> Any:
        if isinstance(path, str):
            assert os.lstat(path).st_uid == 0
        return scandir(path)

    monkeypatch.setattr(os, "scandir", only_own)
    restore_volume.discard(top)
    assert not os.path.lexists(top)
    assert os.path.isdir("/etc")


def test_terminal_and_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "isatty", lambda descriptor: descriptor == 0)
    assert restore.main(["restore"], {}) == 100
    assert "no backup from a terminal" in capsys.readouterr().err
    assert restore.main(["restore", "--help"], {}) == 0
    assert "--replace" in capsys.readouterr().out
    assert restore.main(["restore", "file"], {}) == 100


def test_volume_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="mount a volume"):
        restore.restore(Layout(str(tmp_path)), replace=False)


def test_store_is_checkpasswordds_to_read(
    tar: bytes, empty: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tar, empty, monkeypatch) == 0
    found = os.stat(empty.store)
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, CHECKPW.gid, 0o640)


def test_syncing_reports_errors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import ctypes

    class Library:
        def syncfs(self, descriptor: int) -> int:
            ctypes.set_errno(5)
            return -1

    monkeypatch.undo()
    restore_volume.sync(str(tmp_path))
    monkeypatch.setattr(ctypes, "CDLL", lambda *words, **options: Library())
    with pytest.raises(OSError, match="Input/output error"):
        restore_volume.sync(str(tmp_path))
