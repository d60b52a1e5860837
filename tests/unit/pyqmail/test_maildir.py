"""Maildir: making one, and delivering into one."""

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyqmail import maildir


@pytest.fixture(autouse=True)
def process_state() -> Iterator[None]:
    """Give the umask and the directory back that programs, rightly, change."""
    umask, here = os.umask(0o022), os.getcwd()
    os.umask(umask)
    yield
    os.umask(umask)
    os.chdir(here)


@pytest.fixture
def box(tmp_path: Path) -> Path:
    maildir.make(os.fsencode(tmp_path / "Maildir"))
    return tmp_path / "Maildir"


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "message"
    path.write_bytes(b"Subject: x\n\n" + b"line\n" * 40_000)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def entries(box: Path) -> dict[str, list[str]]:
    return {name: sorted(os.listdir(box / name)) for name in ("tmp", "new", "cur")}


def test_a_maildir_is_private(box: Path) -> None:
    assert sorted(os.listdir(box)) == ["cur", "new", "tmp"]
    for path in (box, *(box / name for name in ("tmp", "new", "cur"))):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_new_maildir_is_synced_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    maildir.make(os.fsencode(tmp_path / "Maildir"))
    assert synced == [(tmp_path / "Maildir").stat().st_ino, tmp_path.stat().st_ino]


def test_a_message_is_in_new_and_nowhere_else(box: Path, source: int) -> None:
    name = maildir.deliver(os.fsencode(box), b"Return-Path: <>\n", source)
    assert entries(box) == {"tmp": [], "new": [os.fsdecode(name)], "cur": []}
    delivered = (box / "new" / os.fsdecode(name)).read_bytes()
    assert delivered == b"Return-Path: <>\nSubject: x\n\n" + b"line\n" * 40_000


def test_an_empty_message_has_its_heading(box: Path) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    name = maildir.deliver(os.fsencode(box), b"Return-Path: <>\n", null)
    os.close(null)
    assert (box / "new" / os.fsdecode(name)).read_bytes() == b"Return-Path: <>\n"


def test_the_offset_of_the_message_does_not_matter_and_stays(box: Path, source: int) -> None:
    os.lseek(source, 7, os.SEEK_SET)
    maildir.deliver(os.fsencode(box), b"", source)
    assert os.lseek(source, 0, os.SEEK_CUR) == 7
    (file,) = (box / "new").iterdir()
    assert file.read_bytes().startswith(b"Subject")


def test_two_messages_of_one_process_have_different_names(box: Path, source: int) -> None:
    names = {maildir.deliver(os.fsencode(box), b"", source) for _ in range(20)}
    assert len(names) == len(os.listdir(box / "new")) == 20


def test_a_host_name_with_a_slash_or_a_colon_makes_a_name_all_the_same() -> None:
    name = maildir.unique_name(1_234_000_005_678, 99, 3, b"a/b:c")
    assert name == rb"1234.M000005P99Q3.a\057b\072c"


def test_a_missing_maildir_is_told_from_trouble(tmp_path: Path, source: int) -> None:
    with pytest.raises(maildir.NoMaildirError):
        maildir.deliver(os.fsencode(tmp_path / "none"), b"", source)
    (tmp_path / "half" / "tmp").mkdir(parents=True)
    with pytest.raises(maildir.MaildirError) as error:
        maildir.deliver(os.fsencode(tmp_path / "half"), b"", source)
    assert not isinstance(error.value, maildir.NoMaildirError)
    assert os.listdir(tmp_path / "half" / "tmp") == []


def test_a_message_that_cannot_be_read_leaves_nothing(box: Path) -> None:
    directory = os.open(box, os.O_RDONLY)
    with pytest.raises(maildir.ReadError):
        maildir.deliver(os.fsencode(box), b"x", directory)
    os.close(directory)
    assert entries(box) == {"tmp": [], "new": [], "cur": []}


def test_a_pipe_cannot_be_delivered(box: Path) -> None:
    reading, writing = os.pipe()
    with pytest.raises(maildir.ReadError):
        maildir.deliver(os.fsencode(box), b"x", reading)
    os.close(reading)
    os.close(writing)
    assert entries(box)["new"] == []


def test_a_failed_write_leaves_nothing(
    box: Path, source: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(maildir.MaildirError):
        maildir.deliver(os.fsencode(box), b"x", source)
    assert entries(box) == {"tmp": [], "new": [], "cur": []}


def test_a_message_is_synced_before_it_is_seen_and_the_directory_after(
    box: Path, source: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []
    real = os.fsync

    def watch(fd: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"
        seen.append((kind, len(os.listdir(box / "new"))))
        real(fd)

    monkeypatch.setattr(os, "fsync", watch)
    maildir.deliver(os.fsencode(box), b"x", source)
    assert seen == [("file", 0), ("directory", 1)]


def test_without_hard_links_the_message_is_renamed(
    box: Path, source: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    name = maildir.deliver(os.fsencode(box), b"x", source)
    assert entries(box) == {"tmp": [], "new": [os.fsdecode(name)], "cur": []}


def test_after_the_deadline_nothing_is_left(
    box: Path, source: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtake(_fd: int) -> None:
        os.kill(os.getpid(), signal.SIGALRM)

    monkeypatch.setattr(os, "fsync", overtake)
    with pytest.raises(maildir.DeadlineError):
        maildir.deliver(os.fsencode(box), b"x", source)
    assert entries(box) == {"tmp": [], "new": [], "cur": []}
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_maildirmake_makes_one(tmp_path: Path) -> None:
    assert maildir.maildirmake(["maildirmake", str(tmp_path / "M")], {}) == 0
    assert sorted(os.listdir(tmp_path / "M")) == ["cur", "new", "tmp"]


def test_maildirmake_wants_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert maildir.maildirmake(["maildirmake"], {}) == 100
    assert capsys.readouterr().err.startswith("maildirmake: usage: maildirmake")


def test_maildirmake_says_what_it_could_not_make(
    box: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert maildir.maildirmake(["maildirmake", str(box)], {}) == 111
    assert capsys.readouterr().err == f"maildirmake: fatal: unable to mkdir {box}: File exists\n"


def test_maildirmake_sets_a_quota_on_a_new_and_on_an_old_one(tmp_path: Path) -> None:
    name = str(tmp_path / "M")
    for quota, first in (("5000S,9C", b"5000S,9C\n0 0\n"), ("7000S", b"7000S\n0 0\n")):
        assert maildir.maildirmake(["maildirmake", "-q", quota, name], {}) == 0
        assert (tmp_path / "M" / "maildirsize").read_bytes() == first
    assert maildir.maildirmake(["maildirmake", "-q", "lots", name], {}) == 100
