"""An account store, and checkpasswordd as a real process."""

import json
import os
import select
import signal
import socket
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import argon2
import pytest

from acceptutils.checkpassword import daemon, wire
from acceptutils.checkpassword.wire import Identity, Question

PATIENCE = 20.0  # seconds until a test gives up; nothing here takes one
VERIFIER = 7802  # the uid and gid of checkpasswordd

CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
ALICE = {
    "uid": 20000,
    "gid": 20000,
    "home": "/",
    "hash": CHEAP.hash("swordfish"),
    "state": "enabled",
}


class Store:
    """An accounts file that a test writes as ``postern`` does: by rename."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, **alice: object) -> None:
        home = str(self.path.parent / "home")
        self.write_raw(
            json.dumps(
                {
                    "version": 1,
                    "domains": ["example.org"],
                    "accounts": {"alice@example.org": {**ALICE, "home": home, **alice}},
                }
            )
        )

    def write_raw(self, content: str) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(content)
        new.chmod(0o644)
        new.rename(self.path)


class Daemon:
    """A running checkpasswordd."""

    def __init__(self, pid: int, path: Path, log: Path) -> None:
        self.pid = pid
        self.path = path
        self._log = log

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(PATIENCE)
        connection.connect(str(self.path))
        return connection

    def raw(self, record: bytes) -> bytes:
        with self.connect() as connection:
            connection.send(record)
            return connection.recv(wire.ANSWER_LIMIT)

    def ask(
        self, user: bytes = b"alice", password: bytes = b"swordfish", service: bytes = b"pop3"
    ) -> Identity | None:
        answer = self.raw(wire.pack_question(Question(service, user, password)))
        assert answer, self.log()
        return wire.parse_answer(answer)

    def log(self) -> str:
        return self._log.read_text()


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that any user may enter; pytest's own are root's alone, and stay so."""
    with tempfile.TemporaryDirectory(prefix="checkpassword-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
def store(open_dir: Path) -> Store:
    """A store with alice@example.org, password swordfish."""
    home = open_dir / "home"
    home.mkdir(mode=0o755)
    if os.getuid() == 0:
        os.chown(home, 20000, 20000)
    made = Store(open_dir / "accounts.json")
    made.write()
    return made


@pytest.fixture
def start_daemon(open_dir: Path, store: Store) -> Iterator[Callable[..., Daemon]]:
    """Return a function that starts checkpasswordd and waits until it is ready.

    Its argument is called in the new process first.
    """
    started: list[int] = []

    def start(prepare: Callable[[], Any] = lambda: None) -> Daemon:
        log = open_dir / "log"
        path = open_dir / "checkpassword.sock"
        ready, notify = os.pipe()
        pid = os.fork()
        if pid == 0:
            _be_daemon(
                ["-n", str(notify), "-u", str(VERIFIER), "-g", str(VERIFIER)],
                log,
                prepare,
                store.path,
                path,
            )
        os.close(notify)
        started.append(pid)
        assert select.select([ready], [], [], PATIENCE)[0], "not ready"
        assert os.read(ready, 9) == b"\n", log.read_text()
        os.close(ready)
        return Daemon(pid, path, log)

    yield start
    for pid in started:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _be_daemon(
    options: list[str], log: Path, prepare: Callable[[], Any], store: Path, path: Path
) -> None:
    try:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        prepare()
        daemon.main(["checkpasswordd", *options, str(store), str(path)], {})
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(99)
