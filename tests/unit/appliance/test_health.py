"""``postern health`` against services that work, and that fail in every way they can."""

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance import certificate, health
from appliance.layout import Layout

Dialogue = Callable[["Peer"], None]


class Peer:
    """The server's end of a connection."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        self.connection = connection
        self._context = context

    def say(self, *lines: str) -> None:
        self.connection.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def hear(self) -> str:
        line = b""
        while not line.endswith(b"\n") and (byte := self.connection.recv(1)):
            line += byte
        return line.decode().strip()

    def start_tls(self) -> None:
        self.connection = self._context.wrap_socket(self.connection, server_side=True)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    directory = tmp_path_factory.mktemp("tls")
    key, pem = certificate.make("mail.example.org")
    (directory / "key").write_bytes(key)
    (directory / "cert").write_bytes(pem)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(directory / "cert", directory / "key")
    return made


@contextmanager
def serving(dialogue: Dialogue, context: ssl.SSLContext) -> Iterator[int]:
    """Serve one connection with dialogue; give the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            peer = Peer(connection, context)
            try:
                dialogue(peer)
            except OSError:
                pass
            finally:
                peer.connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def service(places: Layout, name: str, check: str) -> None:
    directory = Path(places.services, name, "data")
    directory.mkdir(parents=True)
    (directory / "check").write_text(check + "\n")


@pytest.fixture
def scan(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path))


def smtp(peer: Peer, *, tls: str) -> None:
    if tls == "implicit":
        peer.start_tls()
    peer.say("220 mail.example.org ESMTP")
    assert peer.hear().startswith("EHLO")
    peer.say("250-mail.example.org", *(["250-STARTTLS"] if tls == "starttls" else []), "250 SIZE")
    if tls == "starttls":
        assert peer.hear() == "STARTTLS"
        peer.say("220 ready")
        peer.start_tls()
        assert peer.hear().startswith("EHLO")
        peer.say("250 mail.example.org")
    assert peer.hear() == "NOOP"
    peer.say("250 ok")
    assert peer.hear() == "QUIT"
    peer.say("221 bye")


def pop3(peer: Peer, *, tls: str) -> None:
    if tls == "implicit":
        peer.start_tls()
    peer.say("+OK <1.2@mail.example.org>")
    assert peer.hear() == "CAPA"
    peer.say("+OK", *(["STLS"] if tls == "starttls" else []), "USER", ".")
    if tls == "starttls":
        assert peer.hear() == "STLS"
        peer.say("+OK")
        peer.start_tls()
    assert peer.hear() == "QUIT"
    peer.say("+OK")


@pytest.mark.parametrize("tls", ["plain", "starttls", "implicit"])
@pytest.mark.parametrize("protocol", ["smtp", "pop3"])
def test_working_service_is_healthy(
    scan: Layout, context: ssl.SSLContext, protocol: str, tls: str
) -> None:
    dialogue = {"smtp": smtp, "pop3": pop3}[protocol]
    with serving(lambda peer: dialogue(peer, tls=tls), context) as port:
        service(scan, "it", f"{protocol} 127.0.0.1 {port} {tls}")
        assert health.main(["health"], {}, scan) == 0


def refuse(peer: Peer) -> None:
    peer.say("421 too many connections")


def no_starttls(peer: Peer) -> None:
    peer.say("220 x")
    peer.hear()
    peer.say("250 x")


def hang_up(peer: Peer) -> None:
    peer.say("220-half of it")


def babble(peer: Peer) -> None:
    peer.connection.sendall(b"x" * 10000)


def endless(peer: Peer) -> None:
    peer.say(*["220-again"] * 100)


def no_handshake(peer: Peer) -> None:
    peer.say("220 x")
    peer.hear()
    peer.say("250 STARTTLS")
    peer.hear()
    peer.say("220 x")
    peer.connection.recv(4096)
    peer.say("500 no")
    while peer.connection.recv(4096):  # closing with something unread would be a reset
        pass


@pytest.mark.parametrize(
    ("dialogue", "told"),
    [
        (refuse, "said '421 too many connections' instead of 220"),
        (no_starttls, "does not offer STARTTLS"),
        (hang_up, "closed the connection"),
        (babble, "sent a line without end"),
        (endless, "sent a reply without end"),
        (no_handshake, "SSL"),
    ],
)
def test_failing_service_is_one_line_that_says_how(
    scan: Layout,
    context: ssl.SSLContext,
    capsys: pytest.CaptureFixture[str],
    dialogue: Dialogue,
    told: str,
) -> None:
    with serving(dialogue, context) as port:
        service(scan, "mx", f"smtp 127.0.0.1 {port} starttls")
        assert health.main(["health"], {}, scan) == 1
    said = capsys.readouterr().out
    assert said.startswith("mx: ")
    assert told in said
    assert said.count("\n") == 1


def test_silent_service_does_not_take_longer_than_the_deadline(
    scan: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(health, "DEADLINE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        service(scan, "mx", f"smtp 127.0.0.1 {port} plain")
        service(scan, "pop3", f"pop3 127.0.0.1 {port} plain")
        assert health.main(["health"], {}, scan) == 1
    assert capsys.readouterr().out == "mx: no answer in time\npop3: no answer in time\n"


def test_nobody_listens(scan: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    service(scan, "mx", f"smtp 127.0.0.1 {port} plain")
    assert health.main(["health"], {}, scan) == 1
    assert capsys.readouterr().out == "mx: Connection refused\n"


@pytest.mark.parametrize("kind", ["stream", "seqpacket"])
def test_unix_sockets(scan: Layout, tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "socket")
    service(scan, "it", f"{kind} {path}")
    assert health.main(["health"], {}, scan) == 1
    number = {"stream": socket.SOCK_STREAM, "seqpacket": socket.SOCK_SEQPACKET}[kind]
    with socket.socket(socket.AF_UNIX, number) as listener:
        listener.bind(path)
        listener.listen()
        assert health.main(["health"], {}, scan) == 0


def test_trigger_needs_a_reader_and_is_not_pulled(
    scan: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "trigger")
    os.mkfifo(path)
    service(scan, "queue", f"fifo {path}")
    assert health.main(["health"], {}, scan) == 1
    assert capsys.readouterr().out == f"queue: nobody reads {path}\n"
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert health.main(["health"], {}, scan) == 0
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


def test_one_service_can_be_asked_alone(scan: Layout, tmp_path: Path) -> None:
    service(scan, "broken", f"stream {tmp_path}/none")
    path = str(tmp_path / "trigger")
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    service(scan, "queue", f"fifo {path}")
    assert health.main(["health", "--service", "queue"], {}, scan) == 0
    assert health.main(["health", "--service", "broken"], {}, scan) == 1
    assert health.main(["health", "--service", "none"], {}, scan) == 1
    os.close(reader)


def test_before_the_start_nothing_is_healthy(
    scan: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    assert health.main(["health"], {}, scan) == 1
    assert capsys.readouterr().out == "no services: not started yet\n"


@pytest.mark.parametrize("words", [["x"], ["--service"], ["--service", "../x"], ["--service", ""]])
def test_wrong_usage(scan: Layout, words: list[str]) -> None:
    assert health.main(["health", *words], {}, scan) == 100


def test_health_loads_nothing_heavy() -> None:
    """It runs every few seconds: no templates, no cryptography, no ssl before it is needed."""
    code = (
        "import sys; from appliance import postern, health; "
        "postern.main(['postern', 'health', 'x'], {}); "
        "heavy = {'ssl', 'jinja2', 'pydantic', 'argparse', 'subprocess', 'asyncio', 'hashlib'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
