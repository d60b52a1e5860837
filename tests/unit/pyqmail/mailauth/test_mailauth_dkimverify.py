"""What becomes of a DKIM signature, and that a hostile one costs no time."""

import base64
import re
from collections.abc import Callable

import dkim
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance import dkim as dkim_admin
from pyqmail.mailauth import dkimverify, signing
from pyqmail.mailauth.bodyhash import BodyHash
from pyqmail.mailauth.dkimverify import DkimResult
from pyqmail.mailauth.lookups import Lookups
from pyqmail.mailauth.message import Message
from pyqmail.mailauth.signing import Key

TEXT = b"From: alice@example.org\nSubject: x\nTo: bob@example.net\n\nbody\n"
Verify = Callable[[bytes], list[DkimResult]]
Zone = dict[tuple[str, str], list[str]]


def quoted(text: str) -> str:
    return " ".join(f'"{text[i : i + 250]}"' for i in range(0, len(text), 250))


@pytest.fixture
def verify(in_file: Callable[[bytes], int], dns_of: Lookups) -> Verify:
    return lambda text: dkimverify.verify(Message(in_file(text)), dns_of)


@pytest.fixture
def published(zone: Zone, rsa_pem: bytes, ed25519_pem: bytes) -> None:
    zone["r1._domainkey.example.org", "TXT"] = [quoted(dkim_admin.record(rsa_pem))]
    zone["e1._domainkey.example.org", "TXT"] = [quoted(dkim_admin.record(ed25519_pem))]


@pytest.fixture
def sign(in_file: Callable[[bytes], int]) -> Callable[[bytes, Key], bytes]:
    def make(text: bytes, key: Key) -> bytes:
        message = Message(in_file(text))
        body = BodyHash(relaxed=True)
        message.hash_body(body)
        return signing.sign(message.fields, body.digest(), key, 1_795_000_000) + text

    return make


Sign = Callable[[bytes, Key], bytes]
pytestmark = pytest.mark.usefixtures("published")


def outcome(verify: Verify, text: bytes) -> tuple[str, str]:
    (found,) = verify(text)
    return found.result, found.reason


def test_what_we_sign_passes(verify: Verify, sign: Sign, rsa_key: Key, ed25519_key: Key) -> None:
    found = verify(sign(sign(TEXT, rsa_key), ed25519_key))
    assert [one.result for one in found] == ["pass", "pass"]
    assert [one.algorithm for one in found] == ["ed25519-sha256", "rsa-sha256"]
    assert {one.domain for one in found} == {"example.org"}
    assert [one.selector for one in found] == ["e1", "r1"]


@pytest.mark.parametrize("canon", [b"simple/simple", b"relaxed/simple", b"simple/relaxed"])
@pytest.mark.parametrize("length", [True, False])
def test_what_dkimpy_signs_passes(
    verify: Verify, rsa_pem: bytes, canon: bytes, length: bool
) -> None:
    wire = TEXT.replace(b"\n", b"\r\n")
    key = dkim_admin.load(rsa_pem)
    from cryptography.hazmat.primitives import serialization

    pkcs1 = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    field = dkim.sign(
        wire, b"r1", b"example.org", pkcs1, canonicalize=tuple(canon.split(b"/")), length=length
    )
    text = field.replace(b"\r\n", b"\n") + TEXT
    assert outcome(verify, text) == ("pass", "")
    longer = ("policy", "not all of the body is signed") if length else ("fail",)
    assert outcome(verify, text + b"more\n")[: len(longer)] == longer


def test_a_changed_body(verify: Verify, sign: Sign, rsa_key: Key) -> None:
    text = sign(TEXT, rsa_key).replace(b"body", b"bodies")
    assert outcome(verify, text) == ("fail", "body hash did not verify")


def test_a_changed_header(verify: Verify, sign: Sign, rsa_key: Key) -> None:
    text = sign(TEXT, rsa_key).replace(b"Subject: x", b"Subject: y")
    assert outcome(verify, text) == ("fail", "signature did not verify")


def test_no_key(verify: Verify, sign: Sign, rsa_key: Key, zone: Zone) -> None:
    del zone["r1._domainkey.example.org", "TXT"]
    assert outcome(verify, sign(TEXT, rsa_key)) == ("permerror", "no key for signature")


def test_a_revoked_key(verify: Verify, sign: Sign, rsa_key: Key, zone: Zone) -> None:
    zone["r1._domainkey.example.org", "TXT"] = ['"v=DKIM1; p="']
    assert outcome(verify, sign(TEXT, rsa_key))[0] == "permerror"


@pytest.mark.parametrize(
    "record", ['"v=DKIM1; k=rsa; p=!"', '"nonsense"', '"v=DKIM1; k=x; p=aGk="', '"\\255"', '""']
)
def test_a_broken_key(verify: Verify, sign: Sign, rsa_key: Key, zone: Zone, record: str) -> None:
    zone["r1._domainkey.example.org", "TXT"] = [record]
    assert outcome(verify, sign(TEXT, rsa_key))[0] == "permerror"


def test_no_answer_from_the_dns(verify: Verify, sign: Sign, rsa_key: Key, zone: Zone) -> None:
    zone["r1._domainkey.example.org", "TXT"] = ["!"]
    assert outcome(verify, sign(TEXT, rsa_key))[0] == "temperror"


