"""TLS on the client's side of an SMTP connection (RFC 3207)."""

import os
import socket
import ssl

from pyqmail.remote.addresses import literal
from pyqmail.remote.policy import Level, Policy

EXTRA_AUTHORITIES = "control/tlsauthorities.pem"  # beside the system's, if it exists


class TlsError(Exception):
    """TLS did not come about; the connection is of no further use."""


def start(
    connection: socket.socket, policy: Policy, host: bytes, names: tuple[bytes, ...]
) -> ssl.SSLSocket:
    """Do the handshake and return the connection inside TLS.

    Args:
        connection: after the server's 220; its timeout counts.
        policy: a verifying one checks the certificate.
        host: the server's name, which it is told (SNI).
        names: of which the certificate must have one, for a verifying policy.

    Raises:
        TlsError: the handshake failed, or the certificate is not right.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # there may be more than one right name: see below
    verify = policy.level is Level.VERIFY
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    try:
        if verify:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
            if os.path.exists(EXTRA_AUTHORITIES):
                context.load_verify_locations(EXTRA_AUTHORITIES)
        name = None if literal(host) or not host else host.decode("ascii")
        inside = context.wrap_socket(connection, server_hostname=name)
    except ssl.SSLCertVerificationError as error:
        raise TlsError(error.verify_message) from error
    except ssl.SSLError as error:
        raise TlsError(error.reason or "handshake failed") from error
    except (OSError, ValueError) as error:
        raise TlsError(getattr(error, "strerror", None) or "handshake failed") from error
    if verify and not certificate_names_match(inside.getpeercert() or {}, names):
        raise TlsError("certificate is for another name")
    return inside


def certificate_names_match(certificate: object, names: tuple[bytes, ...]) -> bool:
    """Tell whether one of the certificate's subject alternative names is one of names.

    Args:
        certificate: as ssl's getpeercert returns it.
        names: host names in lower case, or address literals.
    """
    if not isinstance(certificate, dict):
        return False
    for kind, shown in certificate.get("subjectAltName", ()):
        text = shown.strip().lower().encode()
        for name in names:
            address = literal(name)
            if kind == "DNS" and address is None and name_matches(text, name):
                return True
            if kind == "IP Address" and address is not None and literal(text) == address:
                return True
    return False


def name_matches(pattern: bytes, name: bytes) -> bool:
    """Tell whether a name in a certificate stands for name (RFC 9525, 6.3).

    ``*`` stands for one whole label, the first, in front of at least two others.
    """
    pattern, name = pattern.rstrip(b"."), name.rstrip(b".")
    if not pattern.startswith(b"*."):
        return pattern == name
    _, dot, rest = name.partition(b".")
    return bool(dot) and b"." in rest and pattern[2:] == rest
