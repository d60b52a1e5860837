"""Lay out the appliance's programs below a directory, for the image to copy.

    assemble.py WHEEL LAUNCHER MAILER_BIN PAGES ROOT

Unpacks WHEEL to ROOT/usr/lib/postern with compiled modules, takes over what another
mailer brought in MAILER_BIN (an empty directory for none), links the launcher under the
name of every program that is still ours, and copies the manual pages of these from PAGES.
"""

import compileall
import os
import py_compile
import shutil
import stat
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

from ucspi import entrypoints

HOME = Path("usr/lib/postern")
PROGRAMS = Path("usr/bin")
MAILER = Path("var/qmail/bin")
PAGES = Path("usr/share/man/man8")
QMAILQ = 7794


def written(programs: dict[str, str]) -> str:
    """Return the text of an entry_points.txt that declares programs and nothing else."""
    return "\n".join(
        [f"[{entrypoints.GROUP}]", *(f"{name} = {target}" for name, target in programs.items()), ""]
    )


def take_mailer(source: Path, destination: Path) -> set[str]:
    """Copy another mailer's programs with their owners and modes; return their names.

    What is setuid or setgid there, its qmail-queue, stays behind: no program of this image
    raises privileges, and ours hands the message to the queue server instead, into the
    same queue.

    Raises:
        SystemExit: its user ids were compiled in and are not those of this image.
    """
    queue = source / "qmail-queue"
    if queue.exists() and queue.stat().st_uid not in (0, QMAILQ):
        sys.exit(f"MAILER_IMAGE: qmail-queue belongs to uid {queue.stat().st_uid}, not {QMAILQ}")
    destination.mkdir(parents=True)
    taken = set()
    for path in source.iterdir():
        status = path.stat()
        if path.is_file() and not status.st_mode & (stat.S_ISUID | stat.S_ISGID):
            copy = destination / path.name
            shutil.copyfile(path, copy)
            os.chown(copy, status.st_uid, status.st_gid)
            copy.chmod(stat.S_IMODE(status.st_mode))
            taken.add(path.name)
    return taken


def compile_modules(home: Path, root: Path) -> None:
    """Compile every module once and for all: the file system is read-only at run time.

    Raises:
        SystemExit: a module does not compile.
    """
    if not compileall.compile_dir(
        home,
        quiet=1,
        stripdir=str(root),
        prependdir="/",
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    ):
        sys.exit("a module does not compile")


def link(name: Path, root: Path) -> None:
    """Make root/name a link to the launcher."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).symlink_to(Path("/") / HOME / "launch")


def copy_pages(source: Path, names: Iterable[str], destination: Path) -> None:
    """Copy the manual pages of programs; another mailer's programs have none here."""
    destination.mkdir(parents=True)
    for page in (source / f"{name}.8" for name in names):
        if page.exists():
            shutil.copyfile(page, destination / page.name)
            (destination / page.name).chmod(0o644)


def main(wheel: Path, launcher: Path, mailer: Path, pages: Path, root: Path) -> None:
    """Make the tree below root."""
    home = root / HOME
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(home)
    shutil.copy(launcher, home / "launch")
    compile_modules(home, root)

    (entry_points,) = home.glob("*.dist-info/entry_points.txt")
    foreign = take_mailer(mailer, root / MAILER)
    # What stays registered runs in process; the other mailer's programs must be executed.
    programs = {
        name: target
        for name, target in entrypoints.parse(entry_points.read_text()).items()
        if not (target.startswith("pyqmail.") and name in foreign)
    }
    entry_points.write_text(written(programs))
    for name, target in programs.items():
        link((MAILER if target.startswith("pyqmail.") else PROGRAMS) / name, root)
    copy_pages(pages, programs, root / PAGES)
    if "sendmail" in programs:
        link(Path("usr/sbin/sendmail"), root)
    else:
        (root / "usr/sbin").mkdir(exist_ok=True)
        (root / "usr/sbin/sendmail").symlink_to(Path("/") / MAILER / "sendmail")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
