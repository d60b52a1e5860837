"""A real acceptserver on a free port of 127.0.0.1, its clients, and throw-away certificates."""

import datetime
import ipaddress
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PATIENCE = 20.0  # seconds until a test gives up waiting

# A chain's program as any other: lines in, lines out. It is registered for the tests only.
PROGRAM = """
import os, socket, sys, time
from acceptutils import ucspitls
from ucspi import chain

def say(text):
    data = text.encode() + b"\\n"
    while data:
        data = data[os.write(1, data):]

def line():
    got = b""
    while not got.endswith(b"\\n"):
        byte = os.read(0, 1)
        if not byte:
            return None
        got += byte
    return got.decode("latin-1").strip()

def main(argv, env):
    if len(argv) > 1:
        if argv[1] == "then":
            return chain.run(argv[2:], env)
    say("220 ready")
    while (command := line()) is not None:
        word, _, rest = command.partition(" ")
        if word == "QUIT":
            say("221 bye")
            return 0
        if word == "EXIT":
            return int(rest)
        if word == "BOOM":
            raise RuntimeError("boom\\nforged line")
        if word == "STARTTLS":
            ucspitls.take_availability(env)
            say("220 go")
            ucspitls.start(env)
        elif word == "ENV":
            say(env.get(rest, "(unset)"))
        elif word == "PID":
            say(f"{os.getpid()} {os.getppid()}")
        elif word == "MODULES":
            say(" ".join(sorted(sys.modules)))
        elif word == "ECHO":
            say("220 echo")
            while data := os.read(0, 65536):
                while data:
                    data = data[os.write(1, data):]
            return 0
        elif word == "SINK":
            total = 0
            while data := os.read(0, 65536):
                total += len(data)
            say(f"250 {total}")
            return 0
        elif word == "NODELAY":
            sock = socket.socket(fileno=os.dup(0))
            say(str(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
        elif word == "SEND":
            data = memoryview(bytes(int(rest)))
            while data:
                data = data[os.write(1, data):]
            return 0
        else:
            say("500 what")
    return 0
"""


def wait_until(true: Callable[[], Any], what: str = "") -> Any:
    """Ask again and again until true() is; fail after PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while True:
        if result := true():
            return result
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)


class Certificate:
    """A self-signed certificate for name, in two files that can be replaced."""

    def __init__(self, directory: Path, name: str, stem: str = "tls") -> None:
        self.certificate = directory / f"{stem}-cert.pem"
        self.key = directory / f"{stem}-key.pem"
        self.issue(name)

    def issue(self, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(
                x509.SubjectAlternativeName(
                    [
                        x509.DNSName(name),
                        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                    ]
                ),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        key_bytes = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        replace(self.key, key_bytes, 0o400)
        replace(self.certificate, certificate.public_bytes(serialization.Encoding.PEM), 0o444)

    @property
    def env(self) -> dict[str, str]:
        return {
            "CERTFILE": str(self.certificate),
            "KEYFILE": str(self.key),
            "TLS_UID": "7801",
            "TLS_GID": "7801",
        }


def replace(path: Path, content: bytes, mode: int = 0o444) -> None:
    """Put content at path in one step, as every careful tool does."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.chmod(mode)
    fresh.rename(path)


class Client:
    """A client that reads lines."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self.sock = sock
        self._buffer = b""

    def line(self) -> str:
        while b"\n" not in self._buffer:
            chunk = self.sock.recv(65536)
            if not chunk:
                rest, self._buffer = self._buffer, b""
                return rest.decode()
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode().rstrip("\r")

    def rest(self) -> bytes:
        chunks = [self._buffer]
        self._buffer = b""
        while chunk := self.sock.recv(65536):
            chunks.append(chunk)
        return b"".join(chunks)

    def say(self, text: str) -> None:
        self.sock.sendall(text.encode() + b"\r\n")

    def ask(self, text: str) -> str:
        self.say(text)
        return self.line()

    def start_tls(self, context: ssl.SSLContext | None = None, name: str = "localhost") -> None:
        assert self.ask("STARTTLS") == "220 go"
        self.wrap(context, name)

    def wrap(self, context: ssl.SSLContext | None = None, name: str | None = "localhost") -> None:
        self.sock = (context or lax()).wrap_socket(
            self.sock, server_hostname=name, suppress_ragged_eofs=False
        )

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def lax() -> ssl.SSLContext:
    """A client's context that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Server:
    """A running acceptserver and its log."""

    def __init__(
        self,
        directory: Path,
        words: list[str],
        env: dict[str, str],
        through: list[str],
    ) -> None:
        self.log_path = directory / f"log.{time.monotonic_ns()}"
        self.ready_read, ready_write = os.pipe()
        os.set_inheritable(ready_write, True)
        words = ["-n", str(ready_write), *words]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*through, sys.executable, "-m", "ucspi", "acceptserver", *words],
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(directory), **env},
                stdin=subprocess.DEVNULL,
                stderr=log,
                pass_fds=[ready_write],
            )
        os.close(ready_write)
        readable, _, _ = select.select([self.ready_read], [], [], PATIENCE)
        assert readable, "not ready in time"
        self.notified = os.read(self.ready_read, 10)
        self.port = 0
        if self.notified:
            first = next(line for line in self.log().splitlines() if " listening on " in line)
            self.port = int(first.split()[1])

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        return self.log_path.read_text()

    def wait_for_log(self, text: str, times: int = 1) -> str:
        wait_until(lambda: self.log().count(text) >= times, f"{text!r} in:\n{self.log()}")
        return next(line for line in self.log().splitlines() if text in line)

    def connect(self, host: str = "127.0.0.1") -> Client:
        return Client(socket.create_connection((host, self.port), timeout=PATIENCE))

    def zygotes(self) -> list[int]:
        """The server's TLS zygotes that are alive."""
        return [pid for pid in children(self.pid) if comm(pid) == "tls-zygote"]

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        os.close(self.ready_read) if self.ready_read >= 0 else None
        self.ready_read = -1
        return self.process.returncode


def children(pid: int) -> list[int]:
    """The process ids of pid's children that are not zombies."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [int(child) for child in found if status(int(child)).get("State", "Z")[0] != "Z"]


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def status(pid: int) -> dict[str, str]:
    """The fields of /proc/PID/status."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    return {
        name: value.strip()
        for name, _, value in (line.partition(":") for line in text.splitlines())
    }


def descriptors(pid: int) -> dict[int, str]:
    """What each open descriptor of pid is."""
    found = {}
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            found[int(entry.name)] = os.readlink(entry.path)
        except FileNotFoundError:
            pass  # closed meanwhile
    return found


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start an acceptserver: run(options, program, env)."""
    tmp_path.chmod(0o755)
    metadata = tmp_path / "line_server-1.dist-info"
    metadata.mkdir()
    (metadata / "entry_points.txt").write_text(
        "[acceptutils.programs]\nline-server = line_server:main\n"
    )
    (tmp_path / "line_server.py").write_text(PROGRAM)
    running = []

    def start(
        *options: str,
        program: list[str] | None = None,
        env: dict[str, str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        through: list[str] | None = None,
    ) -> Server:
        words = [*options, host, str(port), *(program or ["line-server"])]
        server = Server(tmp_path, words, env or {}, through or [])
        running.append(server)
        return server

    yield start
    for server in running:
        server.stop()
        print(server.log())  # pytest shows it when the test fails
        assert "Traceback" not in server.log()


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    """A certificate for mail.example.org; its key is root's alone."""
    return Certificate(tmp_path, "mail.example.org")
