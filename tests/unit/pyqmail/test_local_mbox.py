"""Delivery into an mbox file."""

import fcntl
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyqmail.local import mbox
from pyqmail.local.failure import Failure


def message(tmp_path: Path, content: bytes) -> int:
    path = tmp_path / "message"
    path.write_bytes(content)
    return os.open(path, os.O_RDONLY)


def test_a_message_is_appended_with_its_heading_and_a_blank_line(tmp_path: Path) -> None:
    box = tmp_path / "Mailbox"
    box.write_bytes(b"From before\n\nold\n\n")
    source = message(tmp_path, b"Subject: x\n\nFrom here\n>From there\nFrom\n>> From\nend")
    mbox.deliver(os.fsencode(box), b"From sam date\nReturn-Path: <sam>\n", source)
    os.close(source)
    assert box.read_bytes() == (
        b"From before\n\nold\n\nFrom sam date\nReturn-Path: <sam>\n"
        b"Subject: x\n\n>From here\n>>From there\nFrom\n>> From\nend\n\n"
    )


def test_a_new_mailbox_is_private(tmp_path: Path) -> None:
    box = tmp_path / "Mailbox"
    source = message(tmp_path, b"x\n")
    mbox.deliver(os.fsencode(box), b"From s d\n", source)
    os.close(source)
    assert box.stat().st_mode & 0o777 == 0o600


def naive(content: bytes) -> bytes:
    lines = content.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return b"".join(
        (b">" if line.lstrip(b">").startswith(b"From ") else b"") + line + b"\n" for line in lines
    )


@given(st.lists(st.sampled_from([b"From ", b"F", b"rom ", b">", b"\n", b"x", b"\nFrom y"])))
def test_quoting_does_not_depend_on_how_the_message_is_cut(pieces: list[bytes]) -> None:
    assert b"".join(mbox.quoted(pieces)) == naive(b"".join(pieces))


def test_a_line_without_end_is_not_held_in_memory() -> None:
    line = b"From " + b"x" * 300_000
    blocks = list(mbox.quoted(line[i : i + 10_000] for i in range(0, len(line), 10_000)))
    assert b"".join(blocks) == b">" + line + b"\n"
    assert max(map(len, blocks)) < 3 * mbox.LINE_LIMIT


def test_what_was_written_is_taken_back_when_the_message_cannot_be_read(tmp_path: Path) -> None:
    box = tmp_path / "Mailbox"
    box.write_bytes(b"old\n")
    directory = os.open(tmp_path, os.O_RDONLY)  # pread on it fails
    with pytest.raises(Failure) as failure:
        mbox.deliver(os.fsencode(box), b"From s d\n", directory)
    os.close(directory)
    assert failure.value.status == 111
    assert failure.value.text.startswith(b"Unable to read message: ")
    assert box.read_bytes() == b"old\n"


def test_a_file_that_stays_locked_defers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mbox, "LOCK_DEADLINE", 1)
    box = tmp_path / "Mailbox"
    box.write_bytes(b"old\n")
    source = message(tmp_path, b"x\n")
    with box.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Failure) as failure:
            mbox.deliver(os.fsencode(box), b"From s d\n", source)
    os.close(source)
    assert failure.value.text == b"File has been locked for 30 seconds straight. (#4.3.0)"
    assert box.read_bytes() == b"old\n"


def test_a_full_disk_defers_and_says_so() -> None:
    source = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(Failure) as failure:
        mbox.deliver(b"/dev/full", b"From s d\n", source)
    os.close(source)
    assert failure.value.status == 111
    assert failure.value.text == (b"Unable to write /dev/full: No space left on device. (#4.3.0)")


@pytest.mark.parametrize(
    ("there", "separator"),
    [
        (b"From x\n\nhalf a li", b"\n\n"),
        (b"From x\n\na line\n", b"\n"),
        (b"From x\n\nwhole\n\n", b""),
        (b"F", b"\n\n"),
    ],
)
def test_a_message_after_a_torn_one_is_a_message_of_its_own(
    tmp_path: Path, there: bytes, separator: bytes
) -> None:
    box = tmp_path / "Mailbox"
    box.write_bytes(there)
    source = message(tmp_path, b"x\n")
    mbox.deliver(os.fsencode(box), b"From s d\n", source)
    os.close(source)
    assert box.read_bytes() == there + separator + b"From s d\nx\n\n"


def test_the_name_of_a_new_mailbox_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino) or fsync(fd))
    box = tmp_path / "Mailbox"
    for directories in (1, 0):
        synced.clear()
        source = message(tmp_path, b"x\n")
        mbox.deliver(os.fsencode(box), b"From s d\n", source)
        os.close(source)
        assert synced == [box.stat().st_ino, tmp_path.stat().st_ino][: 1 + directories]
