"""Verify DKIM signatures (RFC 6376, 8301, 8463), by dkimpy, within limits of ours.

dkimpy reads the tags, the key and the header; the body is hashed by `bodyhash`, in parts and
without its regular expressions, which need a very long time for a very long line of blanks.
"""

import base64
import re
from typing import Any, NamedTuple

import dkim
from dkim.util import InvalidTagValueList, parse_tag_value

from pyqmail.mailauth.bodyhash import BodyHash
from pyqmail.mailauth.lookups import Lookups, TroubleError
from pyqmail.mailauth.message import Message

MOST_SIGNATURES = 5  # that are looked at
FIELD_LIMIT = 8192  # bytes of one signature
NAMES_LIMIT = 200  # in h=
KEY_RECORD_LIMIT = 4096  # bytes
RSA_BITS = range(1024, 4097)  # RFC 8301, 3.2; above, only time is lost
EXPONENT_BITS = 64
ALGORITHMS = frozenset({b"rsa-sha256", b"ed25519-sha256"})
# What no signer writes, and dkimpy's regular expressions take long for.
LONG_BLANKS = re.compile(rb"[ \t\r\n]{40}")
DOMAIN = re.compile(rb"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\Z")


class DkimResult(NamedTuple):
    """What became of one signature (RFC 8601, 2.7.1)."""

    result: str  # pass, fail, policy, neutral, temperror, permerror
    reason: str = ""
    domain: str = ""  # d=, in small letters
    selector: str = ""
    algorithm: str = ""
    signature: str = ""  # the first characters of b=, to tell several of a domain apart


class _Unacceptable(Exception):
    """A signature that would not be taken whatever it says; the text says why."""


class _Tags:
    """The parts of a signature that are needed before it is verified."""

    def __init__(self, value: bytes) -> None:
        if len(value) > FIELD_LIMIT or LONG_BLANKS.search(value):
            raise ValueError("too long")
        try:
            self.tags: dict[bytes, bytes] = parse_tag_value(value)
        except InvalidTagValueList as error:
            raise ValueError("not a tag list") from error
        self.domain = self.tags.get(b"d", b"")
        self.selector = self.tags.get(b"s", b"")
        if not (DOMAIN.match(self.domain) and DOMAIN.match(self.selector)):
            raise ValueError("no domain or selector")
        length = self.tags.get(b"l", b"")
        if length and not (length.isdigit() and len(length) < 16):
            raise ValueError("no length")
        self.length = int(length) if length else None
        names = self.tags.get(b"h", b"").lower().split(b":")
        if len(names) > NAMES_LIMIT or b"from" not in [name.strip() for name in names]:
            raise ValueError("too many names, or not From")
        method = self.tags.get(b"c", b"simple").partition(b"/")[2] or b"simple"
        self.body = BodyHash(relaxed=method == b"relaxed", limit=self.length)


class _Verifier(dkim.DKIM):  # type: ignore[misc]
    """dkimpy's verification, with the hash of the body made beforehand."""

    body_hash: bytes

    def verify_sig_process(
        self, sig: dict[bytes, bytes], names: list[bytes], header: Any, dnsfunc: Any
    ) -> bool:
        """Compare the body's hash and let dkimpy verify the signature of the header."""
        if self.ktag == b"rsa":
            if self.keysize not in RSA_BITS:
                raise _Unacceptable(f"a key of {self.keysize} bits")
            if self.pk["publicExponent"].bit_length() > EXPONENT_BITS:
                raise _Unacceptable("a key with a large exponent")
        given = base64.b64decode(b"".join(sig[b"bh"].split()))
        if given != self.body_hash:
            raise dkim.ValidationError("body hash did not verify")
        rest = {tag: value for tag, value in sig.items() if tag != b"bh"}
        return bool(super().verify_sig_process(rest, names, header, dnsfunc))


def verify(message: Message, lookups: Lookups) -> list[DkimResult]:
    """Return what became of each signature, the topmost first; reads the message's body.

    Raises:
        OSError: the body cannot be read.
    """
    fields = message.named(b"dkim-signature")[:MOST_SIGNATURES]
    signatures: list[_Tags | None] = []
    for field in fields:
        try:
            signatures.append(_Tags(field.value))
        except ValueError:
            signatures.append(None)
    message.hash_body(*(tags.body for tags in signatures if tags))
    return [
        _judge(message, index, tags, lookups)
        if tags
        else DkimResult("permerror", "not a signature that can be read")
        for index, tags in enumerate(signatures)
    ]


def _judge(message: Message, index: int, tags: _Tags, lookups: Lookups) -> DkimResult:
    algorithm = tags.tags.get(b"a", b"")
    described = DkimResult(
        "fail",
        domain=tags.domain.decode().lower().rstrip("."),
        selector=tags.selector.decode().lower(),
        algorithm=algorithm.decode("ascii", "replace"),
        signature=b"".join(tags.tags.get(b"b", b"").split())[:8].decode("ascii", "replace"),
    )

    def concluded(result: str, reason: str = "") -> DkimResult:
        return described._replace(result=result, reason=reason)

    if algorithm not in ALGORITHMS:
        return concluded("policy", "not an algorithm that is taken")
    digest = tags.body.digest()
    if tags.length is not None and tags.length < tags.body.size:
        return concluded("policy", "not all of the body is signed")
    key = _Key(lookups)
    header = b"".join(field.raw for field in message.fields) + b"\n"
    try:
        verifier = _Verifier(header, minkey=RSA_BITS.start)
        verifier.body_hash = digest
        passed = verifier.verify(index, dnsfunc=key.look_up)
    except _Unacceptable as error:
        return concluded("policy", str(error))
    except TroubleError:
        return concluded("temperror", "no answer from the DNS")
    except dkim.ValidationError as error:
        return concluded("fail", str(error))
    except Exception:
        # dkimpy has more of them than it names; none may keep a message from an answer.
        return concluded("permerror", "a signature or key that cannot be used")
    if passed:
        return concluded("pass")
    if verifier.signed_headers:
        return concluded("fail", "signature did not verify")
    return concluded("permerror", "no key for signature" if not key.found else "a broken key")


class _Key:
    """The look-up of a key, and what it found."""

    def __init__(self, lookups: Lookups) -> None:
        self._lookups = lookups
        self.found = False

    def look_up(self, name: bytes, timeout: float = 0) -> bytes | None:
        """Return the record of a key, for dkimpy; None if there is none.

        Raises:
            TroubleError: the DNS gave no answer.
            _Unacceptable: it is far longer than any key.
        """
        found = self._lookups.texts(name.decode("ascii"))
        if not found:
            return None
        self.found = True
        record = found[0]
        if len(record) > KEY_RECORD_LIMIT:
            raise _Unacceptable("a very long key")
        return record
