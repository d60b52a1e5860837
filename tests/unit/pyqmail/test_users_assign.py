"""users/assign, users/cdb, and looking an address up there; morercpthosts."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyqmail.users import lookup, newmrh, newu
from pyqmail.users.lookup import Assignment
from ucspi import cdb

ASSIGN = b"""\
=joe.Shmoe:joe:503:78:/home/joe:::
+:alias:7790:2108:/var/qmail/alias:-::
+joe-:joe:507:100:/home/joe:-::
=joe:joe:507:100:/home/joe:::
=joe:second:1:1:/home/second:::
+joe-list+:lists:600:600:/home/lists:-:joe-:
.
everything after the dot is ignored
"""


@pytest.fixture(autouse=True)
def process_state() -> Iterator[None]:
    """Give the umask and the directory back that programs, rightly, change."""
    umask, here = os.umask(0o022), os.getcwd()
    os.umask(umask)
    yield
    os.umask(umask)
    os.chdir(here)


class Table(dict[bytes, bytes]):
    """A database in memory; the first record of a key counts, as in a cdb."""

    def __init__(self, assign: bytes = ASSIGN) -> None:
        super().__init__()
        for key, data in newu.records(assign):
            self.setdefault(key, data)


def test_records_are_netqmails() -> None:
    assert newu.records(ASSIGN) == [
        (b"!joe.shmoe\0", b"joe\x00503\x0078\0/home/joe\0\0"),
        (b"!", b"alias\x007790\x002108\0/var/qmail/alias\0-\0"),
        (b"!joe-", b"joe\x00507\x00100\0/home/joe\0-\0"),
        (b"!joe\0", b"joe\x00507\x00100\0/home/joe\0\0"),
        (b"!joe\0", b"second\x001\x001\0/home/second\0\0"),
        (b"!joe-list+", b"lists\x00600\x00600\0/home/lists\0-\0joe-"),
        (b"", b"-+"),
    ]


@pytest.mark.parametrize(
    "assign",
    [
        b"",
        b"=joe:joe:507:100:/home/joe:::\n",  # no last line
        b"=joe:joe:507:100:/home/joe::\n.\n",  # a field short
        b":joe:507:100:/home/joe:::\n.\n",
        b"=joe\n.\n",
        b"\n.\n",
        b"=jo\0e:joe:507:100:/home/joe:::\n.\n",
    ],
)
def test_a_damaged_assign_file_is_refused(assign: bytes) -> None:
    with pytest.raises(newu.FormatError):
        newu.records(assign)


def test_fields_after_the_sixth_are_for_later_versions() -> None:
    (record, _) = newu.records(b"=a:u:1:2:/h:-:x:more:fields\n.\n")
    assert record == (b"!a\0", b"u\x001\x002\0/h\0-\0x")


ALIAS = Assignment(b"alias", 7790, 2108, b"/var/qmail/alias", b"-", b"")
JOE = Assignment(b"joe", 507, 100, b"/home/joe", b"", b"")


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        (b"joe", JOE),
        (b"JOE", JOE),
        (b"joe.shmoe", JOE._replace(uid=503, gid=78)),
        (b"joe-", JOE._replace(dash=b"-")),
        (b"joe-Direct.Mail", JOE._replace(dash=b"-", ext=b"Direct.Mail")),
        (b"joe-a-b", JOE._replace(dash=b"-", ext=b"a-b")),
        (b"joe-list+X", Assignment(b"lists", 600, 600, b"/home/lists", b"-", b"joe-X")),
        (b"bill", ALIAS._replace(ext=b"bill")),
        (b"joel", ALIAS._replace(ext=b"joel")),
        (b"", ALIAS),
    ],
)
def test_the_most_specific_assignment_counts(local: bytes, expected: Assignment) -> None:
    assert lookup.find(Table(), local) == expected


def test_an_address_that_is_not_listed() -> None:
    table = Table(b"=joe:joe:507:100:/home/joe:::\n+x-:x:1:1:/x:-::\n.\n")
    assert lookup.find(table, b"bill") is None
    assert lookup.find(table, b"joe-x") is None


def test_wildcards_end_only_in_the_characters_they_were_written_with() -> None:
    asked: list[bytes] = []

    class Watching(Table):
        def get(self, key: bytes, default: bytes | None = None) -> bytes | None:  # type: ignore[override]
            asked.append(key)
            return super().get(key, default)

    lookup.find(Watching(b"+x-:x:1:1:/x:-::\n.\n"), b"abc-def")
    assert asked == [b"", b"!abc-def\0", b"!abc-", b"!"]


def test_an_address_is_read_once_however_many_wildcards_may_fit(tmp_path: Path) -> None:
    """Strangers ask for it, and a process of root's answers: hashing is the dear part."""
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "assign").write_bytes(b"+x-:x:1:1:/x:-::\n.\n")
    assert newu.main(["qmail-newu"], {"QMAIL_HOME": str(tmp_path)}) == 0
    hashed = 0

    class Counted(bytes):
        """Bytes that count how many of them are looked at one by one."""

        def __iter__(self) -> Iterator[int]:
            nonlocal hashed
            hashed += len(self)
            return super().__iter__()

        def lower(self) -> bytes:
            return Counted(super().lower())

        def __radd__(self, before: bytes) -> bytes:
            return Counted(before + bytes(self))

        def __add__(self, behind: bytes) -> bytes:  # type: ignore[override]
            return Counted(bytes(self) + behind)

        def __getitem__(self, part: slice) -> bytes:  # type: ignore[override]
            return Counted(super().__getitem__(part))

    with cdb.Reader(str(tmp_path / "users" / "cdb")) as database:
        assert lookup.find(database, Counted(b"-" * 900)) is None
    assert hashed < 3 * 900


