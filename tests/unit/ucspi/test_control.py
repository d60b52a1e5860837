"""Control files, read as qmail does."""

import os
from pathlib import Path

import pytest

from ucspi import control
from ucspi.control import ControlError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A qmail home that is the current directory, with control/me."""
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "me").write_text("me.example\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "control"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", b""),
        (b"one", b"one"),
        (b"one\n", b"one"),
        (b"one \t \ntwo\n", b"one"),
        (b" one\n", b" one"),
        (b"\none\n", b""),
        (b"#one\n", b"#one"),
        (b"o ne\r\n", b"o ne\r"),
    ],
)
def test_line(content: bytes, line: bytes) -> None:
    assert control.parse_line(content) == line


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"one\ntwo", [b"one", b"two"]),
        (b"one\t \n\n \t\n#two\n # three\nfour#\n", [b"one", b" # three", b"four#"]),
    ],
)
def test_lines(content: bytes, lines: list[bytes]) -> None:
    assert control.parse_lines(content) == lines


def test_file_that_is_not_there(home: Path) -> None:
    assert control.read_file("none") is None
    assert control.read_line("none") is None
    assert control.read_lines("none") is None
    assert control.read_number("none", 7) == 7


def test_me_is_the_fallback_for_a_missing_file_only(home: Path) -> None:
    assert control.read_line("none", or_me=True) == b"me.example"
    (home / "empty").touch()
    assert control.read_line("empty", or_me=True) == b""
    (home / "me").unlink()
    assert control.read_line("none", or_me=True) is None


def test_large_file_is_read_whole(home: Path) -> None:
    (home / "large").write_bytes(b"line\n" * 50000)
    assert control.read_lines("large") == [b"line"] * 50000


@pytest.mark.parametrize(("content", "number"), [("12\n", 12), ("0 \nx\n", 0), ("007\n", 7)])
def test_number(home: Path, content: str, number: int) -> None:
    (home / "number").write_text(content)
    assert control.read_number("number", 99) == number


@pytest.mark.parametrize("content", ["", "x", "-1", "1.5", "1 2", "\u0663", "\n1\n"])
def test_not_a_number(home: Path, content: str) -> None:
    (home / "number").write_text(content)
    with pytest.raises(ControlError, match="not a number"):
        control.read_number("number", 99)


def test_file_that_cannot_be_read(home: Path) -> None:
    (home / "folder").mkdir()
    with pytest.raises(ControlError, match="control/folder"):
        control.read_file("folder")


def test_home_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    control.enter_home({"QMAIL_HOME": str(tmp_path)})
    assert os.getcwd() == str(tmp_path)


def test_home_that_cannot_be_entered() -> None:
    with pytest.raises(ControlError, match="/nonexistent"):
        control.enter_home({"QMAIL_HOME": "/nonexistent"})
