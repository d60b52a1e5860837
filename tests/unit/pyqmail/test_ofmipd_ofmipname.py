"""ofmipname: from a table to what ofmipd looks up."""

import os
from pathlib import Path

import pytest

from pyqmail.ofmipd import ofmipname
from pyqmail.ofmipd.senders import Identity, Names

TABLE = (
    b'# From: "Joe Shmoe" <J.Shmoe@sun.af.mil>\njoe@sun.af.mil:Joe Shmoe:J.Shmoe@sun.af.mil:\nx\n'
)


@pytest.fixture
def table(tmp_path: Path):
    path = tmp_path / "table"
    path.write_bytes(TABLE)
    saved = os.dup(0)
    fd = os.open(path, os.O_RDONLY)
    os.dup2(fd, 0)
    os.close(fd)
    yield
    os.dup2(saved, 0)
    os.close(saved)


def test_ofmipd_finds_what_ofmipname_wrote(table, tmp_path: Path) -> None:
    target, temporary = str(tmp_path / "n.cdb"), str(tmp_path / "n.tmp")
    assert ofmipname.main(["ofmipname", target, temporary], {}) == 0
    names = Names(None, target)
    found = names.identity(b"joe@sun.af.mil")
    assert found == Identity(b"Joe Shmoe", b"J.Shmoe@sun.af.mil", own_rule=False)
    assert names.identity(b"x") is None
    assert not Path(temporary).exists()


def test_failure_leaves_the_old_database(table, tmp_path: Path, capfd) -> None:
    target = tmp_path / "n.cdb"
    target.write_bytes(b"old")
    assert ofmipname.main(["ofmipname", str(target), str(tmp_path / "no/tmp")], {}) == 111
    assert target.read_bytes() == b"old"
    assert capfd.readouterr().err == (
        f"ofmipname: fatal: unable to create {target}: "
        f"{tmp_path}/no/tmp.tmp: No such file or directory\n"
    )


def test_usage() -> None:
    assert ofmipname.main(["ofmipname", "x"], {}) == 100
