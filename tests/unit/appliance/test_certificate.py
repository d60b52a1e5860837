"""The certificate: made when missing, kept while it fits, and never somebody else's lost."""

import datetime
import os
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from appliance import certificate
from appliance.certificate import CertificateError, check, ensure_self_signed
from appliance.layout import Layout
from appliance.render import Tls

HOST = "mail.example.org"


@pytest.fixture
def home(tmp_path: Path) -> Layout:
    layout = Layout(str(tmp_path))
    os.makedirs(layout.tls)
    return layout


def both(places: Layout) -> tuple[bytes, bytes]:
    return Path(places.certificate).read_bytes(), Path(places.key).read_bytes()


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> str | None:
    """Shake hands over a socket pair; return the version that was agreed on."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except (ssl.SSLError, OSError):
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=HOST) as wrapped:
            return wrapped.version()
    finally:
        thread.join()


def test_made_at_the_first_start_and_said_so(home: Layout) -> None:
    state = ensure_self_signed(home, HOST)
    assert state.tls == Tls(home.certificate, home.key)
    assert "MADE A SELF-SIGNED CERTIFICATE for mail.example.org" in state.notice
    assert os.stat(home.key).st_mode & 0o777 == 0o400
    key = serialization.load_pem_private_key(Path(home.key).read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"


def test_client_that_trusts_it_accepts_the_host_name_even_when_strict(home: Layout) -> None:
    tls = ensure_self_signed(home, HOST).tls
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*tls)
    client = ssl.create_default_context(cafile=tls.cert)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    assert handshake(server, client) == "TLSv1.3"


def test_used_again_at_the_next_start(home: Layout) -> None:
    ensure_self_signed(home, HOST)
    before = both(home)
    assert "MADE" not in ensure_self_signed(home, HOST).notice
    assert both(home) == before


def test_made_anew_for_another_host_name(home: Layout) -> None:
    ensure_self_signed(home, HOST)
    assert "the host name changed" in ensure_self_signed(home, "mx.example.org").notice


def test_made_anew_when_it_ends_soon(home: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "LIFETIME", datetime.timedelta(days=59))
    ensure_self_signed(home, HOST)
    monkeypatch.undo()
    assert "expires soon" in ensure_self_signed(home, HOST).notice
    assert "MADE" not in ensure_self_signed(home, HOST).notice


def test_crash_between_key_and_certificate_is_repaired(home: Layout) -> None:
    ensure_self_signed(home, HOST)
    os.unlink(home.key)
    Path(home.key).write_bytes(certificate.make(HOST)[0])
    assert "did not fit its key" in ensure_self_signed(home, HOST).notice
    check(Tls(home.certificate, home.key))


def test_crash_after_the_first_key_is_repaired(home: Layout) -> None:
    Path(home.key).write_bytes(certificate.make(HOST)[0])
    ensure_self_signed(home, HOST)
    check(Tls(home.certificate, home.key))


def test_certificate_that_somebody_put_there_stays(
    home: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificate, "ORGANIZATION", "Somebody else")
    ensure_self_signed(home, "other.example.net")
    monkeypatch.undo()
    before = both(home)
    ensure_self_signed(home, HOST)
    assert both(home) == before


def test_broken_certificate_that_somebody_put_there_is_an_error(home: Layout) -> None:
    Path(home.certificate).write_bytes(b"not a certificate")
    Path(home.key).write_bytes(b"not a key")
    with pytest.raises(CertificateError, match=f"{home.certificate}: there is no certificate in"):
        ensure_self_signed(home, HOST)
    assert Path(home.key).read_bytes() == b"not a key"


def test_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cert").write_bytes(certificate.make(HOST)[1])
    (tmp_path / "key").write_bytes(certificate.make(HOST)[0])
    with pytest.raises(CertificateError, match="key is not the key of the first certificate in "):
        check(Tls(str(tmp_path / "cert"), str(tmp_path / "key")))


def test_files_that_were_mistaken_for_each_other_are_named(tmp_path: Path) -> None:
    key, chain = certificate.make(HOST)
    (tmp_path / "cert").write_bytes(chain)
    (tmp_path / "key").write_bytes(key)
    with pytest.raises(CertificateError, match="/key: there is no certificate in PEM in it"):
        check(Tls(str(tmp_path / "key"), str(tmp_path / "cert")))
    with pytest.raises(CertificateError, match="/cert: there is no private key in PEM in it"):
        check(Tls(str(tmp_path / "cert"), str(tmp_path / "cert")))


def test_certificate_that_is_damaged_is_refused(tmp_path: Path) -> None:
    key, chain = certificate.make(HOST)
    (tmp_path / "cert").write_bytes(chain.replace(b"\nM", b"\n!", 1))
    (tmp_path / "key").write_bytes(key)
    with pytest.raises(CertificateError, match="cannot be used"):
        check(Tls(str(tmp_path / "cert"), str(tmp_path / "key")))


def test_key_with_a_passphrase_is_refused_and_not_asked_for(tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (tmp_path / "cert").write_bytes(certificate.make(HOST)[1])
    (tmp_path / "key").write_bytes(pem)
    with pytest.raises(CertificateError, match="passphrase"):
        check(Tls(str(tmp_path / "cert"), str(tmp_path / "key")))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="none: No such file"):
        check(Tls(str(tmp_path / "none"), str(tmp_path / "none")))


def test_expired_certificate_is_doubtful_but_usable(
    home: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificate, "LIFETIME", datetime.timedelta(minutes=-1))
    key, pem = certificate.make(HOST)
    Path(home.certificate).write_bytes(pem)
    Path(home.key).write_bytes(key)
    assert "expired on" in check(Tls(home.certificate, home.key))
