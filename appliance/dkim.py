"""Signing keys for DKIM: made here by root, read by dkimsignd alone.

/data/dkim/DOMAIN/SELECTOR.pem   a private key
/data/dkim/DOMAIN/use            the selectors that are signed with, one in a line
"""

import base64
import os
import re
import time
from collections.abc import Iterable

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from appliance import data, durable
from appliance.data import Directory
from appliance.errors import ApplianceError
from appliance.layout import DKIM, Layout, Owner

RSA_BITS = 2048  # RFC 8301, 3.2; a longer key does not fit everybody's DNS editor
ALGORITHMS = ("rsa", "ed25519")
SELECTOR = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
USE = "use"
SUFFIX = ".pem"
STRING = 255  # bytes of one string in a TXT record (RFC 1035, 3.3)


class DkimError(ApplianceError):
    """Something that is asked of the keys cannot be; the text says why."""


def ensure(places: Layout, domains: Iterable[str], algorithms: Iterable[str]) -> list[str]:
    """Make keys for domains that have none, and use them; return those domains.

    Raises:
        DkimError, DataError, OSError: they cannot be made.
    """
    wanted = tuple(algorithms)
    made = []
    for domain in domains:
        if not os.path.exists(f"{folder(places, domain)}/{USE}"):
            selectors = [make(places, domain, kind) for kind in wanted]
            use(places, domain, *selectors)
            made.append(domain)
    return made


def folder(places: Layout, domain: str) -> str:
    """Return the directory of a domain's keys."""
    return f"{places.dkim}/{domain}"


def selectors(places: Layout, domain: str) -> list[str]:
    """Return the selectors that a domain has keys for, sorted.

    Raises:
        OSError: they cannot be read.
    """
    try:
        names = os.listdir(folder(places, domain))
    except FileNotFoundError:
        return []
    return sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))


def used(places: Layout, domain: str) -> list[str]:
    """Return the selectors that a domain's mail is signed with.

    Raises:
        OSError: they cannot be read.
    """
    try:
        with open(f"{folder(places, domain)}/{USE}") as file:
            return file.read().split()
    except FileNotFoundError:
        return []


def make(places: Layout, domain: str, kind: str, selector: str = "") -> str:
    """Make a key that is not used yet; return its selector.

    Args:
        places: where.
        domain: whose.
        kind: one of ALGORITHMS.
        selector: its name in the DNS; "" for one made from the date.

    Raises:
        DkimError: the selector is taken, or none.
        DataError, OSError: it cannot be written.
    """
    key: RSAPrivateKey | Ed25519PrivateKey
    if kind == "rsa":
        key = generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    else:
        key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return keep(places, domain, pem, selector or _free_selector(places, domain, kind))


def keep(places: Layout, domain: str, pem: bytes, selector: str) -> str:
    """Keep a key under a selector; return the selector.

    Raises:
        DkimError: the selector is taken, or none; or that is no key.
        DataError, OSError: it cannot be written.
    """
    if not SELECTOR.match(selector):
        raise DkimError(f"{selector}: not a selector: small letters, digits and dashes")
    if selector in selectors(places, domain):
        raise DkimError(f"{selector}: {domain} has a key of that name")
    load(pem)
    owner = Owner(0, DKIM.gid)
    data.ensure(Directory(places.dkim, 0o750, owner))
    data.ensure(Directory(folder(places, domain), 0o750, owner))
    path = f"{folder(places, domain)}/{selector}{SUFFIX}"
    durable.replace(path, pem, group=DKIM.gid)
    return selector


def _free_selector(places: Layout, domain: str, kind: str) -> str:
    """Return a name such as 202611r, for the month and the algorithm."""
    base = time.strftime("%Y%m", time.gmtime()) + kind[0]
    taken = selectors(places, domain)
    number = 1
    while (name := base if number == 1 else f"{base}{number}") in taken:
        number += 1
    return name


def use(places: Layout, domain: str, *names: str) -> None:
    """Sign a domain's mail with these selectors from now on; none ends signing.

    Raises:
        DkimError: there is no such key.
        OSError: it cannot be written.
    """
    for name in names:
        if name not in selectors(places, domain):
            raise DkimError(f"{name}: {domain} has no key of that name")
    text = "".join(f"{name}\n" for name in names).encode()
    durable.replace(f"{folder(places, domain)}/{USE}", text, group=DKIM.gid)


def delete(places: Layout, domain: str, selector: str) -> None:
    """Delete a key that is not in use.

    Raises:
        DkimError: there is no such key, or it is in use.
        OSError: it cannot be deleted.
    """
    if selector not in selectors(places, domain):
        raise DkimError(f"{selector}: {domain} has no key of that name")
    if selector in used(places, domain):
        raise DkimError(f"{selector}: is in use; postern dkim use {domain} ANOTHER")
    os.unlink(f"{folder(places, domain)}/{selector}{SUFFIX}")


def read(places: Layout, domain: str, selector: str) -> bytes:
    """Return a private key, in PEM.

    Raises:
        OSError: it cannot be read.
    """
    with open(f"{folder(places, domain)}/{selector}{SUFFIX}", "rb") as file:
        return file.read()


def load(pem: bytes) -> RSAPrivateKey | Ed25519PrivateKey:
    """Return the key in a PEM file.

    Raises:
        DkimError: it is none that DKIM can use.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise DkimError("not a private key in PEM without a passphrase") from error
    if not isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
        raise DkimError("neither an RSA nor an Ed25519 key")
    if isinstance(key, RSAPrivateKey) and key.key_size < 1024:
        raise DkimError(f"an RSA key of {key.key_size} bits is too short")
    return key


def algorithm(pem: bytes) -> str:
    """Return which of ALGORITHMS a private key is for.

    Raises:
        DkimError: that is no key.
    """
    return "rsa" if isinstance(load(pem), RSAPrivateKey) else "ed25519"


def record(pem: bytes) -> str:
    """Return the DNS record of a private key (RFC 6376, 3.6.1; RFC 8463, 4).

    Raises:
        DkimError: that is no key.
    """
    kind, public = algorithm(pem), load(pem).public_key()
    if kind == "rsa":
        raw = public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    else:
        raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return f"v=DKIM1; k={kind}; p={base64.b64encode(raw).decode()}"


def zone_line(places: Layout, domain: str, selector: str) -> str:
    """Return the record of a key as a line of a zone file.

    Raises:
        DkimError, OSError: the key cannot be read.
    """
    text = record(read(places, domain, selector))
    strings = " ".join(f'"{text[i : i + STRING]}"' for i in range(0, len(text), STRING))
    return f"{selector}._domainkey.{domain}.\tIN TXT {strings}"
