"""TLS on the client's side of an SMTP connection (RFC 3207)."""

import datetime
import os
import socket
import ssl
from typing import NamedTuple

from pyqmail.remote import dane
from pyqmail.remote.addresses import literal
from pyqmail.remote.dane import Tlsa
from pyqmail.remote.policy import Level
from ucspi import control

AUTHORITIES = "control/tlsauthorities.pem"  # beside the system's, if it exists
CHAINS = hasattr(ssl.SSLSocket, "get_unverified_chain")  # Python 3.13


class TlsError(Exception):
    """TLS did not come about; the connection is of no further use."""


class Demand(NamedTuple):
    """What TLS with one server has to be like."""

    level: Level
    names: tuple[bytes, ...] = ()  # of which the certificate must have one, to be verified
    server_name: bytes = b""  # which the server is told (SNI)
    records: tuple[Tlsa, ...] = ()  # that the certificate must fit, instead
    source: str = ""  # who demands it, for the log

    @property
    def mandatory(self) -> bool:
        """Whether mail is not sent without TLS."""
        return self.level in (Level.REQUIRE, Level.VERIFY)


def start(connection: socket.socket, demand: Demand) -> tuple[ssl.SSLSocket, str]:
    """Do the handshake and return the connection inside TLS.

    Args:
        connection: after the server's 220; its timeout counts.
        demand: what is checked of the certificate.

    Returns:
        The connection, and a few words on it for the log.

    Raises:
        TlsError: the handshake failed, or the certificate is not right.
    """
    verify = demand.level is Level.VERIFY
    host = demand.server_name
    try:
        context = verifying_context() if verify else believing_context()
        name = None if literal(host) or not host else host.decode("ascii")
        inside = context.wrap_socket(connection, server_hostname=name)
    except ssl.SSLCertVerificationError as error:
        raise TlsError(error.verify_message) from error
    except ssl.SSLError as error:
        raise TlsError(error.reason or "handshake failed") from error
    except (OSError, ValueError) as error:
        raise TlsError(getattr(error, "strerror", None) or "handshake failed") from error
    try:
        verified = _verify(inside, demand)
    except TlsError:
        inside.close()
        raise
    cipher = inside.cipher()
    return inside, f"{inside.version()} {cipher[0] if cipher else '?'} {verified}"


def _verify(inside: ssl.SSLSocket, demand: Demand) -> str:
    """Return how the certificate was verified, in a word or two.

    Raises:
        TlsError: it is not the one that is demanded.
    """
    if demand.records:
        return _verify_by_records(inside, demand)
    if demand.level is not Level.VERIFY:
        return "unverified"
    if not certificate_names_match(inside.getpeercert() or {}, demand.names):
        raise TlsError("certificate is for another name")
    return f"verified ({demand.source})"


def _verify_by_records(inside: ssl.SSLSocket, demand: Demand) -> str:
    certificate = inside.getpeercert(binary_form=True) or b""
    own = [record for record in demand.records if record.usage == dane.DANE_EE]
    if any(dane.matches(record, certificate) for record in own):
        return "verified (dane-ee)"  # dates and names do not matter (RFC 7672, 3.1.1)
    if len(own) == len(demand.records) or not CHAINS:
        raise TlsError("certificate is not the one in the TLSA records")
    from pyqmail.remote import danechain  # only here: few domains name an authority

    chain: list[bytes] = inside.get_unverified_chain()  # type: ignore[attr-defined]
    try:
        shown = danechain.check(chain, demand.records, datetime.datetime.now(datetime.UTC))
    except danechain.ChainError as error:
        raise TlsError(str(error)) from error
    if not certificate_names_match(shown, demand.names):
        raise TlsError("certificate is for another name")
    return "verified (dane-ta)"


_believing: ssl.SSLContext | None = None


def believing_context() -> ssl.SSLContext:
    """Return a context that takes any certificate; always the same."""
    global _believing
    if _believing is None:
        _believing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _believing.check_hostname = False
        _believing.verify_mode = ssl.CERT_NONE
    return _believing


def warm_up() -> None:
    """Have the TLS library do, before the first fork, what it does once in a process.

    A handshake that goes no further than its first message finds and sets up the
    algorithms: milliseconds that otherwise every child would need.
    """
    nobody = believing_context().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
    try:
        nobody.do_handshake()
    except ssl.SSLError:
        pass  # nobody answers


def verifying_context() -> ssl.SSLContext:
    """Return a new context that wants a certificate of a known authority; names are not checked.

    Known are the system's, and those in the file that control/tlsauthorities names.

    Raises:
        OSError: the authorities cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # there may be more than one right name
    _load_system_authorities(context)
    try:
        named = control.read_line("tlsauthorities")
    except control.ControlError as error:
        raise OSError(str(error)) from error
    if named or os.path.exists(AUTHORITIES):
        context.load_verify_locations(os.fsdecode(named or AUTHORITIES))
    return context


def _load_system_authorities(context: ssl.SSLContext) -> None:
    """Have the system's authorities known.

    A directory in which each can be found by its hash is only looked into when one is
    needed; to load a file with all of them takes longer than a handshake.
    """
    paths = ssl.get_default_verify_paths()
    chosen = paths.openssl_cafile_env in os.environ or paths.openssl_capath_env in os.environ
    if paths.capath and not chosen:
        with os.scandir(paths.capath) as entries:
            if any(entry.name.endswith(".0") for entry in entries):
                context.load_verify_locations(capath=paths.capath)
                return
    context.load_default_certs(ssl.Purpose.SERVER_AUTH)


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
