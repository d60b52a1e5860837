"""One function per kind of session: what a client does from connect to close."""

import poplib
import smtplib
import ssl
from collections.abc import Callable
from typing import NamedTuple


class Target(NamedTuple):
    """A server under load: its published ports by service, and an account."""

    ports: dict[str, int]
    user: str
    address: str
    password: str


HOST = "127.0.0.1"
TEXT = (
    b"From: <%b>\r\nTo: <%b>\r\nSubject: bench\r\n"
    b"Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nMessage-ID: <1@client.example>\r\n\r\n"
)
CONTEXT = ssl.create_default_context()
CONTEXT.check_hostname = False
CONTEXT.verify_mode = ssl.CERT_NONE


def message(target: Target, size: int = 2048) -> bytes:
    """Return a message of about size bytes."""
    head = TEXT % (target.address.encode(), target.address.encode())
    return head + b"x" * 70 + b"\r\n" + b"%070d\r\n" % 0 * max(0, (size - len(head)) // 72)


def mx_hello(target: Target) -> None:
    """Banner, EHLO, QUIT."""
    with smtplib.SMTP(HOST, target.ports["mx"], timeout=60) as client:
        client.ehlo("client.example")


def mx_message(target: Target) -> None:
    """A message of 2 KiB from outside, in plaintext."""
    with smtplib.SMTP(HOST, target.ports["mx"], timeout=60) as client:
        client.sendmail("someone@outside.example", [target.address], message(target))


def mx_starttls(target: Target) -> None:
    """A message of 2 KiB from outside, after STARTTLS."""
    with smtplib.SMTP(HOST, target.ports["mx"], timeout=60) as client:
        client.starttls(context=CONTEXT)
        client.sendmail("someone@outside.example", [target.address], message(target))


def mx_large(target: Target) -> None:
    """A message of 10 MiB from outside, in plaintext."""
    with smtplib.SMTP(HOST, target.ports["mx"], timeout=60) as client:
        client.sendmail("someone@outside.example", [target.address], message(target, 10_000_000))


def submission(target: Target) -> None:
    """STARTTLS, AUTH, a message of 2 KiB."""
    with smtplib.SMTP(HOST, target.ports["submission"], timeout=60) as client:
        client.starttls(context=CONTEXT)
        client.login(target.user, target.password)
        client.sendmail(target.address, [target.address], message(target))


def submissions(target: Target) -> None:
    """Implicit TLS, AUTH, a message of 2 KiB."""
    port = target.ports["submissions"]
    with smtplib.SMTP_SSL(HOST, port, timeout=60, context=CONTEXT) as client:
        client.login(target.user, target.password)
        client.sendmail(target.address, [target.address], message(target))


def _fetch(client: poplib.POP3, target: Target) -> None:
    client.user(target.user)
    client.pass_(target.password)
    count = client.stat()[0]
    if count:
        client.retr(1)
        client.dele(1)
    client.quit()


def pop3(target: Target) -> None:
    """STLS, login, STAT, RETR and DELE of one message."""
    client = poplib.POP3(HOST, target.ports["pop3"], timeout=60)
    client.stls(CONTEXT)
    _fetch(client, target)


def pop3s(target: Target) -> None:
    """Implicit TLS, login, STAT, RETR and DELE of one message."""
    client = poplib.POP3_SSL(HOST, target.ports["pop3s"], timeout=60, context=CONTEXT)
    _fetch(client, target)


SESSIONS: dict[str, Callable[[Target], None]] = {
    function.__name__: function
    for function in (
        mx_hello,
        mx_message,
        mx_starttls,
        mx_large,
        submission,
        submissions,
        pop3,
        pop3s,
    )
}
