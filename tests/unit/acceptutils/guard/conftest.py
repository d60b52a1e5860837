"""authguardd as a real process."""

import os
import select
import signal
import socket
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acceptutils.guard import daemon, wire
from acceptutils.guard.wire import Answer, Outcome, Question

PATIENCE = 20.0  # seconds until a test gives up; nothing here takes one
GUARD = 7792  # the uid of authguardd
GUARD_GROUP = 2108


class Guard:
    """A running authguardd."""

    def __init__(self, pid: int, directory: Path) -> None:
        self.pid = pid
        self.path = directory / "guard.sock"
        self.events_path = directory / "events.sock"
        self._log = directory / "log"

    def connect(self) -> socket.socket:
        """Return a connection for one attempt."""
        return self._connect(self.path, socket.SOCK_SEQPACKET)

    def read_along(self) -> socket.socket:
        """Return a connection to the event stream, taken by the daemon."""
        reader = self._connect(self.events_path, socket.SOCK_STREAM)
        self.attempt(None)  # answered after the reader was taken, or together with it
        self.attempt(None)
        return reader

    def ask(
        self, connection: socket.socket, address: bytes = b"192.0.2.1", account: bytes = b"alice"
    ) -> Answer:
        """Put a question and return the answer."""
        connection.send(wire.pack_question(Question(b"pop3", address, account)))
        return wire.parse_answer(connection.recv(wire.ANSWER_LIMIT))

    def attempt(
        self, outcome: Outcome | None, address: bytes = b"192.0.2.1", account: bytes = b"alice"
    ) -> Answer:
        """Go through one attempt; return what the answer was."""
        with self.connect() as connection:
            answer = self.ask(connection, address, account)
            if outcome:
                connection.send(outcome.value)
                assert connection.recv(1) == b""  # so it has been taken note of
        return answer

    def log(self) -> str:
        return self._log.read_text()

    @staticmethod
    def _connect(path: Path, kind: int) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, kind)
        connection.settimeout(PATIENCE)
        connection.connect(str(path))
        return connection


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that any user may enter; pytest's own are root's alone, and stay so."""
    with tempfile.TemporaryDirectory(prefix="guard-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
def start_guard(open_dir: Path) -> Iterator[Callable[..., Guard]]:
    """Return a function that starts authguardd and waits until it is ready.

    Its argument is called in the new process first; options are added to the command line.
    """
    started: list[int] = []

    def start(*options: str, prepare: Callable[[], object] = lambda: None) -> Guard:
        ready, notify = os.pipe()
        pid = os.fork()
        if pid == 0:
            _be_daemon(notify, options, prepare, open_dir)
        os.close(notify)
        started.append(pid)
        assert select.select([ready], [], [], PATIENCE)[0], "not ready"
        assert os.read(ready, 9) == b"\n", (open_dir / "log").read_text()
        os.close(ready)
        return Guard(pid, open_dir)

    yield start
    for pid in started:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _be_daemon(
    notify: int, options: tuple[str, ...], prepare: Callable[[], object], directory: Path
) -> None:
    try:
        os.dup2(os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        prepare()
        fixed = ["-n", str(notify), "-u", str(GUARD), "-g", str(GUARD_GROUP)]
        sockets = [str(directory / "guard.sock"), str(directory / "events.sock")]
        daemon.main(["authguardd", *fixed, *options, *sockets], {})
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(99)
