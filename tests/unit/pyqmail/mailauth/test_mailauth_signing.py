"""Signatures that others verify: dkimpy is the judge."""

import re
from collections.abc import Callable

import dkim
import pytest

from appliance import dkim as dkim_admin
from pyqmail.mailauth import signing
from pyqmail.mailauth.bodyhash import BodyHash
from pyqmail.mailauth.message import Message
from pyqmail.mailauth.signing import Key, UnusableKeyError

TEXT = (
    b"Received: by somebody\n"
    b"From: Alice\n\t <alice@example.org>\n"
    b"To: bob@example.net\n"
    b"Subject:  a   subject \n that is\t folded\n"
    b"Date: Sun, 22 Nov 2026 19:00:00 -0000\n"
    b"\n"
    b"A  body \nwith lines\t\n\n\n"
)
InFile = Callable[[bytes], int]


@pytest.fixture(params=["rsa", "ed25519"])
def key(request: pytest.FixtureRequest, rsa_key: Key, ed25519_key: Key) -> Key:
    return rsa_key if request.param == "rsa" else ed25519_key


@pytest.fixture
def sign(in_file: InFile) -> Callable[[bytes, Key], bytes]:
    """A function: message, key -> the signature field."""

    def make(text: bytes, key: Key) -> bytes:
        message = Message(in_file(text))
        body = BodyHash(relaxed=True)
        message.hash_body(body)
        return signing.sign(message.fields, body.digest(), key, 1_795_000_000)

    return make


def passes(text: bytes, key: Key) -> bool:
    from cryptography.hazmat.primitives import serialization

    pem = key.private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    record = dkim_admin.record(pem).encode()
    asked = []

    def look_up(name: bytes, timeout: float = 5) -> bytes:
        asked.append(name)
        return record

    wire = text.replace(b"\n", b"\r\n")
    try:
        return bool(dkim.verify(wire, dnsfunc=look_up, minkey=1024))
    finally:
        assert asked in ([], [key.selector + b"._domainkey.example.org."])


Sign = Callable[[bytes, Key], bytes]


def test_what_is_signed_verifies(sign: Sign, key: Key) -> None:
    assert passes(sign(TEXT, key) + TEXT, key)


@pytest.mark.parametrize(
    "text",
    [
        b"From: a@example.org\n\n",
        b"From: a@example.org\n",
        b"From: a@example.org\n\nno line end",
        b"from:a@example.org\nSUBJECT:x\nSubject: twice\n\n\n \n\t\nbody\n \n\n",
        b"From: a@example.org\nSubject: \xc3\xa9\nX: y\n\n\xe9\n.\n..\n",
    ],
    ids=["empty body", "no body", "no line end", "odd", "eight bits"],
)
def test_odd_messages_verify(text: bytes, sign: Sign, rsa_key: Key) -> None:
    signed = sign(text, rsa_key) + text + (b"" if text.endswith(b"\n") else b"\n")
    assert passes(signed, rsa_key)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"A  body", b"A  bodie"),
        (b"bob@", b"eve@"),
        (b"Subject:  a", b"Subject: b"),
        (b"\n\nA  body", b"\nFrom: eve@example.com\n\nA  body"),
        (b"\n\nA  body", b"\nSubject: another\n\nA  body"),
        (b"\n\nA  body", b"\nReply-To: eve@example.com\n\nA  body"),
        (b"\n\nA  body", b"\nCc: eve@example.com\n\nA  body"),
    ],
)
def test_a_change_shows(before: bytes, after: bytes, sign: Sign, rsa_key: Key) -> None:
    assert before in TEXT
    assert not passes(sign(TEXT, rsa_key) + TEXT.replace(before, after), rsa_key)


def test_what_mail_servers_do_on_the_way_does_not_matter(sign: Sign, rsa_key: Key) -> None:
    signature = sign(TEXT, rsa_key)
    later = TEXT.replace(b"a   subject", b"a subject").replace(b"lines\t\n\n\n", b"lines\n")
    assert passes(b"Received: by another\n" + signature + b"Return-Path: <>\n" + later, rsa_key)


def test_the_tags_of_a_signature(sign: Sign, rsa_key: Key) -> None:
    field = sign(TEXT, rsa_key)
    tags = dict(
        part.split(b"=", 1) for part in re.sub(rb"\s", b"", field.partition(b":")[2]).split(b";")
    )
    assert tags[b"v"] == b"1"
    assert tags[b"c"] == b"relaxed/relaxed"
    assert (tags[b"d"], tags[b"s"], tags[b"t"]) == (b"example.org", b"r1", b"1795000000")
    assert b"l" not in tags
    names = tags[b"h"].split(b":")
    assert names.count(b"from") == names.count(b"subject") == names.count(b"to") == 2
    assert names.count(b"cc") == names.count(b"reply-to") == 1
    assert b"received" not in names
    assert max(map(len, field.split(b"\n"))) <= 78
    assert not [line for line in field.split(b"\n")[1:-1] if line[:1] != b"\t"]


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN PRIVATE KEY-----\nx\n", b"\xff"])
def test_what_is_no_key(pem: bytes) -> None:
    with pytest.raises(UnusableKeyError):
        signing.load(b"example.org", b"s", pem)


def test_a_key_for_something_else_is_not_taken() -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with pytest.raises(UnusableKeyError):
        signing.load(b"example.org", b"s", other)
