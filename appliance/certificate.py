"""The certificate that the services use: a given one is checked, a missing one is made."""

import datetime
import os
import ssl
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance import durable
from appliance.errors import ApplianceError
from appliance.layout import Layout
from appliance.render import Tls

# Marks certificates that this module made, and may therefore replace.
ORGANIZATION = "Postern self-signed certificate"
LIFETIME = datetime.timedelta(days=825)
RENEW_BEFORE = datetime.timedelta(days=60)
CLOCK_SKEW = datetime.timedelta(hours=1)
PEM_BLOCKS = ("certificate", "private key")  # in the files of a Tls
PEM_LIMIT = 1 << 20  # bytes of such a file
NAME_LIMIT = 64  # characters of a common name (RFC 5280, appendix A.1)


class CertificateError(ApplianceError):
    """A certificate or key that cannot be used; the text says why."""


class State(NamedTuple):
    """The certificate in use, and what an administrator should hear about it."""

    tls: Tls
    notice: str


def check(tls: Tls) -> str:
    """Check that certificate and key can be read and belong together.

    Returns:
        "" or what is doubtful about it: expired, or about to.

    Raises:
        CertificateError: they cannot be used.
    """
    for path, what in zip(tls, PEM_BLOCKS, strict=True):
        try:
            with open(path, "rb") as file:
                content = file.read(PEM_LIMIT)
        except OSError as error:
            hint = "; root without DAC_OVERRIDE must own it" if error.errno == 13 else ""
            raise CertificateError(f"{path}: {error.strerror}{hint}") from error
        if f"{what.upper()}-----".encode() not in content:
            raise CertificateError(f"{path}: there is no {what} in PEM in it")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            tls.cert, tls.key, password=_no_passphrase
        )
        certificate = _load(tls.cert)
    except (ssl.SSLError, ValueError, OSError) as error:
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            text = f"{tls.key} is not the key of the first certificate in {tls.cert}"
        else:
            text = f"{tls.cert} and {tls.key} cannot be used: {error}"
        raise CertificateError(text) from error
    left = _expiry(certificate) - _now()
    if left < datetime.timedelta():
        return f"{tls.cert} expired on {_expiry(certificate):%Y-%m-%d}"
    if left < datetime.timedelta(days=7):
        return f"{tls.cert} expires on {_expiry(certificate):%Y-%m-%d}"
    return ""


def ensure_self_signed(places: Layout, hostname: str) -> State:
    """Return the certificate on the volume; make it when missing, old or for another name.

    One that was put there by somebody else is only checked.

    Raises:
        CertificateError: somebody else's cannot be used.
        OSError: it cannot be written.
    """
    tls = Tls(places.certificate, places.key)
    reason = _reason_to_make(tls, hostname)
    if reason is None:
        doubt = check(tls)
        return State(tls, f"TLS: WARNING: {doubt}" if doubt else f"TLS: using {tls.cert}")
    key, certificate = make(hostname)
    # The key first: should this be interrupted here, the two do not match, and the
    # next start makes both again.
    durable.replace(tls.key, key, mode=0o400)
    durable.replace(tls.cert, certificate, mode=0o644)
    return State(
        tls,
        f"TLS: MADE A SELF-SIGNED CERTIFICATE for {hostname} ({reason}): clients will not "
        "trust it; give a real one with POSTERN_TLS_CERT and POSTERN_TLS_KEY",
    )


def make(hostname: str) -> tuple[bytes, bytes]:
    """Return key and certificate, in PEM: P-256, with hostname as its subjectAltName."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, hostname[:NAME_LIMIT]),
        ]
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    signing = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - CLOCK_SKEW)
        .not_valid_after(_now() + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(signing, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem, certificate.public_bytes(serialization.Encoding.PEM)


def _reason_to_make(tls: Tls, hostname: str) -> str | None:
    """Return why the pair must be made anew, None when it can stay."""
    if not os.path.exists(tls.cert) and not os.path.exists(tls.key):
        return "there was none"
    try:
        certificate = _load(tls.cert)
    except (ValueError, OSError):
        return None if os.path.exists(tls.cert) else "it was missing"
    organization = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    if [attribute.value for attribute in organization] != [ORGANIZATION]:
        return None
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if names.get_values_for_type(x509.DNSName) != [hostname]:
        return "the host name changed"
    if _expiry(certificate) - _now() < RENEW_BEFORE:
        return "the old one expires soon"
    try:
        check(tls)
    except CertificateError:
        return "the old one did not fit its key"
    return None


def _load(path: str) -> x509.Certificate:
    with open(path, "rb") as file:
        return x509.load_pem_x509_certificate(file.read())


def _no_passphrase() -> str:
    """Refuse a key that needs a passphrase, where OpenSSL would ask on the terminal."""
    raise ValueError("the key has a passphrase")


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _expiry(certificate: x509.Certificate) -> datetime.datetime:
    """Return the end of validity; cryptography before 42 gives it without a time zone."""
    aware = getattr(certificate, "not_valid_after_utc", None)
    if isinstance(aware, datetime.datetime):
        return aware
    return certificate.not_valid_after.replace(tzinfo=datetime.UTC)
