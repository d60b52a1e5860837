"""A server that records its bytes, a qmail home that leads to it, and qmail-remote."""

import datetime
import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pyqmail.remote import program

DEADLINE = 20  # seconds within which anything that is waited for must happen
MESSAGE = b"Subject: x\n\n.dot\nbody\n"


class Sink(threading.Thread):
    """A small SMTP server that records, per connection, all bytes it gets.

    Attributes:
        replies: verb -> reply without CR LF; None: the connection is closed instead.
        extensions: what EHLO offers.
        context: for STARTTLS, which is then offered.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server((host, port))
        self.listener.settimeout(DEADLINE)
        self.host, self.port = self.listener.getsockname()[:2]
        self.replies: dict[str, str | None] = {}
        self.extensions: list[str] = []
        self.extensions_in_tls: list[str] | None = None
        self.context: ssl.SSLContext | None = None
        self.records: list[bytes] = []
        self.batches: list[bytes] = []  # what arrived in one piece, before the data
        self.messages: list[bytes] = []
        self.secure: list[bool] = []
        self.connection: socket.socket | None = None  # the last one
        self.start()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.settimeout(DEADLINE)
            self.connection = connection
            self.records.append(b"")
            self.secure.append(False)
            try:
                self.serve(connection)
            except OSError:
                pass
            finally:
                connection.close()

    def close(self) -> None:
        if self.listener.fileno() >= 0:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
        self.join(DEADLINE)

    def cut(self) -> None:
        """End as a server does that is killed: nothing is said."""
        if self.connection is not None:
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close()

    def serve(self, connection: socket.socket) -> None:
        buffer = b""
        if not self.say(connection, "greeting", "220 sink ESMTP"):
            return
        while True:
            while b"\n" not in buffer:
                data = connection.recv(65536)
                if not data:
                    return
                self.records[-1] += data
                self.batches.append(data)
                buffer += data
            line, _, buffer = buffer.partition(b"\n")
            verb = line.split(b" ")[0].strip().upper().decode()
            default = {"DATA": "354 go ahead", "QUIT": "221 bye", "EHLO": self.offer()}
            default["STARTTLS"] = "220 ready"
            if not self.say(connection, verb, default.get(verb, "250 ok")):
                return
            said = self.replies.get(verb, "") if verb in ("STARTTLS", "AUTH", "DATA") else ""
            if verb == "STARTTLS" and not said:
                assert self.context is not None
                connection = self.context.wrap_socket(connection, server_side=True)
                self.secure[-1] = True
            elif verb == "AUTH" and said and said.startswith("334"):
                for answer in self.replies["challenges"].split("|"):  # type: ignore[union-attr]
                    self.records[-1] += connection.recv(65536)
                    connection.sendall(answer.encode() + b"\r\n")
            elif verb == "DATA" and (not said or said.startswith("354")):
                while not (b"\r\n" + buffer).endswith(b"\r\n.\r\n"):
                    data = connection.recv(65536)
                    if not data:
                        return
                    self.records[-1] += data
                    buffer += data
                self.messages.append(buffer)
                buffer = b""
                if not self.say(connection, "message", "250 queued"):
                    return

    def offer(self) -> str:
        names = list(self.extensions)
        if self.secure[-1] and self.extensions_in_tls is not None:
            names = list(self.extensions_in_tls)
        elif self.context is not None and not self.secure[-1]:
            names.append("STARTTLS")
        lines = ["sink", *names]
        return "\r\n".join(
            f"250{' ' if i == len(lines) - 1 else '-'}{n}" for i, n in enumerate(lines)
        )

    def say(self, connection: socket.socket, what: str, default: str) -> bool:
        reply = self.replies.get(what, default)
        if reply is not None:
            connection.sendall(reply.encode("latin-1") + b"\r\n")
        return reply is not None


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.close()


@pytest.fixture
def home(tmp_path: Path, sink: Sink) -> Path:
    (tmp_path / "control").mkdir()
    (tmp_path / "control/me").write_text("client.example.org\n")
    (tmp_path / "control/timeoutremote").write_text("5\n")
    (tmp_path / "control/timeoutconnect").write_text("5\n")
    (tmp_path / "control/smtproutes").write_text(f":127.0.0.1:{sink.port}\n")
    return tmp_path


Remote = Callable[..., bytes]


@pytest.fixture
def remote(home: Path) -> Iterator[Remote]:
    """Run qmail-remote in this process and return what it prints."""
    kept = os.dup(0), os.dup(1), os.getcwd()

    def run(
        *recipients: str,
        host: str = "example.net",
        sender: str = "sam@example.org",
        message: bytes = MESSAGE,
    ) -> bytes:
        (home / "message").write_bytes(message)
        source = os.open(home / "message", os.O_RDONLY)
        target = os.open(home / "reports", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(source, 0)
        os.dup2(target, 1)
        os.close(source)
        os.close(target)
        words = [host, sender, *(recipients or ("joe@example.net",))]
        try:
            assert program.main(["qmail-remote", *words], {"QMAIL_HOME": str(home)}) == 0
        finally:
            os.dup2(kept[0], 0)
            os.dup2(kept[1], 1)
            os.chdir(kept[2])
        return (home / "reports").read_bytes()

    yield run
    os.close(kept[0])
    os.close(kept[1])


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for mx.example.net and 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sink")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName(
        [x509.DNSName("mx.example.net"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


@pytest.fixture
def secure_sink(sink: Sink, certificate: Path) -> Sink:
    sink.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    sink.context.load_cert_chain(certificate)
    return sink
