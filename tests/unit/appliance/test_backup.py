"""``postern backup``: what is in it, while others move and remove what it reads."""

import fcntl
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance import accounts, backup, backup_files, backup_format, backup_queue, data, store
from appliance.backup_files import Members, Tree
from appliance.backup_format import FormatError
from appliance.layout import QMAIL, QMAILQ, QMAILS, Layout, Owner

ALICE = Owner(20000, 20000)
HASH = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA"


@pytest.fixture
def volume(places: Layout) -> Layout:
    """A volume with a domain, an account and an empty queue."""
    os.mkdir(places.queue, 0o750)
    for place in backup_format.queue_places():
        os.mkdir(f"{places.queue}/{place.path}", place.mode)
        os.chown(f"{places.queue}/{place.path}", *place.owner)
    os.chown(places.queue, *QMAILQ)
    with store.locked(places):
        store.save(places, store.Store().with_domains("example.org"))
    accounts.add(places, "alice@example.org", HASH)
    return places


def put(path: str, content: bytes, owner: Owner = ALICE, mode: int = 0o600) -> str:
    """Make a file of owner's."""
    Path(path).write_bytes(content)
    os.chmod(path, mode)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    os.chown(path, *owner)
    return path


def queued(places: Layout, number: int, **contents: bytes) -> None:
    """Make files of a message, by the names of their directories."""
    for kind, content in contents.items():
        mode, owner = backup_format.queue_owner(kind)
        put(f"{places.queue}/{backup_format.queue_path(kind, number)}", content, owner, mode)


def written(places: Layout, path: Path) -> tuple[bool, dict[str, tarfile.TarInfo]]:
    """Back up to path; return whether it is complete, and its members."""
    with path.open("wb") as file:
        is_complete = backup.write(places, backup.Output(file.fileno()))
    with tarfile.open(path, encoding="utf-8", errors="surrogateescape") as archive:
        members = archive.getmembers()
    assert len({member.name for member in members}) == len(members)
    return is_complete, {member.name: member for member in members}


def contents(path: Path) -> dict[str, bytes]:
    found = {}
    with tarfile.open(path, encoding="utf-8", errors="surrogateescape") as archive:
        for member in archive:
            if file := archive.extractfile(member) if member.isfile() else None:
                found[member.name] = file.read()
    return found


class Copied:
    """Runs a copy in this process; what was copied, by name."""

    def __init__(self, copy: Callable[[Members], object]) -> None:
        buffer = io.BytesIO()
        self.members = Members(buffer.write)
        copy(self.members)
        buffer.write(bytes(1024))
        buffer.seek(0)
        self.files: dict[str, bytes] = {}
        self.names: list[str] = []
        with tarfile.open(fileobj=buffer, encoding="utf-8", errors="surrogateescape") as archive:
            for member in archive:
                self.names.append(member.name)
                if file := archive.extractfile(member) if member.isfile() else None:
                    self.files[member.name] = file.read()


def tree(path: str, name: str = "home/example.org/alice") -> Copied:
    return Copied(lambda members: Tree(members, lambda name: False).copy(path, name))


@pytest.fixture
def maildir(tmp_path: Path) -> Path:
    for part in ("tmp", "new", "cur"):
        (tmp_path / "Maildir" / part).mkdir(parents=True)
    return tmp_path / "Maildir"


