"""A whole mail system in a directory: its programs, messages through it, what must hold.

The message goes from joe, far away, to ann (a Maildir), bob (an mbox), fay (a forward to
fred, far away), rita (far), later (far, who is not there the first time), and to gone
and nobody, whom there is none of, here and far away: so joe has to be told. In other runs
he sends three to one recipient each, which take the short way (pyqmail.send.direct): to
ann, to gone, and to wait, whose Maildir is not there the first time.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from lab.tracer import Tracer
from pyqmail.local import lspawn
from pyqmail.queue import ids, layout, server
from pyqmail.queue import program as qmail_queue
from pyqmail.send import clean
from pyqmail.send import program as qmail_send
from pyqmail.send import spawnprotocol as sp
from pyqmail.users import newu

HERE, FAR = b"mx.example.org", b"far.example"
JOE = b"joe@" + FAR
ANN, BOB, FAY, GONE, WAIT = (
    name + b"@" + HERE for name in (b"ann", b"bob", b"fay", b"gone", b"wait")
)
RITA, LATER, NOBODY = (name + b"@" + FAR for name in (b"rita", b"later", b"nobody"))
FRED = b"fred@" + FAR
ACCOUNT = 20001  # uid of ann, bob and fay

# Where the mail systems are made. In memory where possible: what is proven does not depend
# on the disk, but would wait for it.
PLACE = os.environ.get("CRASH_DIRECTORY") or (
    "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
)
OLD = 37 * 3600  # seconds; what is left over for so long is cleaned away
ENTRIES = ("pid", "mess", "intd", "todo", "info", "local", "remote", "bounce")


class Letter(NamedTuple):
    """To whom joe sends a message, and what has to become of it."""

    recipients: tuple[bytes, ...]
    arrive: frozenset[bytes]  # where it has to come to
    fail: frozenset[bytes]  # of whom joe has to be told


WHOLE = Letter(
    (ANN, RITA, BOB, LATER, FAY, GONE, NOBODY),
    frozenset((ANN, BOB, FRED, RITA, LATER)),
    frozenset((GONE, NOBODY)),
)
# By attempt; every other attempt is at the whole letter.
SHORT = {
    11: Letter((ANN,), frozenset((ANN,)), frozenset()),
    12: Letter((GONE,), frozenset(), frozenset((GONE,))),
    13: Letter((WAIT,), frozenset((WAIT,)), frozenset()),
}


def letter(attempt: int) -> Letter:
    """Return what an attempt sends."""
    return SHORT.get(attempt, WHOLE)


class Broken(AssertionError):
    """What must hold does not."""


def content(attempt: int) -> bytes:
    """Return the message that the sender's attempt sends; large enough for several writes."""
    line = b"attempt %d: " % attempt + b"0123456789abcdef" * 4 + b"\n"
    head = b"From: joe@far.example\nSubject: precious\nX-Attempt: %d\n\n" % attempt
    return head + line * 60 + b"From the end of attempt %d\n" % attempt


class Delivered(NamedTuple):
    """What arrived somewhere."""

    recipient: bytes
    text: bytes


