"""STARTTLS and STLS: nothing from before survives, nothing unasked comes after."""

import os
from typing import Any

import pytest

GREETING = b"220 mail.example.org ESMTP\r\n"
READY = b"220 Ready to start TLS (#5.7.0)\r\n"
STARTING = b"+OK starting TLS negotiation\r\n"
EHLO_INSIDE = b"250-mail.example.org\r\n250-AUTH LOGIN PLAIN\r\n250-PIPELINING\r\n250 8BITMIME\r\n"

Start = Any  # the fixture authup: see conftest

root_only = pytest.mark.skipif(os.getuid() != 0, reason="changes its uid")


def test_session_inside_tls(authup: Start) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0", tls=True, UCSPITLS="!")
    client.expect(GREETING)
    client.says(
        b"EHLO c", b"250-mail.example.org\r\n250-STARTTLS\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
    )
    client.says(b"AUTH PLAIN AGEAcmlnaHQ=", b"530 authup Must start TLS first (#5.7.0)\r\n")
    client.says(b"STARTTLS", READY)
    client.start_tls()
    client.says(b"EHLO c", EHLO_INSIDE)
    client.says(b"STARTTLS", b"502 unimplemented (#5.5.1)\r\n")
    client.says(b"AUTH PLAIN AGEAcmlnaHQ=", b"ready\r\n")
    client.says(b"x", b"<x\r\n>")
    assert "authup PID negotiated TLS" in client.log_lines()


def test_pop3_session_inside_tls(authup: Start) -> None:
    client = authup("pop3", "checkpw", "session", "echo", "0", tls=True, UCSPITLS="!")
    client.receive()
    client.says(b"USER a", b"-ERR authup Must start TLS first\r\n")
    client.says(b"STLS", STARTING)
    client.start_tls()
    client.says(
        b"CAPA", b"+OK capability list follows\r\nUSER\r\nSASL PLAIN\r\nTOP\r\nUIDL\r\n.\r\n"
    )
    client.says(b"USER a", b"+OK \r\n")
    client.says(b"PASS right", b"ready\r\n")


@pytest.mark.parametrize(
    "behind",
    [b"NOOP\r\n", b"NOOP\r\nEHLO x\r\nQUIT\r\n", b"NO", b"AUTH PLAIN AGEAcmlnaHQ=\r\n", b"\0"],
)
def test_plaintext_behind_starttls_is_dropped(authup: Start, behind: bytes) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0", tls=True, UCSPITLS="")
    client.send(b"STARTTLS\r\n" + behind)
    client.expect(GREETING + READY)
    client.start_tls()
    client.says(b"EHLO c", EHLO_INSIDE)


@pytest.mark.parametrize("behind", [b"USER root\r\n", b"USER root\r\nPASS x\r\n", b"US"])
def test_plaintext_behind_stls_is_dropped(authup: Start, behind: bytes) -> None:
    client = authup("pop3", "checkpw", "session", "echo", "0", tls=True, UCSPITLS="")
    client.receive()
    client.send(b"USER mallory\r\nSTLS\r\n" + behind)
    client.expect(b"+OK \r\n" + STARTING)
    client.start_tls()
    client.says(b"PASS right", b"-ERR authup USER first\r\n")
    client.says(b"NOOP", b"+OK \r\n")


def test_replies_to_what_came_before_starttls_come_before_it(authup: Start) -> None:
    client = authup("smtp", "checkpw", tls=True, UCSPITLS="")
    client.send(b"NOOP\r\nHELO c\r\nSTARTTLS\r\nNOOP\r\n")
    client.expect(GREETING + b"250 ok\r\n250 mail.example.org\r\n" + READY)
    client.start_tls()
    client.says(b"NOOP", b"250 ok\r\n")


