"""DANE for SMTP (RFC 7672): TLSA records, and whether a certificate is what they say.

Pure functions. That the records come from a validated answer is for others to know.
"""

import hashlib
from typing import NamedTuple

DANE_TA = 2  # certificate usages (RFC 7218): an authority is named,
DANE_EE = 3  # or the server's own certificate
FULL_CERTIFICATE, PUBLIC_KEY = 0, 1  # selectors
EXACT, SHA256, SHA512 = 0, 1, 2  # matching types

_DIGEST_SIZES = {SHA256: 32, SHA512: 64}

_SEQUENCE = 0x30  # DER
_VERSION = 0xA0
_PARTS_BEFORE_THE_KEY = 5  # serial number, algorithm, issuer, validity, subject


class Tlsa(NamedTuple):
    """A TLSA record (RFC 6698, 2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes


def usable(records: list[Tlsa], *, chains: bool) -> tuple[Tlsa, ...]:
    """Return the records that can be checked (RFC 7672, 3.1).

    PKIX-TA and PKIX-EE are not for SMTP; other numbers nobody knows.

    Args:
        records: all that a server has.
        chains: the certificates above the server's own can be had from the TLS library.
    """
    usages = (DANE_TA, DANE_EE) if chains else (DANE_EE,)
    return tuple(
        record
        for record in records
        if record.usage in usages
        and record.selector in (FULL_CERTIFICATE, PUBLIC_KEY)
        and (
            len(record.data) == _DIGEST_SIZES[record.matching]
            if record.matching in _DIGEST_SIZES
            else record.matching == EXACT and record.data
        )
    )


def matches(record: Tlsa, certificate: bytes) -> bool:
    """Tell whether a certificate (DER) is the one that a usable record means."""
    try:
        selected = certificate if record.selector == FULL_CERTIFICATE else public_key(certificate)
    except ValueError:
        return False
    if record.matching == SHA256:
        selected = hashlib.sha256(selected).digest()
    elif record.matching == SHA512:
        selected = hashlib.sha512(selected).digest()
    return selected == record.data


def public_key(certificate: bytes) -> bytes:
    """Return the SubjectPublicKeyInfo of a certificate (RFC 5280, 4.1), as it is in it.

    Cut out, not decoded and encoded again: the digest is over these bytes.

    Raises:
        ValueError: it is no certificate.
    """
    inside, end = _element(certificate, 0, len(certificate), _SEQUENCE)
    offset, end = _element(certificate, inside, end, _SEQUENCE)
    if certificate[offset : offset + 1] == bytes([_VERSION]):
        offset = _element(certificate, offset, end)[1]
    for _ in range(_PARTS_BEFORE_THE_KEY):
        offset = _element(certificate, offset, end)[1]
    return certificate[offset : _element(certificate, offset, end, _SEQUENCE)[1]]


def _element(data: bytes, offset: int, limit: int, tag: int | None = None) -> tuple[int, int]:
    """Return where the content of the DER element at offset begins and ends."""
    if offset + 2 > limit or (tag is not None and data[offset] != tag):
        raise ValueError("not the element expected")
    size = data[offset + 1]
    offset += 2
    if size & 0x80:
        count = size & 0x7F
        if not 1 <= count <= 4 or offset + count > limit:
            raise ValueError("a length that makes no sense")
        size = int.from_bytes(data[offset : offset + count], "big")
        offset += count
    if offset + size > limit:
        raise ValueError("cut short")
    return offset, offset + size
