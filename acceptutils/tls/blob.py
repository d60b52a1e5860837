"""The variables that tell an application what its TLS is: names as mod_ssl's.

Written to the control socket as ``NAME=value\\0`` each, and an empty one at the end
(UCSPI-TLS). s6-tlsd's names are the same as far as it has them.
"""

import ssl
from typing import Any

_HOST_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")
_SERVER_NAME_LIMIT = 255  # RFC 1035, 2.3.4


def encode(variables: dict[str, str]) -> bytes:
    """Return the blob that carries variables; a NUL inside a value would end it and is cut."""
    records = (f"{name}={value.split(chr(0))[0]}\0" for name, value in variables.items())
    return "".join(records).encode("utf-8", "replace") + b"\0"


def describe(connection: ssl.SSLObject, server_name: str | None) -> dict[str, str]:
    """Return the variables of a connection whose handshake is done.

    A server name that could not be a host's is left out: what the client calls us
    ends up in headers and logs.
    """
    variables = {"SSL_PROTOCOL": connection.version() or ""}
    if cipher := connection.cipher():
        name, _, bits = cipher
        variables["SSL_CIPHER"] = name
        variables["SSL_CIPHER_USEKEYSIZE"] = str(bits)
    variables["SSL_SESSION_RESUMED"] = "Resumed" if connection.session_reused else "Initial"
    if server_name and len(server_name) <= _SERVER_NAME_LIMIT and set(server_name) <= _HOST_NAME:
        variables["SSL_TLS_SNI_SERVERNAME"] = server_name
    if certificate := connection.getpeercert(binary_form=True):
        variables |= _describe_client(connection, certificate)
    return variables


def _describe_client(connection: ssl.SSLObject, certificate: bytes) -> dict[str, str]:
    import hashlib

    # A verified certificate's subject: a sequence of names, each of one or more pairs.
    decoded: dict[str, Any] = connection.getpeercert() or {}
    pairs = [pair for name in decoded.get("subject", ()) for pair in name]
    return {
        "SSL_PEER_CERT_HASH": "SHA256:" + hashlib.sha256(certificate).hexdigest(),
        "SSL_PEER_CERT_SUBJECT": ", ".join(f"{key}={value}" for key, value in pairs),
    }
