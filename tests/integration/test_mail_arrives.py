"""What every client sends is what every client fetches, to the byte."""

import smtplib
from pathlib import Path

import pytest
from harness import mail, wait
from harness.appliance import Appliance
from harness.clients import FETCHERS, SUBMITTERS, Account, Endpoint, trusting_context

fetch_for_tests = FETCHERS["poplib-implicit"]


def wait_for(at: Endpoint, account: Account, count: int, scratch: Path) -> list[bytes]:
    """Return the mailbox of account as soon as it holds count messages."""

    def arrived() -> list[bytes] | None:
        found = fetch_for_tests(at, account, scratch)
        return found if len(found) >= count else None

    found = wait.until(f"{count} messages for {account.address}", arrived)
    assert len(found) == count
    return found


@pytest.mark.parametrize("client", SUBMITTERS)
def test_submitted_mail_arrives_unchanged(
    client: str, at: Endpoint, account: Account, tmp_path: Path
) -> None:
    message = mail.compose(account.address, account.address, subject=client)
    SUBMITTERS[client](at, account, message, account.address, tmp_path)
    (got,) = wait_for(at, account, 1, tmp_path)
    assert mail.body_of(got) == message.body
    for name in ("From", "To", "Subject", "Date", "Message-ID"):
        assert mail.header(got, name) == mail.header(message.raw, name)


def test_every_client_fetches_the_same_bytes(
    at: Endpoint, account: Account, tmp_path: Path
) -> None:
    sent = [mail.compose(account.address, account.address, size=20_000 * n) for n in range(3)]
    for message in sent:
        SUBMITTERS["smtplib-starttls"](at, account, message, account.address, tmp_path)
    wait_for(at, account, 3, tmp_path)
    for name, fetch in FETCHERS.items():
        scratch = tmp_path / name
        scratch.mkdir()
        bodies = sorted(mail.body_of(got) for got in fetch(at, account, scratch))
        assert bodies == sorted(message.body for message in sent), name


def test_mail_from_outside_arrives_through_the_mx(
    at: Endpoint, account: Account, tmp_path: Path
) -> None:
    message = mail.compose("someone@outside.example", account.address)
    with smtplib.SMTP(at.host, at.ports["mx"], timeout=30) as client:
        client.ehlo("outside.example")
        assert client.has_extn("starttls")
        client.starttls(context=trusting_context())
        client.sendmail(
            "someone@outside.example", [account.address], message.raw, ["BODY=8BITMIME"]
        )
    (got,) = wait_for(at, account, 1, tmp_path)
    assert mail.body_of(got) == message.body
    assert mail.header(got, "Return-Path") == [b"<someone@outside.example>"]
    assert mail.header(got, "Delivered-To")[0].endswith(account.address.encode())
    received = b"\n".join(mail.header(got, "Received"))
    assert b"(ucspitls acceptutils fixsmtpio TLSv1.3 " in received


def test_mail_from_outside_arrives_without_tls_too(
    at: Endpoint, account: Account, tmp_path: Path
) -> None:
    message = mail.compose("someone@outside.example", account.address)
    with smtplib.SMTP(at.host, at.ports["mx"], timeout=30) as client:
        client.sendmail(
            "someone@outside.example", [account.address], message.raw, ["BODY=8BITMIME"]
        )
    (got,) = wait_for(at, account, 1, tmp_path)
    assert mail.body_of(got) == message.body
    assert b"ucspitls" not in b"\n".join(mail.header(got, "Received"))


def test_tls_and_login_are_on_record_in_the_submitted_mail(
    at: Endpoint, account: Account, tmp_path: Path
) -> None:
    message = mail.compose(account.address, account.address)
    SUBMITTERS["smtplib-starttls"](at, account, message, account.address, tmp_path)
    (got,) = wait_for(at, account, 1, tmp_path)
    wanted = b"(ucspitls acceptutils authup " + account.address.encode() + b" TLSv1.3 "
    assert any(line.startswith(wanted) for line in mail.header(got, "Received"))


def test_one_message_for_many_reaches_each(
    appliance: Appliance, at: Endpoint, account: Account, tmp_path: Path
) -> None:
    others = [appliance.add_account() for _ in range(3)]
    message = mail.compose(account.address, "undisclosed@example.test")
    with smtplib.SMTP(at.host, at.ports["submission"], timeout=30) as client:
        client.starttls(context=trusting_context())
        client.login(*account)
        client.sendmail(account.address, [other.address for other in others], message.raw)
    for other in others:
        (got,) = wait_for(at, other, 1, tmp_path)
        assert mail.body_of(got) == message.body


def test_mail_for_an_alias_reaches_its_account(
    appliance: Appliance, at: Endpoint, account: Account, tmp_path: Path
) -> None:
    alias = f"alias.{account.address}"
    status, printed = appliance.postern("alias", "add", alias, account.address)
    assert status == 0, printed
    message = mail.compose("someone@outside.example", alias)
    with smtplib.SMTP(at.host, at.ports["mx"], timeout=30) as client:
        client.sendmail("someone@outside.example", [alias], message.raw, ["BODY=8BITMIME"])
    (got,) = wait_for(at, account, 1, tmp_path)
    assert mail.body_of(got) == message.body


def test_a_message_of_ten_megabytes_arrives_unchanged(
    at: Endpoint, account: Account, tmp_path: Path
) -> None:
    message = mail.compose(account.address, account.address, size=10 << 20)
    SUBMITTERS["smtplib-implicit"](at, account, message, account.address, tmp_path)
    (got,) = wait_for(at, account, 1, tmp_path)
    assert mail.body_of(got) == message.body


def test_deleting_acts_at_quit_only(at: Endpoint, account: Account, tmp_path: Path) -> None:
    import poplib

    message = mail.compose(account.address, account.address)
    SUBMITTERS["smtplib-starttls"](at, account, message, account.address, tmp_path)
    wait_for(at, account, 1, tmp_path)

    def login() -> poplib.POP3:
        client = poplib.POP3_SSL(at.host, at.ports["pop3s"], timeout=30, context=trusting_context())
        client.user(account.address)
        client.pass_(account.password)
        return client

    dropped = login()
    dropped.dele(1)
    dropped.close()
    kept = login()
    assert kept.stat()[0] == 1
    kept.dele(1)
    kept.quit()
    assert login().stat()[0] == 0