def rsa_record(modulus: int, exponent: int) -> str:
    """Return the record of an RSA key of any numbers, as ASN.1."""

    def integer(number: int) -> bytes:
        raw = number.to_bytes(number.bit_length() // 8 + 1, "big")
        return b"\x02" + size(raw) + raw

    def size(raw: bytes) -> bytes:
        if len(raw) < 128:
            return bytes([len(raw)])
        encoded = len(raw).to_bytes(2, "big")
        return b"\x82" + encoded

    def sequence(tag: int, raw: bytes) -> bytes:
        return bytes([tag]) + size(raw) + raw

    numbers = sequence(0x30, integer(modulus) + integer(exponent))
    algorithm = sequence(0x30, bytes.fromhex("06092a864886f70d0101010500"))
    key = sequence(0x30, algorithm + sequence(0x03, b"\0" + numbers))
    return f"v=DKIM1; k=rsa; p={base64.b64encode(key).decode()}"


@pytest.mark.parametrize(
    ("bits", "exponent", "reason"),
    [
        (512, 65537, "a key of 512 bits"),
        (1023, 65537, "a key of 1023 bits"),
        (4200, 65537, "a key of 4200 bits"),
        (2048, (1 << 2000) + 1, "a key with a large exponent"),
    ],
)
def test_keys_that_prove_nothing_or_take_long(
    verify: Verify,
    sign: Sign,
    rsa_key: Key,
    zone: Zone,
    bits: int,
    exponent: int,
    reason: str,
) -> None:
    record = rsa_record((1 << (bits - 1)) + 1, exponent)
    zone["r1._domainkey.example.org", "TXT"] = [quoted(record)]
    assert outcome(verify, sign(TEXT, rsa_key)) == ("policy", reason)


def test_a_very_long_key(verify: Verify, sign: Sign, rsa_key: Key, zone: Zone) -> None:
    zone["r1._domainkey.example.org", "TXT"] = [quoted("v=DKIM1; p=" + "A" * 60000)]
    assert outcome(verify, sign(TEXT, rsa_key)) == ("policy", "a very long key")


def test_sha1_is_not_taken(verify: Verify, sign: Sign, rsa_key: Key) -> None:
    text = sign(TEXT, rsa_key).replace(b"rsa-sha256", b"rsa-sha1")
    assert outcome(verify, text)[0] == "policy"


@pytest.mark.parametrize(
    "field",
    [
        b"",
        b"v=1",
        b"v=1; d=; s=; b=; bh=; h=from",
        b"v=1; d=a b; s=x; a=rsa-sha256; h=from; b=; bh=",
        b"v=1; d=../../x; s=x; a=rsa-sha256; h=from; b=; bh=",
        b"v=1; d=example.org; d=example.org; s=r1",
        b"v=1; a=rsa-sha256; d=example.org; s=r1; h=subject; bh=AAAA; b=AAAA",
        b"v=1; a=rsa-sha256; d=example.org; s=r1; l=x; h=from; bh=AAAA; b=AAAA",
        b"v=1; a=rsa-sha256; d=example.org; s=r1; h=from" + b":x" * 300 + b"; bh=AAAA; b=AAAA",
        b"v=1; a=rsa-sha256; d=example.org; s=r1; h=from; bh=A" + b" " * 5000 + b"; b=A",
        b"v=1; a=rsa-sha256; d=example.org; s=r1; h=from; bh=AAAA; b=" + b"A" * 9000,
        b"v=1; a=rsa-sha256; d=\xff.org; s=r1; h=from; bh=AAAA; b=AAAA",
    ],
    ids=range(12),
)
def test_a_signature_that_cannot_be_read(verify: Verify, field: bytes) -> None:
    assert outcome(verify, b"DKIM-Signature: " + field + b"\n" + TEXT)[0] == "permerror"


ALPHABET = st.sampled_from("abcdhlstvx=;:/+ \t\n0159.@\xff")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    tag=st.sampled_from("vacdsthbilqxz"),
    value=st.text(ALPHABET, max_size=40),
    record=st.text(st.sampled_from("vkpsth=;DKIMrsa1ed25519MII/+ \xff"), max_size=60),
)
def test_any_tag_and_any_record_has_a_result(
    verify: Verify, sign: Sign, rsa_key: Key, zone: Zone, tag: str, value: str, record: str
) -> None:
    before = zone["r1._domainkey.example.org", "TXT"]
    field, _, rest = sign(TEXT, rsa_key).partition(b"From:")
    text = b" ".join(value.encode("latin-1").split(b"\n")).replace(b";", b"")
    changed = re.sub(rb"([ \t])%c=[^;]*" % ord(tag), rb"\1%c=" % ord(tag), field, count=1)
    changed = changed.replace(b"%c=" % ord(tag), b"%c=" % ord(tag) + text, 1)
    try:
        assert len(verify(changed.rstrip(b"\n") + b"\n" + b"From:" + rest)) == 1
        zone["r1._domainkey.example.org", "TXT"] = ['"' + escaped(record) + '"']
        assert len(verify(field + b"From:" + rest)) == 1
    finally:
        zone["r1._domainkey.example.org", "TXT"] = before


def escaped(text: str) -> str:
    """Return text as it can stand in a string of a zone file."""
    return "".join(f"\\{ord(c):03}" for c in text)


def test_only_some_signatures_are_looked_at(
    verify: Verify, sign: Sign, rsa_key: Key, zone: Zone
) -> None:
    text = TEXT
    for _ in range(9):
        text = sign(text, rsa_key)
    assert len(verify(text)) == dkimverify.MOST_SIGNATURES


def test_a_header_line_that_is_no_field(verify: Verify, sign: Sign, rsa_key: Key) -> None:
    text = sign(TEXT, rsa_key).replace(b"Subject:", b"no field\nSubject:")
    assert outcome(verify, text)[0] == "permerror"
