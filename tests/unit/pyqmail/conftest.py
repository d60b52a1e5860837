"""A queue directory and a queue server of their own, for the tests of the mailer."""

import errno
import os
import re
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyqmail.channel import Channel
from pyqmail.queue import client, ids, layout
from pyqmail.queue.errors import Result
from pyqmail.send import spawnprotocol as sp
from ucspi.dialogue import ConnectionEnded

DEADLINE = 20  # seconds within which anything that is waited for must happen
MESSAGE = b"Subject: hello\n\nbody\n"


class Queue:
    """A qmail home with an empty queue, and what the tests ask of it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.directory = home / "queue"
        self.socket = str(home / "run" / "queue.sock")
        self.env = {
            "QMAIL_HOME": str(home),
            "QMAIL_QUEUE_SOCKET": self.socket,
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        }
        self._children: list[int] = []

    def files(self) -> list[str]:
        """Return the names of all files of messages, relative to the queue."""
        found = []
        for name in ("pid", "mess", "intd", "todo", "info", "local", "remote", "bounce"):
            paths = (self.directory / name).rglob("*")
            found += [str(p.relative_to(self.directory)) for p in paths if not p.is_dir()]
        return sorted(found)

    def queued(self) -> dict[int, tuple[bytes, bytes]]:
        """Return number -> message, envelope of all that is in todo."""
        result = {}
        for path in (self.directory / "todo").iterdir():
            number = int(path.name)
            message = (self.directory / layout.mess(number)).read_bytes()
            result[number] = (message, path.read_bytes())
        return result

    def put(self, sender: bytes, *recipients: bytes, message: bytes = MESSAGE) -> int:
        """Put a message into the queue as netqmail's qmail-queue does, and return its number."""
        new = self.directory / "pid" / "new"
        new.write_bytes(message)
        number = new.stat().st_ino
        new.rename(self.directory / layout.mess(number))
        intd = self.directory / layout.intd(number)
        fields = [b"u1000", b"p4242", b"F" + sender, *(b"T" + r for r in recipients)]
        intd.write_bytes(b"".join(field + b"\0" for field in fields))
        os.link(intd, self.directory / layout.todo(number))
        return number

    def pull(self) -> None:
        """Pull the trigger; when nobody has opened it yet, todo will be looked into anyway."""
        try:
            trigger = os.open(self.directory / layout.TRIGGER, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            assert error.errno == errno.ENXIO
            return
        os.write(trigger, b"\0")
        os.close(trigger)

    def start_server(self, *options: str, wrap: tuple[str, ...] = ()) -> int:
        """Start a queue server, wait until it listens, and return its process id."""
        ready, notify = os.pipe()
        os.set_inheritable(notify, True)
        argv = [*wrap, sys.executable, "-m", "ucspi", "qmail-queue-server"]
        argv += ["-n", str(notify), *options, self.socket]
        pid = os.posix_spawnp(argv[0], argv, self.env)
        self._children.append(pid)
        os.close(notify)
        try:
            readable, _, _ = select.select([ready], [], [], DEADLINE)
            assert readable and os.read(ready, 1) == b"\n", "the queue server did not start"
        finally:
            os.close(ready)
        return pid

    def stop(self, pid: int, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the process, and return its exit code."""
        os.kill(pid, number)
        return self.wait(pid)

    def wait(self, pid: int) -> int:
        """Wait for a process this queue has started and return its exit code."""
        self._children.remove(pid)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def end(self) -> None:
        """End all processes that are left."""
        for pid in list(self._children):
            self.stop(pid, signal.SIGKILL)


class FakeSpawner:
    """The other end of a spawner's pipes."""

    def __init__(self, read: int, write: int) -> None:
        self.read = read
        self.write = write
        self.reader = sp.RequestReader()
        self.requests: list[sp.Request] = []

    def announce(self, limit: int) -> None:
        os.write(self.write, sp.encode_limit(limit))

    def request(self) -> sp.Request:
        """Wait for the next request."""
        while not self.requests:
            readable, _, _ = select.select([self.read], [], [], DEADLINE)
            assert readable, "no request came"
            data = os.read(self.read, 65536)
            assert data, "qmail-send closed the pipe"
            self.requests += self.reader.feed(data)
        return self.requests.pop(0)

    def quiet(self) -> bool:
        """Whether no request is there now."""
        return not self.requests and not select.select([self.read], [], [], 0)[0]

    def report(self, request: sp.Request, text: bytes) -> None:
        os.write(self.write, sp.encode_report(sp.Report(request.delivery, text)))

    def close(self) -> None:
        for descriptor in (self.read, self.write):
            if descriptor >= 0:
                os.close(descriptor)
        self.read = self.write = -1


class Send:
    """A running qmail-send."""

    def __init__(self, queue: Queue, limits: tuple[int, int] = (120, 120)) -> None:
        self.queue = queue
        self.log_read, log_write = os.pipe()
        self.log = b""
        self.fakes: list[FakeSpawner] = []
        actions = [(os.POSIX_SPAWN_DUP2, log_write, 0)]
        theirs = [log_write]
        for number in (1, 3):
            request_read, request_write = os.pipe()
            report_read, report_write = os.pipe()
            self.fakes.append(FakeSpawner(request_read, report_write))
            theirs += [request_write, report_read]
            actions += self._place({number: request_write, number + 1: report_read})
        command_read, command_write = os.pipe()
        answer_read, answer_write = os.pipe()
        theirs += [command_read, command_write, answer_read, answer_write]
        actions += self._place({5: command_write, 6: answer_read})
        self.clean = self._spawn(
            "qmail-clean",
            [(os.POSIX_SPAWN_DUP2, command_read, 0), (os.POSIX_SPAWN_DUP2, answer_write, 1)],
        )
        self.pid = self._spawn("qmail-send", actions)
        for descriptor in theirs:
            os.close(descriptor)
        self.local, self.remote = self.fakes
        for fake, limit in zip(self.fakes, limits, strict=True):
            fake.announce(limit)

    @staticmethod
    def _place(mapping: dict[int, int]) -> list[tuple[int, int, int]]:
        return [(os.POSIX_SPAWN_DUP2, ours, wanted) for wanted, ours in mapping.items()]

    def _spawn(self, name: str, actions: list[Any]) -> int:
        # Descriptors below 7 are pytest's here; the pipes are all above (see open_high).
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "ucspi", name],
            self.queue.env,
            file_actions=actions,
        )
        self.queue._children.append(pid)
        return pid

    def wait_log(self, pattern: bytes) -> re.Match[bytes]:
        """Wait until the log has a line that matches, and return the match."""
        compiled = re.compile(pattern, re.MULTILINE)
        until = time.monotonic() + DEADLINE
        while not (found := compiled.search(self.log)):
            readable, _, _ = select.select([self.log_read], [], [], until - time.monotonic())
            assert readable, f"{pattern!r} did not come; the log is\n{self.log.decode()}"
            data = os.read(self.log_read, 65536)
            assert data, f"qmail-send ended without {pattern!r}; log\n{self.log.decode()}"
            self.log += data
        return found

    def wait_count(self, text: bytes, count: int) -> None:
        """Wait until text is in the log count times."""
        while self.log.count(text) < count:
            readable, _, _ = select.select([self.log_read], [], [], DEADLINE)
            data = os.read(self.log_read, 65536) if readable else b""
            assert data, f"{text!r} is there {self.log.count(text)} times only"
            self.log += data

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        code: int = self.queue.wait(self.pid)
        while data := os.read(self.log_read, 65536):
            self.log += data
        return code

    def close(self) -> None:
        for fake in self.fakes:
            fake.close()
        os.close(self.log_read)