@pytest.mark.parametrize("data", [b"joe", b"joe\0x\x001\0/h\0\0", b"joe\x001\x00-1\0/h\0\0"])
def test_a_damaged_record_is_no_assignment(data: bytes) -> None:
    with pytest.raises(lookup.DamagedError):
        lookup.parse(data)


def test_a_database_of_something_else_is_refused() -> None:
    with pytest.raises(lookup.DamagedError):
        lookup.find({b"joe": b"x"}, b"joe")


def test_newu_writes_the_database(tmp_path: Path) -> None:
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "assign").write_bytes(ASSIGN)
    assert newu.main(["qmail-newu"], {"QMAIL_HOME": str(tmp_path)}) == 0
    path = tmp_path / "users" / "cdb"
    assert path.stat().st_mode & 0o777 == 0o644
    with cdb.Reader(str(path)) as database:
        assert lookup.find(database, b"joe") == JOE
        assert database.get(b"") == b"-+"


def test_newu_leaves_the_database_alone_if_something_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "cdb").write_bytes(b"old")
    env = {"QMAIL_HOME": str(tmp_path)}
    assert newu.main(["qmail-newu"], env) == 111
    assert capsys.readouterr().err == "qmail-newu: fatal: unable to open users/assign\n"
    (tmp_path / "users" / "assign").write_bytes(b"garbage\n.\n")
    assert newu.main(["qmail-newu"], env) == 111
    assert capsys.readouterr().err == "qmail-newu: fatal: bad format in users/assign\n"
    assert (tmp_path / "users" / "cdb").read_bytes() == b"old"


def test_morercpthosts() -> None:
    hosts = b"# comment\nExample.ORG \n\n.example.net\t\nlast.example"
    expected = [(b"example.org", b""), (b".example.net", b""), (b"last.example", b"")]
    assert newmrh.records(hosts) == expected


def test_newmrh_writes_the_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "control").mkdir()
    env = {"QMAIL_HOME": str(tmp_path)}
    assert newmrh.main(["qmail-newmrh"], env) == 111
    assert capsys.readouterr().err == (
        "qmail-newmrh: fatal: unable to read control/morercpthosts: No such file or directory\n"
    )
    (tmp_path / "control" / "morercpthosts").write_bytes(b"Example.ORG\n")
    assert newmrh.main(["qmail-newmrh"], env) == 0
    with cdb.Reader(str(tmp_path / "control" / "morercpthosts.cdb")) as database:
        assert database.get(b"example.org") == b""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError("more than 4 GiB"), "more than 4 GiB"),
    ],
)
def test_what_cannot_be_written_is_told_in_one_line(
    error: Exception,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cdb, "write", fail)
    for name, content in (("control/morercpthosts", "example.org\n"), ("users/assign", ".\n")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(content)
    env = {"QMAIL_HOME": str(tmp_path)}
    assert newmrh.main(["qmail-newmrh"], env) == 111
    assert newu.main(["qmail-newu"], env) == 111
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("qmail-newmrh: fatal: unable to write control/morercpthosts")
    assert first.endswith(f": {reason}")
    assert second == "qmail-newu: fatal: unable to write users/cdb.tmp"
