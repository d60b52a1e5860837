"""What the image is laid out of: links for our programs, another mailer in place of ours."""

import importlib.util
import os
import stat
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]

ENTRY_POINTS = """\
[console_scripts]
postern = appliance.postern:console

[acceptutils.programs]
authup = acceptutils.authup:main
qmail-queue = pyqmail.queue:main
qmail-smtpd = pyqmail.smtpd:main
sendmail = pyqmail.sendmail:main
"""


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("assemble", ROOT / "images/assemble.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


assemble = load()


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "postern.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pyqmail/__init__.py", "")
        archive.writestr("postern-1.dist-info/entry_points.txt", ENTRY_POINTS)
    return path


@pytest.fixture
def mailer(tmp_path: Path) -> Path:
    path = tmp_path / "mailer"
    path.mkdir()
    return path


def add(mailer: Path, name: str, mode: int, uid: int = 0) -> None:
    (mailer / name).write_text("#!/bin/sh\n")
    os.chown(mailer / name, uid, -1)
    (mailer / name).chmod(mode)


def assembled(tmp_path: Path, wheel: Path, mailer: Path) -> Path:
    root = tmp_path / "root"
    assemble.main(wheel, ROOT / "images/launch", mailer, ROOT / "docs/man", root)
    return root


def links(directory: Path) -> dict[str, str]:
    return {p.name: os.readlink(p) for p in directory.iterdir() if p.is_symlink()}


LAUNCH = "/usr/lib/postern/launch"


def test_every_program_is_a_link_to_the_launcher(tmp_path: Path, wheel: Path, mailer: Path) -> None:
    root = assembled(tmp_path, wheel, mailer)
    assert links(root / "usr/bin") == {"authup": LAUNCH}
    assert links(root / "usr/sbin") == {"sendmail": LAUNCH}
    assert links(root / "var/qmail/bin") == dict.fromkeys(
        ("qmail-queue", "qmail-smtpd", "sendmail"), LAUNCH
    )
    assert os.access(root / "usr/lib/postern/launch", os.X_OK)


def test_the_programs_that_are_ours_have_their_manual_pages(
    tmp_path: Path, wheel: Path, mailer: Path
) -> None:
    add(mailer, "sendmail", 0o755)
    pages = assembled(tmp_path, wheel, mailer) / "usr/share/man/man8"
    assert {page.name for page in pages.iterdir()} == {
        "authup.8",
        "qmail-queue.8",
        "qmail-smtpd.8",
    }
    assert {stat.S_IMODE(page.stat().st_mode) for page in pages.iterdir()} == {0o644}


def test_modules_are_compiled_for_a_read_only_root(
    tmp_path: Path, wheel: Path, mailer: Path
) -> None:
    root = assembled(tmp_path, wheel, mailer)
    assert list((root / "usr/lib/postern/pyqmail/__pycache__").glob("__init__.*.pyc"))


def test_another_mailers_program_is_executed_not_run_in_process(
    tmp_path: Path, wheel: Path, mailer: Path
) -> None:
    add(mailer, "qmail-smtpd", 0o711)
    add(mailer, "sendmail", 0o755)
    root = assembled(tmp_path, wheel, mailer)
    (declared,) = (root / "usr/lib/postern").glob("*.dist-info/entry_points.txt")
    assert assemble.entrypoints.parse(declared.read_text()) == {
        "authup": "acceptutils.authup:main",
        "qmail-queue": "pyqmail.queue:main",
    }
    smtpd = root / "var/qmail/bin/qmail-smtpd"
    assert not smtpd.is_symlink()
    assert stat.S_IMODE(smtpd.stat().st_mode) == 0o711
    assert links(root / "usr/sbin") == {"sendmail": "/var/qmail/bin/sendmail"}


@pytest.mark.skipif(os.getuid() != 0, reason="gives files away")
def test_a_setuid_qmail_queue_stays_behind(tmp_path: Path, wheel: Path, mailer: Path) -> None:
    add(mailer, "qmail-queue", 0o4711, uid=7794)
    root = assembled(tmp_path, wheel, mailer)
    assert links(root / "var/qmail/bin")["qmail-queue"] == LAUNCH


@pytest.mark.skipif(os.getuid() != 0, reason="gives files away")
def test_a_mailer_with_other_user_ids_is_refused(tmp_path: Path, wheel: Path, mailer: Path) -> None:
    add(mailer, "qmail-queue", 0o4711, uid=64014)
    with pytest.raises(SystemExit, match="uid 64014, not 7794"):
        assembled(tmp_path, wheel, mailer)
