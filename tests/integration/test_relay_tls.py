"""Mail to other domains: what they publish on their TLS counts, and connections serve again."""

import datetime
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from docker.models.containers import Container
from harness import appliance as harness
from harness import destinations, wait
from harness.another import another
from harness.appliance import Appliance

PEM = serialization.Encoding.PEM
AUTHORITY = "/etc/test-authority.pem"
POLICY = "version: STSv1\nmode: {}\nmx: mx.{}\nmax_age: 86400\n"


class Certificate(NamedTuple):
    """A certificate, its key, and those above it in PEM."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    above: bytes = b""

    @property
    def pem(self) -> str:
        """All of it, as a server wants it."""
        key = self.key.private_bytes(
            PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return (key + self.certificate.public_bytes(PEM) + self.above).decode()

    @property
    def digest(self) -> str:
        """That of the public key, for TLSA records with selector 1 and matching type 1."""
        spki = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return hashlib.sha256(spki).hexdigest()


def make(name: str, issuer: Certificate | None = None) -> Certificate:
    """Return a certificate for a name; an authority's, without an issuer."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
        .add_extension(x509.BasicConstraints(issuer is None, None), True)
    )
    signed = builder.sign(issuer.key if issuer else key, hashes.SHA256())
    return Certificate(signed, key, issuer.certificate.public_bytes(PEM) if issuer else b"")


class Elsewhere:
    """The container with the other domains."""

    def __init__(self, container: Container) -> None:
        self.container = container

    def connections(self, domain: str) -> list[bytes]:
        """Return what came over each connection that has ended and had mail for a domain."""
        lines = self.container.logs(stderr=False).decode().splitlines()
        found = [bytes.fromhex(json.loads(line)[1]) for line in lines]
        return [record for record in found if f"@{domain}>".encode() in record]

    def names(self) -> list[str]:
        """Return the names that clients said in TLS."""
        return [json.loads(line)[0] for line in self.container.logs(stderr=False).splitlines()]


@pytest.fixture(scope="module")
def authority() -> Certificate:
    """An authority that the sender knows."""
    return make("a test authority")


@pytest.fixture(scope="module")
def elsewhere(appliance: Appliance, authority: Certificate) -> Iterator[Elsewhere]:
    """Domains with all kinds of TLS."""
    other = make("another authority")
    hosts = {
        "": make("nobody.test"),
        "mta-sts.sts.test": make("mta-sts.sts.test", authority),
        "mta-sts.forged.test": make("mta-sts.forged.test", authority),
        "mx.sts.test": make("mx.sts.test", authority),
        "mx.forged.test": make("mx.forged.test", other),
        "mx.ee.test": make("some.name"),
        "mx.ta.test": make("mx.ta.test", other),
        "mx.wrong.test": make("mx.wrong.test"),
    }
    records: list[tuple[str, str, list[str]]] = []
    for domain in ("plain", "sts", "forged", "ee", "ta", "wrong"):
        records.append((f"{domain}.test", "MX", [f"10 mx.{domain}.test."]))
        records.append((f"mx.{domain}.test", "A", ["@"]))
    for domain in ("sts", "forged"):
        records.append((f"_mta-sts.{domain}.test", "TXT", ['"v=STSv1; id=1;"']))
        records.append((f"mta-sts.{domain}.test", "A", ["@"]))
    for domain, tlsa in (
        ("ee", f"3 1 1 {hosts['mx.ee.test'].digest}"),
        ("ta", f"2 1 1 {other.digest}"),
        ("wrong", f"3 1 1 {authority.digest}"),
    ):
        records.append((f"_25._tcp.mx.{domain}.test", "TLSA", [tlsa]))
    world = {
        "records": records,
        "policies": {
            f"mta-sts.{domain}.test": POLICY.format("enforce", f"{domain}.test")
            for domain in ("sts", "forged")
        },
        "keys": {name: made.pem for name, made in hosts.items()},
    }
    client = harness.client()
    source = Path(destinations.__file__).read_text()
    container = client.containers.create(
        appliance.image,
        entrypoint=["python3", "-I", "-c", source, json.dumps(world)],
        network=next(iter(appliance.container.attrs["NetworkSettings"]["Networks"])),
    )
    try:
        container.start()
        wait.until("the other domains", lambda: b"ready" in container.logs(stderr=False))
        container.reload()
        yield Elsewhere(container)
    finally:
        container.remove(force=True, v=True)
        client.close()