class Site:
    """The directories and files of the mail system."""

    def __init__(self) -> None:
        """Make them."""
        self.home = Path(tempfile.mkdtemp(prefix="qmail-crash-", dir=PLACE))
        self.home.chmod(0o755)
        self.outside = Path(tempfile.mkdtemp(prefix="qmail-outside-"))
        self.queue = self.home / "queue"
        self.deliveries = self.home / "deliveries"
        self.env = {
            "QMAIL_HOME": str(self.home),
            "QMAIL_QUEUE_SOCKET": str(self.home / "run" / "queue.sock"),
            "QMAIL_RECIPIENT_SOCKET": "",
            "PATH": os.environ["PATH"],
        }
        self.deliveries.touch(0o666)
        self.deliveries.chmod(0o666)
        self.marks = self.home / "marks"
        self.marks.mkdir()
        self.marks.chmod(0o777)
        self._make_homes()
        for name in ("control", "run"):
            (self.home / name).mkdir(exist_ok=True)
        self.control("me", HERE)
        self.control("concurrencylocal", b"1")
        self.control("concurrencyremote", b"1")
        layout.prepare(str(self.queue), ids.lookup())

    def control(self, name: str, line: bytes) -> None:
        """Write a control file."""
        (self.home / "control" / name).write_bytes(line + b"\n")

    def _make_homes(self) -> None:
        uid = os.geteuid() or ACCOUNT
        gid = os.getegid() or ACCOUNT
        lines = []
        for name, instruction in (
            *(("ann", "./Maildir/"), ("bob", "./Mailbox"), ("fay", "&fred@far.example")),
            *(("wait", "./Other/"), ("alias", "")),
        ):
            home = self.home / "homes" / name
            for part in ("tmp", "new", "cur"):
                (home / "Maildir" / part).mkdir(parents=True)
            (home / ".qmail").write_text(instruction + "\n")
            (home / ".qmail").chmod(0o600)
            if name == "alias":
                lines.append(f"+:{name}:{uid}:{gid}:{home}:-::")
            else:
                lines.append(f"={name}:{name}:{uid}:{gid}:{home}:::")
            for path in (home, *home.rglob("*")):
                path.chmod(0o700 if path.is_dir() else 0o600)
                os.chown(path, uid, gid)
        (self.home / "users").mkdir()
        (self.home / "users" / "assign").write_text("\n".join([*lines, ".", ""]))
        pid = os.fork()
        if not pid:
            status = 111
            try:
                status = newu.main(["qmail-newu"], self.env)
            finally:
                os._exit(status)
        if os.waitpid(pid, 0)[1]:
            raise Broken("qmail-newu failed")

    def remove(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.home)
        shutil.rmtree(self.outside)

    def files(self, *directories: str) -> list[str]:
        """Return the files of messages in the queue's directories, all by default."""
        found: list[str] = []
        for name in directories or ENTRIES:
            tops = [f"{self.queue}/{name}"]
            if name in layout.SPLIT_DIRECTORIES:
                tops = [f"{tops[0]}/{split}" for split in range(layout.SPLIT)]
            for top in tops:
                if entries := os.listdir(top):
                    found += [f"{top}/{entry}"[len(str(self.queue)) + 1 :] for entry in entries]
        return found

    def end_waiting(self) -> None:
        """Let wait's Maildir be there from now on."""
        other = self.home / "homes" / "wait" / "Other"
        if not other.exists():
            (other.parent / "Maildir").rename(other)

    # What has arrived.

    def delivered(self) -> list[Delivered]:
        """Return everything that reached a mailbox or another host.

        Raises:
            Broken: a Maildir shows something that is no whole message.
        """
        homes = self.home / "homes"
        found = [
            Delivered(recipient, path.read_bytes())
            for recipient, maildir in ((ANN, homes / "ann/Maildir"), (WAIT, homes / "wait/Other"))
            for part in ("new", "cur")
            for path in sorted((maildir / part).glob("*"))
        ]
        mbox = self.home / "homes" / "bob" / "Mailbox"
        if mbox.exists():
            found += [Delivered(BOB, text) for text in mbox_messages(mbox.read_bytes())]
        for line in self.deliveries.read_text().splitlines():
            recipient, text = json.loads(line)
            found.append(Delivered(recipient.encode(), text.encode("latin-1")))
        return found


def mbox_messages(text: bytes) -> Iterator[bytes]:
    """Split an mbox (mbox(5)): a message begins with From_ at the start or after an empty line."""
    if not text:
        return
    *messages, rest = (b"\n\n" + text + b"From ").split(b"\n\nFrom ")
    for piece in [*messages, rest] if rest else messages:
        if piece:
            yield piece.partition(b"\n")[2].replace(b"\n>From ", b"\nFrom ") + b"\n"