@pytest.fixture
def queue() -> Iterator[Queue]:
    """Return an empty queue; processes started through it end with the test.

    Not below tmp_path, which pytest closes to everybody but the one who runs it: the
    mailer's users have to get there.
    """
    home = Path(tempfile.mkdtemp(prefix="qmail-home-"))
    home.chmod(0o755)
    made = Queue(home)
    try:
        (home / "run").mkdir()
        (home / "control").mkdir()
        (home / "control" / "me").write_text("mx.example.org\n")
        layout.prepare(str(home / "queue"), ids.lookup())
        yield made
    finally:
        made.end()
        shutil.rmtree(home)


@pytest.fixture
def server(queue: Queue) -> Queue:
    """Return an empty queue with a queue server."""
    queue.start_server()
    return queue


def connect(path: str) -> socket.socket:
    """Return a connection to a queue server, with a deadline."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(DEADLINE)
    connection.connect(path)
    return connection


@pytest.fixture
def raw(server: Queue) -> Callable[[], socket.socket]:
    """Return a function that connects to the server."""
    return lambda: connect(server.socket)


class Script(Channel):
    """A client that sends given pieces and then closes; what it is sent is in ``output``."""

    nothing = os.open("/dev/null", os.O_RDONLY)  # one for all: property tests make hundreds

    def __init__(self, pieces: Iterable[bytes]) -> None:
        super().__init__(self.nothing, 2, 1)
        self.pieces = [piece for piece in pieces if piece]
        self.output = b""

    def _receive(self, deadline: float) -> bytes:
        if not self.pieces:
            raise ConnectionEnded
        return self.pieces.pop(0)

    def send(self, data: bytes) -> None:
        self.output += bytes(data)


@pytest.fixture
def script() -> type[Script]:
    """Return the class of scripted clients."""
    return Script


class Mail:
    """One message that a program under test has handed to the queue."""

    def __init__(self) -> None:
        self.message = b""
        self.sender: bytes | None = None
        self.recipients: list[bytes] = []
        self.ended = ""


class FakeQueue:
    """Stands where pyqmail.queue.client does; ``mails`` has all that was begun."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.result = Result(0, 4321)

    def open_queue(self, env: dict[str, str]) -> client.Injection:
        mail = Mail()
        self.mails.append(mail)
        result = self.result

        class Injection(client.Injection):
            def write(self, data: bytes) -> None:
                assert not mail.ended
                mail.message += bytes(data)

            def finish(self, sender: bytes, recipients: Iterable[bytes]) -> Result:
                assert not mail.ended
                mail.ended = "finished"
                mail.sender = sender
                mail.recipients = list(recipients)
                return result

            def abort(self) -> None:
                assert not mail.ended
                mail.ended = "aborted"

        return Injection()

    @property
    def queued(self) -> list[Mail]:
        """The messages whose envelope was handed over, too."""
        return [mail for mail in self.mails if mail.ended == "finished"]


@pytest.fixture
def fake_queue(monkeypatch: pytest.MonkeyPatch) -> FakeQueue:
    """Put a fake in the place of the queue's client."""
    fake = FakeQueue()
    monkeypatch.setattr(client, "open_queue", fake.open_queue)
    return fake


@pytest.fixture
def open_high() -> Iterator[None]:
    """Keep the low descriptors busy, so that pipes made now do not collide with 0 to 6."""
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(10)]
    yield
    for descriptor in held:
        os.close(descriptor)


@pytest.fixture
def start(queue: Queue, open_high: None) -> Iterator[Callable[..., Send]]:
    running: list[Send] = []

    def starter(*limits: int) -> Send:
        running.append(Send(queue, (limits or (120, 120))))  # type: ignore[arg-type]
        return running[-1]

    yield starter
    for send in running:
        send.close()
