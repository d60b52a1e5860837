"""The Maildir++ quota."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyqmail import maildir, maildirsize
from pyqmail.maildirsize import Content, Quota, Usage


@pytest.fixture
def box(tmp_path: Path) -> Path:
    maildir.make(os.fsencode(tmp_path / "Maildir"))
    return tmp_path / "Maildir"


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "message"
    path.write_bytes(b"x" * 90)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def deliver(box: Path, source: int) -> str:
    return os.fsdecode(maildir.deliver(os.fsencode(box), b"0123456789", source))


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        (b"1000S,5C", Quota(1000, 5)),
        (b"5C,1000S", Quota(1000, 5)),
        (b"1000S", Quota(1000, 0)),
        (b"5C", Quota(0, 5)),
        (b"0S,0C", Quota(0, 0)),
        (b"", None),
        (b"1000", None),
        (b"S", None),
        (b"-1S", None),
        (b"1000K", None),
    ],
)
def test_quota_line(text: bytes, quota: Quota | None) -> None:
    assert maildirsize.parse_quota(text) == quota


def test_lines_are_summed_up() -> None:
    assert maildirsize.parse(b"1000S\n  300 3\n-100 -1\n") == Content(
        Quota(1000, 0), Usage(200, 2), 2
    )
    assert maildirsize.parse(b"1000S\n300\n") is None
    assert maildirsize.parse(b"1000S\nx y\n") is None


def test_size_in_a_file_name() -> None:
    assert maildirsize.size_in_name(b"1.M2P3.host,S=123:2,S") == 123
    assert maildirsize.size_in_name(b"1.M2P3.host,S=123,W=126:2,S") == 123
    assert maildirsize.size_in_name(b"1.M2P3.host:2,S") is None


def test_without_the_file_there_is_no_quota_and_no_size_in_the_name(box: Path, source: int) -> None:
    assert ",S=" not in deliver(box, source)
    assert not (box / "maildirsize").exists()


def test_a_delivery_is_recorded_and_its_name_has_the_size(box: Path, source: int) -> None:
    (box / "maildirsize").write_bytes(b"1000S\n0 0\n")
    assert deliver(box, source).endswith(",S=100")
    assert (box / "maildirsize").read_bytes() == b"1000S\n0 0\n100 1\n"


def test_over_quota_nothing_is_delivered(box: Path, source: int) -> None:
    (box / "maildirsize").write_bytes(b"1000S\n901 1\n")
    with pytest.raises(maildir.OverQuotaError):
        deliver(box, source)
    assert os.listdir(box / "new") == os.listdir(box / "tmp") == []


def test_the_last_message_that_fits_is_delivered(box: Path, source: int) -> None:
    (box / "maildirsize").write_bytes(b"1000S\n900 1\n")
    deliver(box, source)


def test_a_limit_of_messages(box: Path, source: int) -> None:
    (box / "maildirsize").write_bytes(b"2C\n0 0\n")
    deliver(box, source)
    deliver(box, source)
    with pytest.raises(maildir.OverQuotaError):
        deliver(box, source)


def test_messages_removed_by_a_program_without_quota_make_room(box: Path, source: int) -> None:
    (box / "maildirsize").write_bytes(b"250S\n0 0\n")
    names = [deliver(box, source), deliver(box, source)]
    os.unlink(box / "new" / names[0])
    deliver(box, source)  # the sum says 200; only a look at the directories says 100
    assert (box / "maildirsize").read_bytes() == b"250S\n100 1\n100 1\n"


def test_a_sum_made_just_now_is_believed(box: Path, source: int) -> None:
    (box / "maildirsize").write_bytes(b"250S\n200 2\n")
    with pytest.raises(maildir.OverQuotaError):
        deliver(box, source)


def test_an_old_sum_is_made_anew(box: Path, source: int) -> None:
    path = box / "maildirsize"
    path.write_bytes(b"250S\n200 2\n")
    old = time.time() - 1000
    os.utime(path, (old, old))
    deliver(box, source)
    assert path.read_bytes() == b"250S\n0 0\n100 1\n"


def test_a_long_file_is_written_anew(box: Path, source: int) -> None:
    path = box / "maildirsize"
    path.write_bytes(b"100000S\n" + b"1 1\n" * 2000)
    deliver(box, source)
    assert path.read_bytes() == b"100000S\n0 0\n100 1\n"


def test_a_damaged_sum_is_made_anew_and_a_damaged_quota_is_none(box: Path, source: int) -> None:
    path = box / "maildirsize"
    path.write_bytes(b"1000S\ngarbage\n")
    deliver(box, source)
    assert path.read_bytes() == b"1000S\n0 0\n100 1\n"
    path.write_bytes(b"garbage\n")
    deliver(box, source)
    assert path.read_bytes() == b"garbage\n"


def test_folders_count_but_trash_and_deleted_messages_do_not(box: Path) -> None:
    for folder in (".Sent", ".Trash"):
        for part in ("new", "cur"):
            (box / folder / part).mkdir(parents=True)
    (box / "cur" / "1.a:2,S").write_bytes(b"x" * 10)
    (box / "cur" / "2.a,S=20:2,").write_bytes(b"the name counts")
    (box / "cur" / "3.a:2,ST").write_bytes(b"x" * 1000)
    (box / ".Sent" / "cur" / "4.a").write_bytes(b"x" * 40)
    (box / ".Trash" / "cur" / "5.a").write_bytes(b"x" * 1000)
    maildirsize.set_quota(os.fsencode(box), Quota(5000, 50))
    assert (box / "maildirsize").read_bytes() == b"5000S,50C\n70 3\n"


def test_who_removes_messages_can_say_so(box: Path) -> None:
    maildirsize.removed(os.fsencode(box), 10, 1)
    assert not (box / "maildirsize").exists()
    (box / "maildirsize").write_bytes(b"1000S\n100 2\n")
    maildirsize.removed(os.fsencode(box), 60, 1)
    assert (box / "maildirsize").read_bytes() == b"1000S\n100 2\n-60 -1\n"
