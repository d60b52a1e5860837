"""A queue directory and a queue server of their own, for the tests of the mailer."""

import os
import select
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from pyqmail.channel import Channel, ConnectionEnded
from pyqmail.queue import client, ids, layout
from pyqmail.queue.errors import Result

DEADLINE = 20  # seconds within which anything that is waited for must happen


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

    def __init__(self, pieces: Iterable[bytes]) -> None:
        super().__init__(os.open("/dev/null", os.O_RDONLY), 2, 1)
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
