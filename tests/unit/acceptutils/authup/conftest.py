"""authup as a real process, with the test on the client's side of it."""

import os
import select
import signal
import socket
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from acceptutils import identity, ucspitls
from acceptutils.authup import program
from ucspi import chain

PATIENCE = 20.0  # seconds until a test gives up; nothing here takes one

PARSER = 7800  # the uid and gid of P
ACCOUNT = 20000  # the uid and gid of whoever gives a right password

T = TypeVar("T")


def fake_checkpassword(argv: list[str], env: dict[str, str]) -> int:
    """A registered checkpassword: the password says what to do."""
    user, password, timestamp, rest = os.read(3, 65536).split(b"\0")
    assert rest == b""
    os.close(3)
    os.write(2, b"blob %r %r\n" % (user, timestamp))
    if password.startswith(b"exit "):
        return int(password[5:])
    if password == b"raise":
        raise ZeroDivisionError("in checkpassword")
    if password == b"kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if password not in (b"right", b"root"):
        return 1
    if password == b"right" and os.getuid() == 0:
        identity.become(ACCOUNT, ACCOUNT)
    return chain.run(argv[1:], env)


def fake_session(argv: list[str], env: dict[str, str]) -> int:
    """A registered session: ``session WHAT [ARGUMENT] STATUS``."""
    if argv[1] == "env":
        os.write(1, env.get(argv[2], "(unset)").encode("utf-8", "surrogateescape") + b"\r\n")
    elif argv[1] == "echo":  # what the client sends, until its end of file
        os.write(1, b"ready\r\n")
        while data := os.read(0, 65536):
            os.write(1, b"<%b>" % data)
    elif argv[1] == "straggle":  # end before a child that waits for the client's end
        if os.fork() == 0:
            os.write(1, b"left behind\r\n")
            os.read(0, 1)
            os._exit(0)
    elif argv[1] == "raise":
        raise ZeroDivisionError("in the session")
    elif argv[1] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return int(argv[-1])


def wait_until(look: Callable[[], T]) -> T:
    """Return what look returns as soon as that is true; fail after a while."""
    end = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)
    return found


class Client:
    """The client of one authup process, and where TLS is offered the engine too."""

    def __init__(self, pid: int, connection: socket.socket, log: Path) -> None:
        self.pid = pid
        self.log_path = log
        self._socket = connection
        self.reading = self.writing = connection.fileno()
        self.engine: socket.socket | None = None  # the other end of SSLCTLFD
        self.inside = (-1, -1)  # the other ends of SSLREADFD and SSLWRITEFD
        self._status: int | None = None

    def close(self) -> None:
        """End what still runs and let go of everything."""
        if self._status is None:
            for pid in [*self.children(), self.pid]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            os.waitpid(self.pid, 0)
        self.hang_up()
        if self.engine:
            self.engine.close()
        for descriptor in self.inside:
            if descriptor >= 0:
                os.close(descriptor)

    def hang_up(self) -> None:
        """Be gone."""
        self._socket.close()

    def half_close(self) -> None:
        """Send the end of file, and go on reading."""
        self._socket.shutdown(socket.SHUT_WR)

    def send(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.writing, data) :]

    def receive(self, size: int = 65536) -> bytes:
        assert select.select([self.reading], [], [], PATIENCE)[0], f"silence; log: {self.log()}"
        return os.read(self.reading, size)

    def expect(self, expected: bytes) -> None:
        """Receive exactly these bytes."""
        got = b""
        while len(got) < len(expected) and expected.startswith(got):
            chunk = self.receive(len(expected) - len(got))
            if not chunk:
                break
            got += chunk
        assert got == expected, f"log: {self.log()}"

    def expect_end(self, last: bytes = b"") -> None:
        """Receive these bytes and then the end of file."""
        self.expect(last)
        assert self.receive() == b"", f"log: {self.log()}"

    def says(self, line: bytes, reply: bytes) -> None:
        """Send a line and expect exactly this reply."""
        self.send(line + b"\r\n")
        self.expect(reply)

    def start_tls(self, variables: bytes = b"SSL_PROTOCOL=TLSv1.3\0\0") -> None:
        """Be the engine: wait to be asked, and go on inside."""
        assert self.engine
        self.engine.settimeout(PATIENCE)
        assert self.engine.recv(1) == b"Y"
        self.engine.sendall(variables)
        self.writing, self.reading = self.inside

    def status(self) -> int:
        """Wait for the process; return its exit status, minus the signal if killed."""
        if self._status is None:
            pidfd = os.pidfd_open(self.pid)
            try:
                assert select.select([pidfd], [], [], PATIENCE)[0], f"runs on; log: {self.log()}"
            finally:
                os.close(pidfd)
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def children(self) -> list[int]:
        """Return the process ids of authup's children."""
        try:
            text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return []
        return [int(word) for word in text.split()]

    def broker(self) -> int:
        """Return the process id of the broker."""
        (found,) = wait_until(self.children)
        return found

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def log_lines(self) -> list[str]:
        """Return authup's own log lines, with its process id as PID."""
        lines = self.log().replace(f"authup {self.pid} ", "authup PID ").splitlines()
        return [line for line in lines if line.startswith("authup ")]

    wait_until = staticmethod(wait_until)