def test_everything_that_must_not_be_lost_is_there(volume: Layout, tmp_path: Path) -> None:
    home = volume.home("alice@example.org")
    put(home + "/Maildir/new/1.a.host", b"one")
    put(home + "/Maildir/cur/2.b.host:2,S", b"two")
    put(home + "/Maildir/tmp/3.c.host", b"half")
    put(home + "/.qmail", b"./Maildir/\n")
    put(volume.srs_secrets, b"secret\n", Owner(0, 0))
    put(volume.key, b"key", Owner(0, 0), 0o400)
    os.mkdir(volume.dkim + "/example.org")
    put(volume.dkim + "/example.org/s.pem", b"pem", Owner(0, 7803), 0o640)
    put(volume.alias + "/Maildir/new/9.x", b"to postmaster", Owner(7790, 2108))
    queued(volume, 77, mess=b"waiting", info=b"Fa@example.org\0", remote=b"Tb@far.example\0")
    is_complete, members = written(volume, tmp_path / "b.tar")
    assert is_complete
    files = contents(tmp_path / "b.tar")
    names = list(members)
    assert (names[0], names[-1]) == (backup_format.FIRST, backup_format.LAST)
    assert json.loads(files[backup_format.FIRST])["format"] == 1
    below = "home/example.org/alice"
    assert {name: text for name, text in files.items() if name.startswith(("home", "queue"))} == {
        below + "/Maildir/new/1.a.host": b"one",
        below + "/Maildir/cur/2.b.host:2,S": b"two",
        below + "/.qmail": b"./Maildir/\n",
        "queue/mess/8/77": b"waiting",
        "queue/info/8/77": b"Fa@example.org\0",
        "queue/remote/8/77": b"Tb@far.example\0",
    }
    assert {"srs/secrets", "tls/key.pem", "dkim/example.org/s.pem", "accounts/accounts.json"} < set(
        files
    )
    assert files["alias/Maildir/new/9.x"] == b"to postmaster"
    assert "alias/.qmail-example:org-postmaster" in files
    assert "accounts/lock" not in files
    assert not [name for name in names if name.startswith(("users", "cache", "tmp"))]
    message = members[below + "/Maildir/new/1.a.host"]
    assert (message.uid, message.gid, message.mode) == (*ALICE, 0o600)
    assert (message.mtime, message.uname) == (1_700_000_000, "")
    assert members["tls/key.pem"].mode == 0o400
    # A delivery that begins while it is read finds its message in a mailbox, or in the queue.
    assert max(names.index(n) for n in names if n.startswith("queue")) < names.index("home")


def test_gnu_tar_can_read_it(volume: Layout, tmp_path: Path) -> None:
    odd = os.fsencode(volume.home("alice@example.org")) + b"/bin\xff\n" + b"\xc3\xa4" * 90
    put(os.fsdecode(odd), b"odd")
    written(volume, tmp_path / "b.tar")
    done = subprocess.run(
        ["tar", "--list", "--quoting-style=literal", "-f", tmp_path / "b.tar"],
        check=True,
        capture_output=True,
    )
    assert b"bin\xff\n" + b"\xc3\xa4" * 90 + b"\n" in done.stdout
    assert (tmp_path / "b.tar").stat().st_size % 10240 == 0


def test_file_that_nobody_else_may_read_when_it_is_written_in_the_container(
    volume: Layout, tmp_path: Path
) -> None:
    code = (
        "import sys; from appliance import backup; from appliance.layout import Layout;"
        "sys.exit(backup.main(['backup'], {}, Layout(sys.argv[1])))"
    )
    with (tmp_path / "b.tar").open("wb") as file:
        argv = [sys.executable, "-c", code, volume.root]
        subprocess.run(argv, stdout=file, check=True, timeout=60)
    assert stat.S_IMODE((tmp_path / "b.tar").stat().st_mode) == 0o600


def test_terminal_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "isatty", lambda descriptor: descriptor == 1)
    assert backup.main(["backup"], {}) == 100
    assert capsys.readouterr().err.startswith("postern: not to a terminal")


