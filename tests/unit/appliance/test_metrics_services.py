"""What s6 knows of a service, and the certificate that the service shows."""

import datetime
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from appliance import certificate, metrics_services
from appliance.layout import Layout
from appliance.metrics_services import Certificates, Status, parse_status

# As s6 2.13 of Debian wrote it; s6-svstat said: up, ready, wanted up.
SEEN = bytes.fromhex(
    "400000006b037f65098f55cd400000006b037f6f28c9b4280000000000000035000000000000003500000c"
)


def test_what_s6_wrote_is_understood() -> None:
    found = parse_status(SEEN)
    assert found is not None
    assert (found.up, found.ready) == (True, True)
    when = datetime.datetime.fromtimestamp(found.changed, datetime.UTC)
    assert f"{when:%Y-%m-%d %H:%M:%S}" == "2026-11-22 23:48:16"


def test_a_service_without_a_process_is_down() -> None:
    down = SEEN[:24] + bytes(16) + SEEN[40:]
    assert parse_status(down) == Status(False, False, parse_status(SEEN).changed)  # type: ignore[union-attr]


def test_a_service_that_is_finishing_is_down() -> None:
    assert parse_status(SEEN[:-1] + b"\x0e") == parse_status(SEEN)._replace(  # type: ignore[union-attr]
        up=False, ready=False
    )


def test_an_older_s6_is_understood() -> None:
    assert parse_status(SEEN[:32] + SEEN[40:]) == parse_status(SEEN)


@given(st.binary(max_size=60) | st.binary(min_size=43, max_size=43))
def test_what_is_no_status_is_none(content: bytes) -> None:
    found = parse_status(content)
    assert found is None or len(content) in (35, 43)


def test_a_truncated_status_is_none() -> None:
    for size in range(len(SEEN)):
        if size != 35:
            assert parse_status(SEEN[:size]) is None


@pytest.fixture
def running(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path))


def service(running: Layout, name: str, check: str) -> Path:
    directory = Path(running.services, name)
    for part in ("data", "env", "supervise"):
        (directory / part).mkdir(parents=True)
    (directory / "data/check").write_text(check + "\n")
    (directory / "supervise/status").write_bytes(SEEN)
    return directory


def test_status_of_a_service(running: Layout) -> None:
    directory = service(running, "mx", "")
    (directory / "notification-fd").write_text("3\n")
    assert metrics_services.status(running, "mx") == parse_status(SEEN)


def test_a_service_that_never_says_so_is_not_unready(running: Layout) -> None:
    service(running, "queue", "")
    found = metrics_services.status(running, "queue")
    assert found is not None
    assert (found.up, found.ready) == (True, None)


def test_no_status(running: Layout) -> None:
    assert metrics_services.status(running, "mx") is None


def showing(pem: tuple[bytes, bytes], directory: Path) -> int:
    """Serve POP3 over TLS with a key and certificate; return the port."""
    key, cert = pem
    (directory / "key").write_bytes(key)
    (directory / "cert").write_bytes(cert)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert", directory / "key")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with (
            listener,
            listener.accept()[0] as plain,
            context.wrap_socket(plain, server_side=True) as client,
        ):
            client.sendall(b"+OK\r\n")
            client.recv(100)
            client.sendall(b"+OK\r\n.\r\n")
            client.recv(100)
            client.sendall(b"+OK\r\n")

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


def test_the_end_of_the_certificate_that_is_shown(running: Layout, tmp_path: Path) -> None:
    pem = certificate.make("mail.example.org")
    port = showing(pem, tmp_path)
    service(running, "pop3s", f"pop3 127.0.0.1 {port} implicit")
    service(running, "authguardd", "seqpacket /nowhere")
    said: list[str] = []
    certificates = Certificates(running, said.append)
    certificates.look()
    expected = x509.load_pem_x509_certificate(pem[1]).not_valid_after_utc.timestamp()
    assert certificates.ends == {"pop3s": expected}
    assert said == []


@pytest.mark.parametrize("check", ["smtp 127.0.0.1 1 starttls", "", "fifo /nowhere"])
def test_a_service_that_shows_none_has_no_end(running: Layout, check: str) -> None:
    service(running, "mx", check)
    said: list[str] = []
    certificates = Certificates(running, said.append)
    certificates.look()
    certificates.look()
    assert certificates.ends == {}
    assert len(said) == check.startswith("smtp")  # and that once


def test_without_tls_nobody_is_asked(running: Layout) -> None:
    service(running, "mx", "smtp 127.0.0.1 1 plain")
    assert metrics_services.shown_certificate(running, "mx") == b""