class Start(Protocol):
    """See `authup`."""

    def __call__(
        self,
        *arguments: str,
        tls: bool = False,
        connection: int | None = None,
        uid: int | None = None,
        **env: str,
    ) -> Client: ...


@pytest.fixture
def home() -> Iterator[Path]:
    """A qmail home, for any user to enter, with what both protocols need in control/."""
    with tempfile.TemporaryDirectory(prefix="authup-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        control = path / "control"
        control.mkdir()
        (control / "me").write_text("mail.example.org\n")
        (control / "smtpcapabilities").write_text("PIPELINING\n8BITMIME\n")
        (control / "pop3capabilities").write_text("TOP\nUIDL\n")
        yield path


@pytest.fixture
def authup(home: Path) -> Iterator[Start]:
    """Return a function that starts ``authup ARGUMENTS`` with ENV.

    Two programs are registered beside the real ones: checkpw and session (see
    fake_checkpassword and fake_session). With tls, the test is the TLS engine as well.
    With connection, that is what it serves, and the other end is the test's own affair.
    With uid, it is started as that user.
    """
    clients: list[Client] = []

    def start(
        *arguments: str,
        tls: bool = False,
        connection: int | None = None,
        uid: int | None = None,
        **env: str,
    ) -> Client:
        log = home / f"log{len(clients)}"
        ours, theirs = socket.socketpair()
        full_env = {"QMAIL_HOME": str(home), "PATH": os.environ["PATH"]}
        if os.getuid() == 0:
            full_env |= {"AUTHUP_UID": str(PARSER), "AUTHUP_GID": str(PARSER)}
        full_env |= env
        kept: dict[int, Any] = {}
        if tls:
            engine, control = socket.socketpair()
            read_in, write_in = os.pipe()
            read_out, write_out = os.pipe()
            full_env |= {
                "SSLCTLFD": str(control.fileno()),
                "SSLREADFD": str(read_in),
                "SSLWRITEFD": str(write_out),
            }
            kept = {control.fileno(): control, read_in: None, write_out: None}
        pid = os.fork()
        if pid == 0:
            served = theirs.fileno() if connection is None else connection
            _be_authup([*arguments], full_env, served, log, set(kept), uid)
        theirs.close()
        client = Client(pid, ours, log)
        if tls:
            client.engine = engine
            client.inside = (write_in, read_out)
            control.close()
            os.close(read_in)
            os.close(write_out)
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.close()


def _be_authup(
    arguments: list[str],
    env: dict[str, str],
    client: int,
    log: Path,
    kept: set[int],
    uid: int | None,
) -> None:
    status = 99
    try:
        os.dup2(client, 0)
        os.dup2(client, 1)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        program.close_all_but(kept)
        fakes = {"checkpw": fake_checkpassword, "session": fake_session}
        chain._targets = dict.fromkeys(fakes, "")
        chain._loaded.update(fakes)
        ucspitls.provider = None
        if uid is not None:
            os.setuid(uid)
        status = program.main(["authup", *arguments], env)
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)
