"""TLS itself: what is too old is refused, and HTTP is nobody's protocol here."""

import ssl

import pytest
from harness.clients import Endpoint, trusting_context
from harness.dialogue import Dialogue

SERVICES = ("mx", "submission", "submissions", "pop3", "pop3s")
IMPLICIT = ("submissions", "pop3s")
OLD = [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1]
NEW = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def ready(at: Endpoint, service: str) -> Dialogue:
    """Return a dialogue in which the client is to begin its handshake."""
    if service in IMPLICIT:
        return Dialogue(at, service, greet=False, tls=False)
    dialogue = Dialogue(at, service)
    assert dialogue.code(b"STLS" if dialogue.pop3 else b"STARTTLS") in (b"220", b"+OK")
    return dialogue


def speaking(version: ssl.TLSVersion) -> ssl.SSLContext:
    """Return the context of a client that knows this version only, and every cipher of it."""
    context = trusting_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    return context


@pytest.mark.parametrize("version", OLD, ids=str)
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_old_version_is_refused(service: str, version: ssl.TLSVersion, at: Endpoint) -> None:
    with ready(at, service) as dialogue:
        # By the server's alert: not by this side, which would speak it.
        with pytest.raises((ssl.SSLError, ConnectionError)) as refused:
            dialogue.start_tls_now(speaking(version))
        assert "NO_PROTOCOLS_AVAILABLE" not in str(refused.value)


@pytest.mark.parametrize("version", NEW, ids=str)
@pytest.mark.parametrize("service", SERVICES)
def test_a_new_version_is_spoken(service: str, version: ssl.TLSVersion, at: Endpoint) -> None:
    with ready(at, service) as dialogue:
        dialogue.start_tls_now(speaking(version))
        assert isinstance(dialogue.socket, ssl.SSLSocket)
        assert dialogue.socket.version() == str(version.name).replace("_", ".")


@pytest.mark.parametrize("ciphers", ["aNULL", "eNULL", "kRSA", "PSK"])
@pytest.mark.parametrize("service", SERVICES)
def test_a_weak_cipher_is_refused(service: str, ciphers: str, at: Endpoint) -> None:
    context = speaking(ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    with ready(at, service) as dialogue, pytest.raises((ssl.SSLError, ConnectionError)):
        dialogue.start_tls_now(context)


# What each says to a line that it does not know, before anybody has logged in.
UNKNOWN = {
    "mx": b"502 unimplemented (#5.5.1)\r\n",
    "submission": b"530 authup authentication required (#5.7.1)\r\n",
    "pop3": b"-ERR authup authorization first\r\n",
}


@pytest.mark.parametrize("service", UNKNOWN)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_an_http_request_first_is_unknown_commands(service: str, tls: bool, at: Endpoint) -> None:
    with Dialogue(at, service, greet=False) as dialogue:
        if tls:
            dialogue.reply()
            dialogue.start_tls()
        dialogue.send(b"GET / HTTP/1.1\r\nHost: mail.example.test\r\n\r\nQUIT\r\n")
        answer = dialogue.rest().splitlines(keepends=True)
    # Without TLS also the greeting; the last is the answer to QUIT.
    assert answer[0 if tls else 1 : -1] == [UNKNOWN[service]] * 3, answer
