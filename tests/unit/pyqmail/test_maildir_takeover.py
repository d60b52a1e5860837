"""A Maildir that netqmail, Courier and vpopmail have filled: delivered into, fetched, measured."""

import os
from pathlib import Path

import pytest

from pyqmail import maildir, maildirsize
from pyqmail.pop3d import program

# Names as qmail-local 1.03 and 1.06, Courier and a Dovecot before us have given them.
MESSAGES = {
    "new/1010101010.815.mx.example.org": b"Return-Path: <a@b>\nSubject: one\n\nfirst\n",
    "new/1010101011.M12P47V0000000000000801I0000BEEF_0.mx,S=30": b"Subject: two\n\n.\n..\nno end",
    "cur/1010101009.816.mx.example.org:2,S": b"Subject: three\n\nread\n",
    "cur/1010101008.P1Q2.mx.example.org,S=24,W=26:2,FRS": b"Subject: four\n\n",
    "cur/1010101007.817.mx.example.org:2,": b"Subject: five\n\n",
    "cur/1010101006.818.mx.example.org:1,x": b"Subject: six\n\n",
}
OTHER = {"tmp/1010101012.819.mx.example.org": b"half", "courierimapuiddb": b"1 1 6\n"}


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "Maildir"
    for name in ("tmp", "new", "cur", ".Sent/tmp", ".Sent/new", ".Sent/cur"):
        (path / name).mkdir(parents=True, mode=0o700)
    for name, text in (MESSAGES | OTHER).items():
        (path / name).write_bytes(text)
    (path / ".Sent/cur/1.x:2,S").write_bytes(b"sent")
    for when, name in enumerate(MESSAGES):
        os.utime(path / name, (1_010_101_010 - when, 1_010_101_010 - when))
    monkeypatch.chdir(tmp_path)
    return path


def content(box: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(box)): path.read_bytes()
        for part in ("new", "cur", "tmp")
        for path in (box / part).iterdir()
    }


def fetch(box: Path, script, monkeypatch, *commands: bytes) -> bytes:
    channel = script([command + b"\r\n" for command in (*commands, b"QUIT")])
    monkeypatch.setattr(program, "Channel", lambda *_: channel)
    os.chdir(box.parent)
    assert program.main(["qmail-pop3d", "Maildir"], {}) == 0
    return channel.output


def test_every_message_can_be_fetched_whatever_its_name(box: Path, script, monkeypatch) -> None:
    by_age = sorted(MESSAGES, key=lambda name: (box / name).stat().st_mtime)
    output = fetch(box, script, monkeypatch, b"UIDL", *(b"RETR %d" % n for n in range(1, 7)))
    for number, name in enumerate(by_age, 1):
        unique = Path(name).name.partition(":")[0]
        assert b"\r\n%d %s\r\n" % (number, unique.encode()) in output
        wire = MESSAGES[name].replace(b"\n.", b"\n..").replace(b"\n", b"\r\n")
        end = b"" if wire.endswith(b"\r\n") else b"\r\n"
        assert b"+OK \r\n" + wire + end + b".\r\n" in output
    after = content(box)
    for name, text in MESSAGES.items():
        part, _, file = name.partition("/")
        assert after.pop(f"cur/{file}:2,S" if part == "new" else name) == text
    assert set(after) <= set(OTHER)  # nothing else has appeared


def test_mail_is_added_and_nothing_else_changes(box: Path, tmp_path: Path) -> None:
    before = content(box)
    (tmp_path / "message").write_bytes(b"Subject: new\n\n")
    source = os.open(tmp_path / "message", os.O_RDONLY)
    name = maildir.deliver(os.fsencode(box), b"Return-Path: <>\n", source)
    os.close(source)
    after = content(box)
    assert after.pop("new/" + os.fsdecode(name)) == b"Return-Path: <>\nSubject: new\n\n"
    assert after == before
    assert (box / "courierimapuiddb").read_bytes() == b"1 1 6\n"


@pytest.mark.parametrize(
    "text",
    [
        b"100000S,100C\n%d 7\n",
        b"100000S\n        %d            7\n          50            1\n         -50           -1\n",
    ],
    ids=["courier", "vpopmail"],
)
def test_a_quota_that_others_have_counted_goes_on_to_be_counted(
    box: Path, tmp_path: Path, text: bytes
) -> None:
    (box / "maildirsize").write_bytes(text % 600)
    (tmp_path / "message").write_bytes(b"x" * 1000)
    source = os.open(tmp_path / "message", os.O_RDONLY)
    maildir.deliver(os.fsencode(box), b"", source)
    os.close(source)
    counted = maildirsize.parse((box / "maildirsize").read_bytes())
    assert counted is not None
    assert counted.quota.bytes == 100_000
    assert counted.usage == (1600, 8)


def test_a_wrong_count_of_others_is_found_out_before_mail_is_refused(
    box: Path, tmp_path: Path
) -> None:
    (box / "maildirsize").write_bytes(b"20000S\n19990 7\n5 1\n")
    (tmp_path / "message").write_bytes(b"x" * 1000)
    source = os.open(tmp_path / "message", os.O_RDONLY)
    maildir.deliver(os.fsencode(box), b"", source)
    os.close(source)
    counted = maildirsize.parse((box / "maildirsize").read_bytes())
    assert counted is not None and counted.usage.messages == 8
    assert counted.usage.bytes < 2000


def test_a_count_that_was_cut_short_is_made_anew(box: Path, tmp_path: Path) -> None:
    (box / "maildirsize").write_bytes(b"100000S,100C\n600 7")
    (tmp_path / "message").write_bytes(b"x" * 1000)
    for _ in range(2):
        source = os.open(tmp_path / "message", os.O_RDONLY)
        maildir.deliver(os.fsencode(box), b"", source)
        os.close(source)
    descriptor = os.open(box, os.O_PATH)
    counted = maildirsize.parse((box / "maildirsize").read_bytes())
    assert counted is not None
    assert counted.usage == maildirsize.measure(descriptor)
    os.close(descriptor)