def test_failed_handshake_ends_the_connection(authup: Start) -> None:
    client = authup("smtp", "checkpw", tls=True, UCSPITLS="")
    client.expect(GREETING)
    client.says(b"STARTTLS", READY)
    client.engine.recv(1)
    client.engine.close()
    assert client.status() == 1
    failures = [line for line in client.log_lines() if "TLS" in line]
    assert failures == ["authup PID TLS handshake failed"]


def test_missing_engine_is_said_in_plaintext(authup: Start) -> None:
    client = authup("smtp", "checkpw", UCSPITLS="")
    client.expect(GREETING)
    client.says(b"STARTTLS", READY)
    client.expect_end(b"454 authup TLS temporarily not available (#5.7.3)\r\n")
    assert client.status() == 1


def test_stalled_handshake_ends_with_the_deadline(authup: Start) -> None:
    client = authup("smtp", "checkpw", tls=True, UCSPITLS="", AUTHUP_PREAUTH_SECONDS="1")
    client.expect(GREETING)
    client.says(b"STARTTLS", READY)
    assert client.engine.recv(1) == b"Y"
    assert client.status() == 1


@pytest.mark.parametrize("value", ["-", None])
def test_tls_is_not_offered(authup: Start, value: str | None) -> None:
    env = {} if value is None else {"UCSPITLS": value}
    client = authup("smtp", "checkpw", tls=True, **env)
    client.expect(GREETING)
    client.says(b"STARTTLS", b"502 unimplemented (#5.5.1)\r\n")


def test_disabled_tls_is_not_required_either(authup: Start) -> None:
    client = authup(
        "smtp", "checkpw", "session", "echo", "0", tls=True, UCSPITLS="!", DISABLETLS="1"
    )
    client.expect(GREETING)
    client.says(b"STARTTLS", b"502 unimplemented (#5.5.1)\r\n")
    client.says(b"AUTH PLAIN AGEAcmlnaHQ=", b"ready\r\n")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SSL_PROTOCOL", b"TLSv1.3"),
        ("SSL_TLS_SNI_SERVERNAME", b""),
        ("SSL_CIPHER", b"a=b"),
        ("PATH_INFO", b"(unset)"),  # not one of TLS's
        ("SSL_CERT_FILE", b"(unset)"),
    ],
)
def test_session_gets_the_tls_variables_and_no_others(
    authup: Start, name: str, value: bytes
) -> None:
    client = authup("smtp", "checkpw", "session", "env", name, "0", tls=True, UCSPITLS="")
    client.expect(GREETING)
    client.says(b"STARTTLS", READY)
    client.start_tls(
        b"SSL_CIPHER=a=b\0PATH_INFO=x\0SSL_TLS_SNI_SERVERNAME=\0SSL_CERT_FILE=/x\0"
        b"SSL_PROTOCOL=TLSv1.3\0\0"
    )
    client.send(b"AUTH PLAIN AGEAcmlnaHQ=\r\n")
    client.expect_end(value + b"\r\n")


def test_foreign_session_inside_tls(authup: Start) -> None:
    script = "echo $AUTHUP_USER $SSL_PROTOCOL $UCSPITLS$SSLCTLFD; read x; echo $x; exit 4"
    client = authup("smtp", "sh", "-c", script, tls=True, UCSPITLS="!")
    client.expect(GREETING)
    client.says(b"STARTTLS", READY)
    client.start_tls()
    client.says(b"AUTH PLAIN AGEAcmlnaHQ=", b"a TLSv1.3\n")
    client.send(b"hello\n")
    client.expect_end(b"hello\n")
    assert client.status() == 4


def test_broken_clients_are_offered_auth_twice(authup: Start) -> None:
    client = authup("smtp", "checkpw", AUTHUP_SASL_BROKEN_CLIENTS="")
    client.expect(GREETING)
    client.says(
        b"EHLO c",
        b"250-mail.example.org\r\n250-AUTH LOGIN PLAIN\r\n250-AUTH=LOGIN PLAIN\r\n"
        b"250-PIPELINING\r\n250 8BITMIME\r\n",
    )
