"""Make DKIM signatures (RFC 6376, RFC 8463): relaxed/relaxed, over the whole body."""

import base64
import hashlib
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from pyqmail.mailauth.bodyhash import single_blanks
from pyqmail.mailauth.fields import Field

# Signed once more than they are there, so that nobody can add another one.
SEALED = (b"from", b"reply-to", b"subject", b"to", b"cc")
# The same, but only where they are: a mailing list may add what was not.
SEALED_IF_PRESENT = (
    *(b"sender", b"date", b"message-id", b"in-reply-to", b"references"),
    *(b"mime-version", b"content-type", b"content-transfer-encoding"),
    *(b"list-id", b"list-unsubscribe", b"list-unsubscribe-post"),
)
RSA_BITS = 1024  # RFC 8301, 3.2: shorter keys are never to be used

LINE = 72  # characters of a folded line


class UnusableKeyError(Exception):
    """A private key that cannot be used."""


class Key(NamedTuple):
    """A private key and where its public half is published."""

    domain: bytes
    selector: bytes
    private: RSAPrivateKey | Ed25519PrivateKey

    @property
    def algorithm(self) -> bytes:
        """The value of ``a=``."""
        return b"rsa-sha256" if isinstance(self.private, RSAPrivateKey) else b"ed25519-sha256"

    def sign(self, data: bytes) -> bytes:
        """Return the signature of data."""
        if isinstance(self.private, RSAPrivateKey):
            return self.private.sign(data, PKCS1v15(), hashes.SHA256())
        return self.private.sign(hashlib.sha256(data).digest())  # RFC 8463, 3


def load(domain: bytes, selector: bytes, pem: bytes) -> Key:
    """Return the key in a PEM file.

    Raises:
        UnusableKeyError: it is none, or none of an algorithm that DKIM knows.
    """
    try:
        private = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise UnusableKeyError("not a private key without a passphrase") from error
    if isinstance(private, RSAPrivateKey):
        if private.key_size < RSA_BITS:
            raise UnusableKeyError(f"an RSA key of {private.key_size} bits")
    elif not isinstance(private, Ed25519PrivateKey):
        raise UnusableKeyError("neither an RSA nor an Ed25519 key")
    return Key(domain, selector, private)


def relaxed(field: Field) -> bytes:
    """Return a field in its relaxed form, without its end (RFC 6376, 3.4.2)."""
    unfolded = field.value.replace(b"\r\n", b"").replace(b"\n", b"")
    return field.name + b":" + single_blanks(unfolded).strip(b" ")


def signed_names(fields: list[Field]) -> list[bytes]:
    """Return the names of the fields to sign, as often as each is to stand in ``h=``."""
    names: list[bytes] = []
    for name in SEALED + SEALED_IF_PRESENT:
        count = sum(field.name == name for field in fields)
        if count or name in SEALED:
            names += [name] * (count + 1)
    return names


def sign(fields: list[Field], body: bytes, key: Key, seconds: int) -> bytes:
    """Return a DKIM-Signature field, folded, with LF.

    Args:
        fields: the message's header.
        body: the SHA-256 of its relaxed body.
        key: what to sign with.
        seconds: now, since the epoch.
    """
    names = signed_names(fields)
    tags = [
        b"DKIM-Signature: v=1",
        b"a=" + key.algorithm,
        b"c=relaxed/relaxed",
        b"d=" + key.domain,
        b"s=" + key.selector,
        b"t=%d" % seconds,
    ]
    lines = [
        folded(tags, b";", b" "),
        folded([b"h=" + names[0], *names[1:]], b":"),
        b"bh=" + base64.b64encode(body),
    ]
    unsigned = b";\n\t".join([*lines, b"b="])
    data = b"".join(relaxed(field) + b"\r\n" for field in chosen(fields, names))
    data += relaxed(Field(b"dkim-signature", unsigned))
    signature = base64.b64encode(key.sign(data))
    pieces = [signature[i : i + LINE] for i in range(0, len(signature), LINE)]
    return unsigned + b"\n\t ".join(pieces) + b"\n"


def folded(words: list[bytes], separator: bytes, blank: bytes = b"") -> bytes:
    """Return words with separators between them, with a line end where a line is full."""
    text, size = words[0], len(words[0])
    for word in words[1:]:
        if size + len(word) < LINE:
            text += separator + blank + word
            size += len(separator + blank + word)
        else:
            text += separator + b"\n\t" + word
            size = len(word)
    return text


def chosen(fields: list[Field], names: list[bytes]) -> list[Field]:
    """Return the fields that names mean: of several the last first (RFC 6376, 5.4.2)."""
    left: dict[bytes, list[Field]] = {}
    for field in fields:
        left.setdefault(field.name, []).append(field)
    return [left[name].pop() for name in names if left.get(name)]
