"""Mail from elsewhere, forwarded elsewhere: whoever is strict about senders takes it."""

import smtplib
import uuid
from pathlib import Path

import pytest
from harness import mail, wait
from harness.appliance import Appliance
from harness.clients import FETCHERS, Account, Endpoint
from harness.elsewhere import Elsewhere


@pytest.fixture
def sender(elsewhere: Elsewhere) -> Account:
    """Whose mail is forwarded."""
    return elsewhere.add_account()


def alias_to(appliance: Appliance, *targets: str) -> str:
    alias = f"to-{uuid.uuid4().hex[:12]}@{appliance.domain}"
    status, printed = appliance.postern("alias", "add", alias, *targets)
    assert status == 0, printed
    return alias


def send(at: Endpoint, sender: str, recipient: str) -> mail.Message:
    """Send a message from outside, over the MX."""
    message = mail.compose(sender, recipient)
    with smtplib.SMTP(at.host, at.ports["mx"], timeout=30) as client:
        client.sendmail(sender, [recipient], message.raw, ["BODY=8BITMIME"])
    return message


def fetch_one(at: Endpoint, account: Account, scratch: Path) -> bytes:
    found = wait.until("the message", lambda: FETCHERS["poplib-implicit"](at, account, scratch))
    assert len(found) == 1
    return found[0]


def test_forwarded_mail_comes_from_the_forwarder(
    appliance: Appliance, at: Endpoint, elsewhere: Elsewhere, sender: Account, tmp_path: Path
) -> None:
    there, here = elsewhere.add_account(), appliance.add_account()
    message = send(at, sender.address, alias_to(appliance, there.address, here.address))
    got = fetch_one(elsewhere.endpoint, there, tmp_path)
    assert mail.body_of(got) == message.body
    (path,) = mail.header(got, "Return-Path")
    user = sender.address.partition("@")[0].encode()
    assert path.startswith(b"<SRS0=") and path.endswith(b"=elsewhere.test=%b@example.test>" % user)
    # Who is here gets it as it came.
    kept = fetch_one(at, here, tmp_path)
    assert mail.header(kept, "Return-Path") == [b"<%b>" % sender.address.encode()]


def test_bounce_of_forwarded_mail_reaches_the_sender(
    appliance: Appliance, at: Endpoint, elsewhere: Elsewhere, sender: Account, tmp_path: Path
) -> None:
    message = send(at, sender.address, alias_to(appliance, "nobody-there@elsewhere.test"))
    got = fetch_one(elsewhere.endpoint, sender, tmp_path)
    assert mail.header(got, "Return-Path") == [b"<>"]
    assert b"no mailbox here by that name" in got
    assert message.token.encode() in got


def test_without_it_the_forward_is_refused(elsewhere: Elsewhere, sender: Account) -> None:
    at = elsewhere.endpoint
    with smtplib.SMTP(at.host, at.ports["mx"], timeout=30) as client:
        client.ehlo("mail.example.test")
        client.mail(sender.address)
        assert client.rcpt(sender.address)[0] == 553


def test_forged_return_address_is_no_recipient(at: Endpoint) -> None:
    with smtplib.SMTP(at.host, at.ports["mx"], timeout=30) as client:
        client.ehlo("outside.example")
        client.mail("")
        forged = "SRS0=AAAAAA=AA=elsewhere.test=somebody@example.test"
        assert client.rcpt(forged) == (550, b"sorry, no mailbox here by that name. (#5.1.1)")


def test_no_user_can_read_the_secret(appliance: Appliance) -> None:
    for user in ("alias", "qmaild", "qmailr", "qmails", "20000:20000"):
        status, _ = appliance.run(["cat", "/var/qmail/control/srs_secrets"], user=user)
        assert status != 0
