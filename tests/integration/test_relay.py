"""Mail for other domains leaves through smtproutes, over TLS when the other side offers it."""

import smtplib
from pathlib import Path

from harness import mail, wait
from harness.appliance import Appliance
from harness.clients import FETCHERS, SUBMITTERS, Account, Endpoint, trusting_context
from harness.elsewhere import Elsewhere


def fetch_one(at: Endpoint, account: Account, scratch: Path) -> bytes:
    """Return the only message of account as soon as it is there."""
    found = wait.until("the message", lambda: FETCHERS["poplib-implicit"](at, account, scratch))
    assert len(found) == 1
    return found[0]


def test_a_message_for_another_domain_reaches_its_appliance(
    at: Endpoint, account: Account, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    there = elsewhere.add_account()
    message = mail.compose(account.address, there.address, size=100_000)
    SUBMITTERS["smtplib-starttls"](at, account, message, there.address, tmp_path)
    got = fetch_one(elsewhere.endpoint, there, tmp_path)
    assert mail.body_of(got) == message.body
    assert mail.header(got, "Return-Path") == [b"<" + account.address.encode() + b">"]
    assert b"(ucspitls acceptutils fixsmtpio TLSv1.3 " in b"\n".join(mail.header(got, "Received"))


def test_a_bounce_comes_back_when_the_other_side_refuses(
    at: Endpoint, account: Account, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    nobody = "nobody-there@elsewhere.test"
    message = mail.compose(account.address, nobody)
    SUBMITTERS["smtplib-starttls"](at, account, message, nobody, tmp_path)
    got = fetch_one(at, account, tmp_path)
    assert mail.header(got, "Return-Path") == [b"<>"]
    assert b"<nobody-there@elsewhere.test>:" in got
    assert b"no mailbox here by that name" in got
    assert message.token.encode() in got


def test_mail_waits_while_the_other_side_is_away(
    appliance: Appliance, at: Endpoint, account: Account, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    there = elsewhere.add_account()
    message = mail.compose(account.address, there.address)
    mark = appliance.logs().count("deferral")
    try:
        assert elsewhere.run(["s6-svc", "-wd", "-d", "/run/postern/service/mx"])[0] == 0
        SUBMITTERS["smtplib-starttls"](at, account, message, there.address, tmp_path)
        wait.until("a deferral", lambda: appliance.logs().count("deferral") > mark)
    finally:
        elsewhere.run(["s6-svc", "-wU", "-u", "/run/postern/service/mx"])
    # A host that could not be reached is left alone for a while (qmail-tcpto): ask until it is.
    appliance.run(["sh", "-c", ": >/var/qmail/queue/lock/tcpto"], user="qmailr")

    def arrived() -> list[bytes]:
        appliance.run(["s6-svc", "-a", "/run/postern/service/queue"])
        return FETCHERS["poplib-implicit"](elsewhere.endpoint, there, tmp_path)

    (got,) = wait.until("the message after the outage", arrived, seconds=60)
    assert mail.body_of(got) == message.body


def test_a_route_is_no_permission_to_relay(at: Endpoint, elsewhere: Elsewhere) -> None:
    with smtplib.SMTP(at.host, at.ports["mx"], timeout=30) as client:
        client.starttls(context=trusting_context())
        client.ehlo("outside.example")
        client.mail("someone@outside.example")
        assert client.rcpt("anyone@elsewhere.test")[0] == 553
