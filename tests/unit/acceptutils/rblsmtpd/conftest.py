"""A DNS server on the loopback address, which answers what a test tells it to."""

from collections.abc import Iterator

import pytest
from harness.dnsserver import Dns

from acceptutils.rblsmtpd import lookup


@pytest.fixture
def dns_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dns]:
    """A server that look-ups are sent to when DNSCACHEIP is 127.0.0.1."""
    server = Dns("127.0.0.1", 0)
    monkeypatch.setattr(lookup, "PORT", server.port)
    yield server
    server.close()


@pytest.fixture
def second_server(dns_server: Dns) -> Iterator[Dns]:
    """Another one, at 127.0.0.2."""
    server = Dns("127.0.0.2", dns_server.port)
    yield server
    server.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait long for an answer that does not come."""
    monkeypatch.setattr(lookup, "ATTEMPTS", (0.3, 0.3, 0.3))
