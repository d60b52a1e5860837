"""A DNS made of a table, messages in files, and keys."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.name
import dns.rdata
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from pyqmail.mailauth import lookups, service, signing
from pyqmail.mailauth.lookups import Lookups
from pyqmail.mailauth.signing import Key

Zone = dict[tuple[str, str], list[str]]


class TableResolver(lookups.Resolver):
    """Answers from a table: (name, kind) -> records in zone file form; "!" is trouble."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.asked: list[tuple[str, str]] = []

    def resolve(self, name: dns.name.Name, kind: str, seconds: float) -> list[dns.rdata.Rdata]:
        text = name.to_text(omit_final_dot=True).lower()
        self.asked.append((text, kind))
        found = self.zone.get((text, kind))
        if found == ["!"]:
            raise lookups.TroubleError("no answer")
        if found is None:
            if any(known == text or known.endswith("." + text) for known, _ in self.zone):
                return []
            raise lookups.NoNameError(text)
        return [dns.rdata.from_text("IN", kind, record) for record in found]


@pytest.fixture
def zone() -> Zone:
    return {}


@pytest.fixture
def resolver(zone: Zone) -> TableResolver:
    return TableResolver(zone)


@pytest.fixture
def dns_of(resolver: TableResolver) -> Lookups:
    return Lookups(resolver, 10.0)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """A function: handler -> path of a socket behind which it answers."""
    started: list[tuple[socket.socket, threading.Thread]] = []

    def start(
        handler: service.Handler,
        per_user: int | None = None,
        peers: frozenset[int] | None = None,
    ) -> str:
        path = str(tmp_path / "socket")
        listener = service.listen(path)
        thread = threading.Thread(
            target=service.serve,
            args=("test", listener, handler, None, per_user, peers),
            daemon=True,
        )
        thread.start()
        started.append((listener, thread))
        return path

    yield start
    for listener, thread in started:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(20)
        listener.close()


@pytest.fixture
def in_file() -> Iterator[Callable[[bytes], int]]:
    """A function: content -> a descriptor of a file with it."""
    opened = []

    def put(content: bytes) -> int:
        descriptor = os.memfd_create("message")
        opened.append(descriptor)
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        return descriptor

    yield put
    for descriptor in opened:
        os.close(descriptor)


def pem(key: object) -> bytes:
    private: bytes = key.private_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return private


@pytest.fixture(scope="session")
def rsa_pem() -> bytes:
    return pem(generate_private_key(65537, 2048))


@pytest.fixture(scope="session")
def ed25519_pem() -> bytes:
    return pem(Ed25519PrivateKey.generate())


@pytest.fixture(scope="session")
def rsa_key(rsa_pem: bytes) -> Key:
    return signing.load(b"example.org", b"r1", rsa_pem)


@pytest.fixture(scope="session")
def ed25519_key(ed25519_pem: bytes) -> Key:
    return signing.load(b"example.org", b"e1", ed25519_pem)