class Programs:
    """The programs of one start, as s6 would start them, and what they say."""

    def __init__(self, site: Site, tracer: Tracer, *, watched: bool) -> None:
        """Start the queue server, and then qmail-send and its companions."""
        self.site = site
        self.tracer = tracer
        self.watched = watched
        self._log = os.open(site.outside / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self._seen = os.stat(site.outside / "log").st_size
        self.server = self._when_ready(self._start_server)
        self.send = self._when_ready(self._start_send)

    def _when_ready(self, start: Callable[[int], int]) -> int:
        """Start a program, and wait until it says that it is ready, or has ended."""
        ready, notify = os.pipe()
        pid = start(notify)
        os.close(notify)
        os.set_blocking(ready, False)
        self.tracer.run(lambda: _readable(ready) or not self.tracer.running(pid), 0.001)
        os.close(ready)
        return pid

    def _start_server(self, notify: int) -> int:
        env = self.site.env
        argv = ["qmail-queue-server", "-n", "3", env["QMAIL_QUEUE_SOCKET"]]
        descriptors = {0: self._log, 1: self._log, 2: self._log, 3: notify}
        return self._start(argv[0], lambda: server.main(argv, env), descriptors)

    def _start(self, name: str, main: Callable[[], int], fds: dict[int, int]) -> int:
        return self.tracer.start(name, main, fds, watched=self.watched)

    def _start_send(self, notify: int) -> int:
        env = self.site.env
        programs: list[tuple[str, Callable[[], int]]] = [
            ("qmail-lspawn", lambda: lspawn.main(["qmail-lspawn", "./Maildir/"], env)),
            ("remote", lambda: be_remote(self.site)),
            ("qmail-clean", lambda: clean.main(["qmail-clean"], env)),
        ]
        users = ids.lookup()
        owners = {"qmail-clean": users.qmailq, "remote": users.qmailr}
        descriptors = {0: self._log, 7: notify}
        for number, (name, main) in enumerate(programs):
            their_read, our_write = os.pipe()
            our_read, their_write = os.pipe()
            self._start(
                name,
                as_user(owners.get(name), users.group, main),
                {0: their_read, 1: their_write, 2: self._log},
            )
            os.close(their_read)
            os.close(their_write)
            descriptors[2 * number + 1] = our_write
            descriptors[2 * number + 2] = our_read
        argv = ["qmail-send", "-n", "7"]
        main = as_user(users.qmails, users.group, lambda: qmail_send.main(argv, env), umask=0o077)
        pid = self._start("qmail-send", main, descriptors)
        for number in range(1, 7):
            os.close(descriptors[number])
        return pid

    def submit(self, attempt: int) -> int:
        """Have joe send his message; return the process id of his qmail-queue."""
        message = self.site.outside / f"message-{attempt}"
        envelope = self.site.outside / f"envelope-{attempt}"
        message.write_bytes(content(attempt))
        fields = [b"F" + JOE, *(b"T" + who for who in letter(attempt).recipients)]
        envelope.write_bytes(b"".join(field + b"\0" for field in fields) + b"\0")
        descriptors = {0: os.open(message, os.O_RDONLY), 1: os.open(envelope, os.O_RDONLY)}
        pid = self._start(
            "qmail-queue",
            lambda: qmail_queue.main(["qmail-queue"], self.site.env),
            descriptors | {2: self._log},
        )
        for descriptor in descriptors.values():
            os.close(descriptor)
        return pid

    def new_log(self) -> bytes:
        """Return what was logged since the last time."""
        with open(self.site.outside / "log", "rb") as file:
            file.seek(self._seen)
            data = file.read()
        self._seen += len(data)
        return data

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to a program that may have ended."""
        if self.tracer.running(pid):
            os.kill(pid, number)

    def stop(self) -> None:
        """Have them end, as s6 does on a stop, and wait for it.

        Raises:
            TimeoutError: one of them does not.
        """
        self.signal(self.send, signal.SIGTERM)
        self.tracer.run(lambda: not self.tracer.running(self.send), 0.001)
        self.signal(self.server, signal.SIGTERM)
        ended = self.tracer.ended
        self.tracer.run(lambda: all(pid in ended for pid in self.tracer.programs), 0.001)
        os.close(self._log)


def _readable(descriptor: int) -> bool:
    try:
        os.read(descriptor, 1)
    except BlockingIOError:
        return False
    return True


def as_user(
    uid: int | None, gid: int, main: Callable[[], int], umask: int = 0o022
) -> Callable[[], int]:
    """Return main, to be run as another user where this process is root."""

    def run() -> int:
        os.umask(umask)
        if uid is not None:
            ids.become(uid, gid)
        return main()

    return run


def be_remote(site: Site) -> int:
    """Be qmail-rspawn and the hosts far away: note what arrives, and answer."""
    os.write(1, sp.encode_limit(20))
    reader = sp.RequestReader()
    waited = site.deliveries
    while data := os.read(0, 65536):
        for request in reader.feed(data):
            try:
                text = (site.queue / "mess" / os.fsdecode(request.message)).read_bytes()
            except OSError:
                os.write(1, sp.encode_report(sp.Report(request.delivery, sp.CANNOT_OPEN)))
                continue
            box = request.recipient.partition(b"@")[0]
            if box == b"nobody":
                answer = b"DThere is no such box.\n"
            elif box == b"later" and not _been_here(site, text):
                answer = b"ZNot now.\n"
            else:
                answer = b"Kok\n"
                line = json.dumps([request.recipient.decode(), text.decode("latin-1")]) + "\n"
                descriptor = os.open(waited, os.O_WRONLY | os.O_APPEND)
                os.write(descriptor, line.encode())
                os.close(descriptor)
            os.write(1, sp.encode_report(sp.Report(request.delivery, answer)))
    return 0


def _been_here(site: Site, text: bytes) -> bool:
    mark = site.marks / f"later-{attempt_of(text)}"
    if mark.exists():
        return True
    mark.touch()
    return False


def attempt_of(text: bytes) -> int:
    """Return which attempt of joe's a message, or a bounce of it, comes from.

    Raises:
        Broken: it is nothing that joe has sent, or not all of it.
    """
    _, found, rest = text.partition(b"X-Attempt: ")
    number = rest.partition(b"\n")[0]
    if not found or not number.isdigit():
        raise Broken(f"a message that nobody has sent, or a part of one: {text[:200]!r}")
    if not text.endswith(content(int(number))):
        raise Broken(f"not the whole message: {text[-200:]!r}")
    return int(number)


class Score(NamedTuple):
    """What arrived of one attempt: how often at whom, and of whose failure joe was told."""

    arrived: Counter[bytes]
    told: Counter[bytes]


def score(delivered: list[Delivered], *, mbox_may_be_torn: bool = False) -> dict[int, Score]:
    """Sum up what arrived, by attempt.

    Args:
        delivered: what arrived.
        mbox_may_be_torn: qmail-local was killed: the beginning of a message may have
            stayed in an mbox (mbox(5) knows no remedy), as long as the whole one follows.

    Raises:
        Broken: something is not whole, or came to somebody it was not for.
    """
    scores: dict[int, Score] = {}
    for recipient, text in delivered:
        if mbox_may_be_torn and recipient == BOB:
            try:
                attempt = attempt_of(text)
            except Broken:
                continue
        else:
            attempt = attempt_of(text)
        one = scores.setdefault(attempt, Score(Counter(), Counter()))
        if recipient == JOE:
            one.told.update(r for r in letter(attempt).fail if b"\n<" + r + b">:\n" in text)
            if not one.told:
                raise Broken(f"a bounce of nothing: {text[:600]!r}")
        elif recipient in letter(attempt).arrive:
            one.arrived[recipient] += 1
        else:
            raise Broken(f"{recipient!r} got mail")
    return scores


def check(scores: dict[int, Score], acknowledged: set[int], *, copies: int, extra: int) -> None:
    """Check what must hold in the end.

    Args:
        scores: what arrived.
        acknowledged: the attempts of which joe was told that they are safe.
        copies: at most so many of one message may come to one recipient. One more of what
            is passed on: it may be sent once more, as a forward or a bounce, and the delivery
            of one of the two be under way as well.
        extra: at most so many deliveries, in all, may have been made once more.

    Raises:
        Broken: it does not hold.
    """
    repeated = 0
    for attempt in acknowledged | scores.keys():
        # An attempt that was not acknowledged may have been queued: then it is there whole.
        one = scores.get(attempt, Score(Counter(), Counter()))
        for missing in [r for r in letter(attempt).arrive if not one.arrived[r]]:
            raise Broken(f"attempt {attempt} did not come to {missing!r}: {one}")
        for missing in [r for r in letter(attempt).fail if not one.told[r]]:
            raise Broken(f"of attempt {attempt} joe was not told about {missing!r}: {one}")
        counts = [*one.arrived.values(), max(one.told.values(), default=1)]
        passed_on = max(one.arrived[FRED], *one.told.values(), 0)
        straight = max((n for who, n in one.arrived.items() if who != FRED), default=0)
        if straight > copies or passed_on > copies + 1:
            raise Broken(f"too many copies of attempt {attempt}: {one}")
        repeated += sum(counts) - len(counts)
    if repeated > extra:
        raise Broken(f"{repeated} deliveries were made once more: {scores}")


def make_old(site: Site) -> None:
    """Let what lies in the queue be older than what a crash leaves may become."""
    when = time.time() - OLD
    for name in site.files():
        os.utime(site.queue / name, (when, when))


def say(text: str) -> None:
    """Tell somebody who watches."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
