"""The appliance's own services when tcpserver takes the connections, and ucspitlsd has the TLS."""

import smtplib
from itertools import cycle
from pathlib import Path

import pytest
from harness import appliance as harness
from harness import mail, wait
from harness.clients import FETCHERS, SUBMITTERS, trusting_context
from harness.dialogue import Dialogue
from harness.foreign import Foreign

SUBMIT = [name for name in SUBMITTERS if "starttls" in name]
FETCH = ["curl-pop3", "poplib-stls", "mpop-stls", "openssl-stls"]
QMAILD = 7791


@pytest.mark.parametrize(("submit", "fetch"), list(zip(SUBMIT, cycle(FETCH), strict=False)))
def test_submitted_mail_is_fetched(
    submit: str, fetch: str, foreign: Foreign, tmp_path: Path
) -> None:
    running = foreign.appliance
    account = running.add_account()
    at = running.endpoint
    message = mail.compose(account.address, account.address, size=100_000)
    SUBMITTERS[submit](at, account, message, account.address, tmp_path)
    (got,) = wait.until("the message", lambda: FETCHERS[fetch](at, account, tmp_path))
    assert mail.body_of(got) == message.body
    received = b"\n".join(mail.header(got, "Received"))
    assert b"(ucspitls acceptutils authup " + account.address.encode() + b" TLSv1.3 " in received


def test_mail_from_outside_arrives(foreign: Foreign, tmp_path: Path) -> None:
    running = foreign.appliance
    account = running.add_account()
    message = mail.compose("someone@outside.example", account.address)
    with smtplib.SMTP(running.host, running.endpoint.ports["mx"], timeout=30) as client:
        client.starttls(context=trusting_context())
        client.sendmail(
            "someone@outside.example", [account.address], message.raw, ["BODY=8BITMIME"]
        )
    (got,) = wait.until(
        "the message", lambda: FETCHERS["poplib-stls"](running.endpoint, account, tmp_path)
    )
    assert mail.body_of(got) == message.body
    assert b"(ucspitls acceptutils fixsmtpio TLSv1.3 " in b"\n".join(mail.header(got, "Received"))


def test_who_reads_a_strangers_bytes_is_qmaild(foreign: Foreign) -> None:
    running = foreign.appliance
    with Dialogue(running.endpoint, "mx") as dialogue:
        assert dialogue.code(b"NOOP") == b"250"
        family = running.processes_of("mx")
        assert {p.uid for p in family if "qmail-smtpd" in p.command.split()[-1]} >= {QMAILD}
        # Still root: the server itself, and an engine that nobody has asked for TLS yet.
        roots = [p.command for p in family if p.uid == 0]
        assert all("tcpserver" in c or "ucspitlsd" in c for c in roots), roots


def test_the_start_says_what_does_not_run(foreign: Foreign) -> None:
    running = foreign.appliance
    said = "postern: tcpserver CANNOT BEGIN WITH TLS: not running submissions pop3s"
    assert said in running.logs()
    for service in ("submissions", "pop3s"):
        port = harness.PORTS[service]
        probe = f"import socket; socket.create_connection(('127.0.0.1', {port}))"
        assert "Connection refused" in running.run(["python3", "-c", probe])[1]