@pytest.mark.parametrize(("words", "status"), [(["--help"], 0), (["x"], 100), (["--x"], 100)])
def test_usage(words: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert backup.main(["backup", *words], {}) == status
    out, err = capsys.readouterr()
    assert "usage: postern backup" in out + err


def test_nobody_who_reads_ends_it_with_a_line(
    volume: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        backup.write(volume, backup.Output(writing))
    os.close(writing)


def test_volume_without_accounts_is_none(places: Layout) -> None:
    with pytest.raises(backup.BackupError, match="nothing to back up"):
        backup.write(places, backup.Output(2))


def test_owner_of_a_home_reads_it(volume: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root has no right to, in the container."""
    put(volume.home("alice@example.org") + "/.qmail", b"")
    seen: list[Owner] = []
    monkeypatch.setattr(backup, "_as", lambda owner, output, copy: bool(seen.append(owner) or 1))
    null = os.open(os.devnull, os.O_WRONLY)
    backup.write(volume, backup.Output(null))
    os.close(null)
    assert seen == [QMAILS, Owner(7790, 2108), ALICE]


def test_unreadable_file_is_named_and_the_rest_goes_on(
    volume: Layout, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    home = volume.home("alice@example.org")
    put(home + "/root's\n", b"", Owner(0, 0))
    put(home + "/.qmail", b"&bob\n")
    is_complete, members = written(volume, tmp_path / "b.tar")
    assert not is_complete
    assert "home/example.org/alice/.qmail" in members
    line = "postern: home/example.org/alice/root's\\n: left out: Permission denied\n"
    assert capfd.readouterr().err == line


def test_reader_that_is_killed_ends_the_backup(volume: Layout) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    with pytest.raises(backup.BackupError, match="uid 20000 could not be read"):
        backup._as(ALICE, backup.Output(null), lambda members: os.kill(os.getpid(), 9))
    os.close(null)


def once(monkeypatch: pytest.MonkeyPatch, name: str, when: str, then: Callable[[], object]) -> None:
    """Have something happen just before os.NAME is called on a path with WHEN in it."""
    original: Callable[..., Any] = getattr(os, name)
    happened: list[str] = []

    def call(path: Any, *rest: Any, **options: Any) -> Any:
        if when in str(path) and not happened:
            happened.append(str(path))
            then()
        return original(path, *rest, **options)

    monkeypatch.setattr(os, name, call)


def test_message_that_is_read_between_being_seen_and_copied(
    maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (maildir / "new/1.a").write_bytes(b"one")
    moved = maildir / "cur/1.a:2,S"
    once(monkeypatch, "lstat", "new/1.a", lambda: (maildir / "new/1.a").rename(moved))
    assert tree(str(maildir.parent)).files == {"home/example.org/alice/Maildir/cur/1.a:2,S": b"one"}


def test_message_that_gets_another_flag_between_being_seen_and_copied(
    maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its new name sorts before the old one: going on in the list would miss it."""
    (maildir / "cur/1.a:2,S").write_bytes(b"one")
    (maildir / "cur/2.b:2,S").write_bytes(b"two")
    moved = maildir / "cur/1.a:2,F"
    once(monkeypatch, "open", "cur/1.a", lambda: (maildir / "cur/1.a:2,S").rename(moved))
    assert set(tree(str(maildir.parent)).files.values()) == {b"one", b"two"}


def test_message_that_is_read_after_being_copied_is_there_once(
    maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (maildir / "new/1.a").write_bytes(b"one")
    moved = maildir / "cur/1.a:2,S"
    once(monkeypatch, "scandir", "cur", lambda: (maildir / "new/1.a").rename(moved))
    assert list(tree(str(maildir.parent)).files) == ["home/example.org/alice/Maildir/new/1.a"]


def test_message_that_is_back_in_new_after_that_was_read(
    maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (maildir / "cur/1.a:2,").write_bytes(b"one")
    back = maildir / "new/1.a"
    once(monkeypatch, "scandir", "cur", lambda: (maildir / "cur/1.a:2,").rename(back))
    assert list(tree(str(maildir.parent)).files.values()) == [b"one"]


def test_two_messages_of_one_name_are_both_there(maildir: Path) -> None:
    (maildir / "new/1.a").write_bytes(b"one")
    (maildir / "cur/1.a:2,S").write_bytes(b"two")
    assert sorted(tree(str(maildir.parent)).files.values()) == [b"one", b"two"]


def test_message_that_is_deleted_is_no_loss(maildir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (maildir / "new/1.a").write_bytes(b"one")
    once(monkeypatch, "open", "new/1.a", (maildir / "new/1.a").unlink)
    copied = tree(str(maildir.parent))
    assert copied.files == {}
    assert copied.members.is_complete


def test_endless_deliveries_do_not_hold_it_up(
    maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir, count = os.scandir, 0

    def deliver(path: str) -> Any:
        nonlocal count
        count += 1
        (maildir / f"new/{count}.a").write_bytes(b"")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deliver)
    tree(str(maildir.parent))
    assert count == 2 * backup_files.ROUNDS


def test_odd_kinds_of_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/inside").symlink_to("../file")
    (tmp_path / "outside").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_bytes(b"x")
    copied = tree(str(tmp_path))
    base = "home/example.org/alice"
    assert set(copied.names) == {base, base + "/sub", base + "/sub/inside", base + "/file"}
    assert not copied.members.is_complete
    said = capfd.readouterr().err
    assert "fifo: left out: no file\n" in said
    assert "outside: left out: a link that leads elsewhere\n" in said


def test_name_that_could_not_be_restored_is_left_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    deep = str(tmp_path)
    for _ in range(14):
        deep += "/" + "d" * 250
        os.mkdir(deep)
    copied = tree(str(tmp_path))
    assert max(map(len, copied.names)) <= backup_format.NAME_LIMIT
    assert "its name is too long" in capfd.readouterr().err


def test_file_that_shrinks_keeps_the_stream_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"x" * 2000)
    (tmp_path / "b").write_bytes(b"b")
    once(monkeypatch, "pread", "", lambda: os.truncate(tmp_path / "a", 10))
    copied = tree(str(tmp_path))
    assert copied.files["home/example.org/alice/a"] == b"x" * 10 + bytes(1990)
    assert copied.files["home/example.org/alice/b"] == b"b"
    assert not copied.members.is_complete


def test_hole_of_a_file_takes_no_room_and_no_time(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.write(b"begin")
        file.truncate(1 << 41)
        file.seek(1 << 40)
        file.write(b"middle")
    buffer = io.BytesIO()
    Tree(Members(buffer.write), lambda name: False).copy(str(tmp_path), "home/d/u")
    assert len(buffer.getvalue()) < 1 << 20
    (tmp_path / "tar").write_bytes(buffer.getvalue() + bytes(1024))
    listed = subprocess.run(
        ["tar", "-tvf", tmp_path / "tar"], check=True, capture_output=True, text=True
    )
    assert f" {1 << 41} " in listed.stdout


def test_file_of_nothing_but_a_hole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_files, "HOLES_FROM", 1 << 20)
    with (tmp_path / "a").open("wb") as file:
        file.truncate(1 << 20)
    assert tree(str(tmp_path)).files["home/example.org/alice/a"] == bytes(1 << 20)


def test_every_byte_of_a_message_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the file system says of holes in a file that has just been written."""
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    monkeypatch.setattr(os, "lseek", lambda *words: pytest.fail("asked for holes"))
    with (tmp_path / "a").open("rb") as file:
        found = os.stat_result((0o100600, 1, 1, 1, 0, 0, 100_000, 0, 0, 0))
        assert backup_files.data_of(file.fileno(), found) == [(0, 100_000)]


def test_file_that_is_a_link_by_now_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").write_bytes(b"x")

    def swap() -> None:
        (tmp_path / "a").unlink()
        (tmp_path / "a").symlink_to("/etc/passwd")

    once(monkeypatch, "open", "/a", swap)
    copied = tree(str(tmp_path))
    assert copied.files == {}
    assert not copied.members.is_complete
    assert "alice/a: left out: " in capfd.readouterr().err


def test_locked_mailbox_does_not_hold_it_up_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(backup_files.time, "sleep", waits.append)
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"x")
    with (tmp_path / "a").open() as one, (tmp_path / "b").open() as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        fcntl.flock(other, fcntl.LOCK_EX)
        assert set(tree(str(tmp_path)).files.values()) == {b"x"}
    assert 1 < sum(waits) < backup_files.LOCK_PATIENCE + 0.1


def test_mailbox_is_copied_when_the_delivery_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "Mailbox"
    path.write_bytes(b"From a\n\nhalf")
    with path.open("ab") as delivery:
        fcntl.flock(delivery, fcntl.LOCK_EX)

        def end(_seconds: float) -> None:
            delivery.write(b" and half\n\n")
            delivery.flush()
            fcntl.flock(delivery, fcntl.LOCK_UN)

        monkeypatch.setattr(backup_files.time, "sleep", end)
        copied = tree(str(tmp_path))
    assert copied.files["home/example.org/alice/Mailbox"] == b"From a\n\nhalf and half\n\n"


def test_no_bit_that_gives_rights_is_kept() -> None:
    head = backup_format.header("home/x", tarfile.REGTYPE, 0o106755, ALICE, 0)
    assert tarfile.TarInfo.frombuf(head, "utf-8", "strict").mode == 0o755


# The queue ----------------------------------------------------------------------------------


@pytest.fixture
def queue(volume: Layout, monkeypatch: pytest.MonkeyPatch) -> Iterator[Layout]:
    monkeypatch.chdir(volume.queue)
    yield volume


def queue_copy() -> dict[str, bytes]:
    return {
        name.removeprefix("queue/"): content
        for name, content in Copied(backup_queue.copy).files.items()
    }


def test_what_is_not_queued_is_left_out(queue: Layout) -> None:
    queued(queue, 1, mess=b"being queued")
    queued(queue, 2, mess=b"being queued")
    put(queue.queue + "/intd/2", b"u1\0p1\0", QMAILQ, 0o644)
    queued(queue, 3, info=b"Fno mess\0", local=b"Ta@example.org\0")
    queued(queue, 4, bounce=b"no mess either\n\n")
    assert queue_copy() == {}


def test_queued_message_goes_without_what_is_made_from_its_envelope(queue: Layout) -> None:
    queued(queue, 24, mess=b"m", todo=b"u1\0p1\0Fa\0Tb\0", info=b"Fa\0", local=b"Tb\0")
    assert queue_copy() == {"mess/1/24": b"m", "todo/24": b"u1\0p1\0Fa\0Tb\0"}


def test_preprocessed_message_has_all_its_files(queue: Layout) -> None:
    parts = {"mess": b"m", "info": b"Fa\0", "local": b"Db\0", "remote": b"Tc\0", "bounce": b"b"}
    queued(queue, 24, **parts)
    expected = {backup_format.queue_path(kind, 24): text for kind, text in parts.items()}
    assert queue_copy() == expected


def test_message_that_is_preprocessed_between_two_looks(
    queue: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued(queue, 24, mess=b"m", todo=b"u1\0p1\0Fa\0Tb\0")

    def preprocess() -> None:
        queued(queue, 24, info=b"Fa\0", local=b"Tb\0")
        os.unlink("todo/24")

    once(monkeypatch, "open", "todo/24", preprocess)
    assert queue_copy() == {"mess/1/24": b"m", "info/1/24": b"Fa\0", "local/1/24": b"Tb\0"}


def test_recipient_marked_as_done_has_its_failure_noted(
    queue: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued(queue, 24, mess=b"m", info=b"Fa\0", local=b"Tb\0")

    def fail() -> None:
        queued(queue, 24, bounce=b"<b>: no\n\n")
        queued(queue, 24, local=b"Db\0")

    once(monkeypatch, "open", "local/1/24", fail)
    assert queue_copy()["bounce/24"] == b"<b>: no\n\n"


def test_message_that_ends_while_it_is_read_is_not_there_by_halves(
    queue: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued(queue, 24, mess=b"m", info=b"Fa\0", local=b"Tb\0")

    def end() -> None:
        for name in ("local/1/24", "info/1/24", "mess/1/24"):
            os.unlink(name)

    once(monkeypatch, "open", "remote/1/24", end)
    assert queue_copy() == {}


def test_message_that_goes_on_as_another_is_followed(
    queue: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forward is queued, and then the message is over: when one is read, or before."""
    queued(queue, 24, mess=b"m", info=b"Fa\0", local=b"Tb\0")

    def forward() -> None:
        queued(queue, 3, mess=b"fwd: m", todo=b"u1\0p1\0Fa\0Tc\0")
        for name in ("local/1/24", "info/1/24", "mess/1/24"):
            os.unlink(name)

    once(monkeypatch, "open", "mess/1/24", forward)
    assert queue_copy() == {"mess/3/3": b"fwd: m", "todo/3": b"u1\0p1\0Fa\0Tc\0"}


def test_envelope_of_another_message_with_the_same_number_is_not_taken(
    queue: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued(queue, 24, mess=b"old", info=b"Fold\0", local=b"Told\0")

    def replace() -> None:
        for name in ("local/1/24", "info/1/24"):
            os.unlink(name)
        os.rename("mess/1/24", "pid/kept")  # so that its inode is not used again
        queued(queue, 24, mess=b"new", info=b"Fnew\0", local=b"Tnew\0")

    once(monkeypatch, "open", "info/1/24", replace)
    assert queue_copy() == {"mess/1/24": b"new", "info/1/24": b"Fnew\0", "local/1/24": b"Tnew\0"}


# Names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["/home/x", "home/../x", "home//x", "home/.", "", "etc/passwd", "..", "home/x\0"]
)
def test_name_that_leads_elsewhere(name: str) -> None:
    with pytest.raises(FormatError):
        backup_format.check_name(name)


@pytest.mark.parametrize(
    ("name", "target", "inside"),
    [
        ("home/d/u/a", "b", True),
        ("home/d/u/x/a", "../b", True),
        ("home/d/u/a", "../u/b", True),
        ("home/d/u/a", "../v/b", False),
        ("home/d/u/a", "/home/d/u/b", False),
        ("home/d/u/x/a", "../../../../etc", False),
        ("home/d/u", "v", False),
        ("home/d/u/a", "", False),
        ("dkim/d/a", "../e/b", True),
        ("dkim/a", "../tls/key.pem", False),
    ],
)
def test_links(name: str, target: str, inside: bool) -> None:
    assert backup_format.is_inside(name, target) is inside


@pytest.mark.parametrize(
    "name",
    ["queue/mess/1/25", "queue/mess/25", "queue/todo/1/24", "queue/lock/trigger", "queue/todo/x"]
    + ["queue/mess/1/024", "queue/info/1/24/x", "queue/intd/24", "queue/mess/1/٢٤"],
)
def test_no_file_of_a_queue(name: str) -> None:
    with pytest.raises(FormatError):
        backup_format.queue_file(name)


def test_queue_is_laid_out_as_the_mailer_does() -> None:
    """The appliance knows of the mailer's layout what the mailer says of it."""
    layout = pytest.importorskip("pyqmail.queue.layout")
    known = {"qmailq": QMAILQ, "qmails": QMAILS}
    expected = {
        (entry.path, entry.mode, known[entry.owner])
        for entry in layout.entries()
        if stat.S_ISDIR(entry.kind) and entry.path not in (".", "lock")
    }
    assert set(backup_format.queue_places()) == expected
    assert backup_format.SPLIT == layout.SPLIT
    for kind in ("mess", "info", "local", "remote"):
        assert backup_format.queue_path(kind, 12345) == layout.split(kind, 12345)
    assert {QMAILQ.gid, QMAILS.gid} == {QMAIL}


@pytest.mark.parametrize(
    ("piece", "owner", "allowed"),
    [
        ("home", ALICE, True),
        ("home", Owner(0, 0), True),
        ("home", Owner(20000, 0), True),
        ("home", QMAILQ, False),
        ("home", Owner(20000, QMAIL), False),
        ("dkim", Owner(0, 7803), True),
        ("tls", Owner(0, 7803), False),
        ("tls", ALICE, False),
        ("alias", Owner(7790, 2108), True),
        ("accounts", Owner(7802, 7802), False),
    ],
)
def test_owners(piece: str, owner: Owner, allowed: bool) -> None:
    assert backup_format.may_own(piece, owner) is allowed


def test_home_is_made_before_the_account_is_known(volume: Layout) -> None:
    """So an account that is in the backup has its home there: the accounts are read first."""
    assert backup_format.SMALL[0] == "accounts"
    data.make_home(volume, "alice@example.org", ALICE)
