"""Registered programs, found in installed packages."""

from pathlib import Path

import pytest

from ucspi import entrypoints

TEXT = """\
[console_scripts]
ignored = a:b

[acceptutils.programs]
authup = acceptutils.authup.program:main
# comment = c:d
; comment = c:d
spaced   =   e.f:g
without a target

[other]
ignored = h:i
"""


def test_group() -> None:
    assert entrypoints.parse(TEXT) == {
        "authup": "acceptutils.authup.program:main",
        "spaced": "e.f:g",
    }
    assert entrypoints.parse(TEXT, "other") == {"ignored": "h:i"}
    assert entrypoints.parse("") == {}


def package(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "entry_points.txt").write_text(f"[acceptutils.programs]\n{text}\n")


def test_installed_packages(tmp_path: Path) -> None:
    package(tmp_path / "one", "a-1.dist-info", "shared = one:x\nalone = one:y")
    package(tmp_path / "two", "b.egg-info", "shared = two:x\nother = two:z")
    package(tmp_path / "two", "c-1.other", "unseen = two:q")
    (tmp_path / "two" / "d-1.dist-info").mkdir()
    paths = [str(tmp_path / name) for name in ("one", "missing", "two")]
    assert entrypoints.installed(paths) == {
        "shared": "one:x",
        "alone": "one:y",
        "other": "two:z",
    }


def test_metadata_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    package(tmp_path, "a-1.dist-info", "good = a:b")
    (tmp_path / "b-1.dist-info" / "entry_points.txt").mkdir(parents=True)
    (tmp_path / "c-1.dist-info").mkdir()
    (tmp_path / "c-1.dist-info" / "entry_points.txt").write_bytes(b"\xff\xfe")
    assert entrypoints.installed([str(tmp_path)]) == {"good": "a:b"}


@pytest.mark.parametrize("name", ["authup", "checknotroot", "fixsmtpio", "checkpassword"])
def test_own_programs_are_registered(name: str) -> None:
    assert name in entrypoints.installed()