@pytest.fixture(scope="module")
def sender(
    appliance: Appliance, elsewhere: Elsewhere, authority: Certificate
) -> Iterator[Appliance]:
    """An appliance that believes that DNS and that authority."""
    (network,) = elsewhere.container.attrs["NetworkSettings"]["Networks"].values()
    pem = authority.certificate.public_bytes(PEM)
    with another(
        appliance,
        files={AUTHORITY: pem},
        POSTERN_RESOLVERS=network["IPAddress"],
        POSTERN_DANE="on",
        POSTERN_TLS_AUTHORITIES=AUTHORITY,
        POSTERN_CONCURRENCY_REMOTE="1",
        POSTERN_SERVICES="mx,queue",
    ) as running:
        yield running


def send(sender: Appliance, *recipients: str) -> None:
    """Queue a message."""
    argv = ["/var/qmail/bin/qmail-inject", "-a", "-f", "sam@example.test", *recipients]
    status, printed = sender.run(argv, data=b"Subject: a test\n\nbody\n", user="7791")
    assert status == 0, printed


def log_line(sender: Appliance, pattern: str) -> str:
    """Wait until a line of the log has what pattern looks for, and return that."""
    found = wait.until("the log line", lambda: re.search(pattern, sender.logs()))
    return found[0]


@pytest.mark.parametrize(
    ("domain", "state"),
    [
        ("plain.test", "unverified"),
        ("sts.test", "verified (mta-sts)"),
        ("ee.test", "verified (dane-ee)"),
        ("ta.test", "verified (dane-ta)"),
    ],
)
def test_mail_arrives_and_the_log_tells_how(
    sender: Appliance, elsewhere: Elsewhere, domain: str, state: str
) -> None:
    send(sender, f"joe@{domain}")
    line = log_line(sender, rf"qmail-remote: message \d+ to {re.escape(domain)}: .*")
    assert re.search(rf": TLSv1\.3 TLS_\w+ {re.escape(state)} ip=", line)
    (record,) = wait.until("the connection's end", lambda: elsewhere.connections(domain))
    assert b"Subject: a test\r\n" in record
    assert f"mx.{domain}" in elsewhere.names()


@pytest.mark.parametrize(
    ("domain", "why"),
    [
        ("forged.test", "certificate_verify_failed|unable_to_get_local_issuer|self-signed"),
        ("wrong.test", "certificate_is_not_the_one_in_the_TLSA_records"),
    ],
)
def test_mail_waits_when_the_server_is_not_the_right_one(
    sender: Appliance, elsewhere: Elsewhere, domain: str, why: str
) -> None:
    send(sender, f"joe@{domain}")
    line = log_line(sender, rf"deferral: Connected_to_[\d.]+_but_TLS_failed:_.*({why}).*")
    assert "(#4.7.5)" in line
    assert elsewhere.connections(domain) == []


def test_policies_are_remembered(sender: Appliance, elsewhere: Elsewhere) -> None:
    send(sender, "joe@sts.test")
    wait.until("the mail", lambda: elsewhere.connections("sts.test"))
    status, kept = sender.run(["cat", "/data/cache/mta-sts/sts.test"], user="qmailr")
    assert status == 0
    assert POLICY.format("enforce", "sts.test") in kept


def test_a_burst_goes_over_one_connection(sender: Appliance, elsewhere: Elsewhere) -> None:
    recipients = [f"r{number}@plain.test" for number in range(5)]
    before = len(elsewhere.connections("plain.test"))
    send(sender, *recipients)
    wait.until(
        "the end of the connection", lambda: len(elsewhere.connections("plain.test")) > before
    )
    (record,) = elsewhere.connections("plain.test")[before:]
    assert record.count(b"\r\n.\r\n") == 5
    assert record.count(b"RSET\r\n") == 4
    assert record.endswith(b"QUIT\r\n")
    for recipient in recipients:
        assert record.count(f"RCPT TO:<{recipient}>\r\n".encode()) == 1
    log_line(sender, "message 5 of the connection")
