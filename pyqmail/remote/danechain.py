"""From a server's certificate to the authority that a TLSA record names (DANE-TA).

RFC 7671, 5.2: the authority need not be one that anybody else knows; all the rest has to
be as always: signatures, dates, the right to sign, a name of the server.
Loaded only where such a record is met: `cryptography` is large.
"""

import datetime
import warnings
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from pyqmail.remote import dane
from pyqmail.remote.dane import Tlsa

_Kind = TypeVar("_Kind", bound=x509.ExtensionType)

CHAIN_LIMIT = 20  # certificates of a server that are looked at


class ChainError(Exception):
    """The certificates do not lead to an authority of the records."""


def check(chain: list[bytes], records: tuple[Tlsa, ...], now: datetime.datetime) -> object:
    """Look for a path from a server's certificate to an authority of the records.

    Args:
        chain: what the server sent, DER, its own certificate first.
        records: usable ones; those that are not DANE-TA do not matter.
        now: in UTC.

    Returns:
        The server's names, in the form of ``ssl``'s getpeercert.

    Raises:
        ChainError: there is none.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on odd certificates; they would be in the report
            return _check(chain[:CHAIN_LIMIT], records, now)
    except ChainError:
        raise
    except Exception as error:  # the library has many names for what is wrong with a certificate
        raise ChainError("a certificate that makes no sense") from error


def _check(chain: list[bytes], records: tuple[Tlsa, ...], now: datetime.datetime) -> object:
    wanted = [record for record in records if record.usage == dane.DANE_TA]
    # An authority may be in its record, whole, and be left out by the server.
    spare = [
        record.data
        for record in wanted
        if (record.selector, record.matching) == (dane.FULL_CERTIFICATE, dane.EXACT)
    ]
    raw = chain + spare
    everything = [x509.load_der_x509_certificate(der) for der in raw]
    _check_server(everything[0], now)
    below = {0: 0}  # certificate -> how many authorities are between it and the server
    fresh = [0]
    while fresh:
        issued = fresh.pop()
        for number, issuer in enumerate(everything):
            if number in below or not _signs(issuer, everything[issued], below[issued], now):
                continue
            if any(dane.matches(record, raw[number]) for record in wanted):
                return {"subjectAltName": _names(everything[0])}
            below[number] = below[issued] + 1
            fresh.append(number)
    raise ChainError("no way to an authority in the TLSA records")


def _check_server(certificate: x509.Certificate, now: datetime.datetime) -> None:
    if not _in_time(certificate, now):
        raise ChainError("certificate has expired or is not yet valid")
    usage = _extension(certificate, x509.ExtendedKeyUsage)
    good = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    if usage is not None and good.isdisjoint(usage):
        raise ChainError("certificate is not one of a server")


def _signs(
    issuer: x509.Certificate, issued: x509.Certificate, below: int, now: datetime.datetime
) -> bool:
    """Tell whether issuer may sign certificates, and has signed this one."""
    constraints = _extension(issuer, x509.BasicConstraints)
    if constraints is None or not constraints.ca or not _in_time(issuer, now):
        return False
    if constraints.path_length is not None and constraints.path_length < below:
        return False
    usage = _extension(issuer, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        return False
    if any(e.oid == ExtensionOID.NAME_CONSTRAINTS for e in issuer.extensions):
        return False  # it may sign for some names only; which, is not looked at here
    try:
        issued.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _in_time(certificate: x509.Certificate, now: datetime.datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _extension(certificate: x509.Certificate, kind: type[_Kind]) -> _Kind | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _names(certificate: x509.Certificate) -> tuple[tuple[str, str], ...]:
    shown = _extension(certificate, x509.SubjectAlternativeName)
    if shown is None:
        return ()
    hosts = [("DNS", name) for name in shown.get_values_for_type(x509.DNSName)]
    return (*hosts, *(("IP Address", str(a)) for a in shown.get_values_for_type(x509.IPAddress)))
