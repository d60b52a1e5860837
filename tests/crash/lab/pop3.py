"""A POP3 session over a Maildir, with a fault in it, and what must still be in the Maildir."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from lab import mailer
from lab.mailer import Broken
from lab.tracer import Fault, Touch, Tracer
from pyqmail.pop3d import program

# One is read, one deleted, one read and deleted, one left alone; one was seen before.
MESSAGES = {
    "new/101.read.host": b"Subject: one\n\nread\n",
    "new/102.gone.host,S=22": b"Subject: two\n\ndeleted\n",
    "new/103.both.host": b"Subject: three\n\nread and deleted\n",
    "new/104.left.host": b"Subject: four\n\nleft\n",
    "cur/105.seen.host:2,FS": b"Subject: five\n\nseen\n",
}
SESSION = b"RETR 1\r\nDELE 2\r\nRETR 3\r\nDELE 3\r\nRETR 5\r\nQUIT\r\n"
DELETED = frozenset(("102.gone.host,S=22", "103.both.host"))
READ = frozenset(("101.read.host",))
QUOTA = b"1000000S\n200 5\n"
OLD = "tmp/99.old.host"  # of a delivery that was killed long ago


class Outcome(NamedTuple):
    """A session after which nothing is missing."""

    fired: Touch | None
    touches: list[Touch]


def run(fault: Fault | None = None) -> Outcome:
    """Hold the session with a fault, then look; then hold it without, and look again.

    Raises:
        Broken: a message is missing, damaged, or there twice.
    """
    root = Path(tempfile.mkdtemp(prefix="maildir-crash-", dir=mailer.PLACE))
    try:
        maildir = root / "homes" / "ann" / "Maildir"
        for name in ("tmp", "new", "cur"):
            (maildir / name).mkdir(parents=True)
        for when, (name, text) in enumerate(MESSAGES.items(), 1):
            (maildir / name).write_bytes(text)
            os.utime(maildir / name, (when, when))
        (maildir / "maildirsize").write_bytes(QUOTA)
        (maildir / OLD).write_bytes(b"half a")
        os.utime(maildir / OLD, (1, 1))
        tracer = Tracer(str(root), fault)
        _session(maildir, tracer, SESSION)
        check(maildir, finished=tracer.fired is None)
        second = Tracer(str(root))
        _session(maildir, second, b"STAT\r\nQUIT\r\n")
        check(maildir, finished=False)
        return Outcome(tracer.fired, tracer.touches)
    finally:
        shutil.rmtree(root)


def _session(maildir: Path, tracer: Tracer, commands: bytes) -> None:
    read, write = os.pipe()
    os.write(write, commands)
    os.close(write)
    null = os.open(os.devnull, os.O_WRONLY)
    os.chdir("/")
    try:
        pid = tracer.start(
            "qmail-pop3d",
            lambda: program.main(["qmail-pop3d", str(maildir)], {}),
            {0: read, 1: null, 2: null},
            watched=True,
        )
        os.close(read)
        os.close(null)
        tracer.run(lambda: not tracer.running(pid), 0.002)
    finally:
        tracer.close()


def check(maildir: Path, *, finished: bool) -> None:
    """Check the Maildir after a session, whole or not.

    Raises:
        Broken: it is not as it must be.
    """
    there = {
        name.partition(":")[0]: (f"{part}/{name}", (maildir / part / name).read_bytes())
        for part in ("new", "cur")
        for name in os.listdir(maildir / part)
    }
    if len(there) != sum(len(os.listdir(maildir / part)) for part in ("new", "cur")):
        raise Broken(f"a message is there twice: {there}")
    for path, text in MESSAGES.items():
        name = os.path.basename(path).partition(":")[0]
        if name in DELETED and (finished or name not in there):
            if name in there:
                raise Broken(f"{path} was not deleted")
            continue
        if there.get(name, ("", b""))[1] != text:
            raise Broken(f"{path} is missing or damaged: {sorted(there)}")
        if finished and name in READ and there[name][0] != f"cur/{name}:2,S":
            raise Broken(f"{path} is not marked as read")
    if "maildirsize" not in os.listdir(maildir):
        raise Broken("the quota is gone")
