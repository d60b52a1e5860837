"""Submitted mail is signed, and what strangers bring is judged by what their DNS says."""

import base64
import smtplib
import socket
from collections.abc import Iterator
from pathlib import Path

import dkim
import pytest
from harness import mail, wait
from harness.another import another
from harness.appliance import Appliance
from harness.clients import SUBMITTERS, Account, Endpoint
from harness.nameserver import nameserver

AUTHORISED = "192.0.2.1"
STRANGER = "198.51.100.1"
HOST = "mx.receiver.test"
SIGNED = "DKIM-Signature"
RESULTS = "Authentication-Results"


@pytest.fixture(scope="module")
def record(appliance: Appliance) -> tuple[str, str]:
    """Name and text of the sender's DKIM record, as `postern dns` prints it."""
    status, printed = appliance.postern("dns", appliance.domain)
    assert status == 0, printed
    (line,) = [line for line in printed.splitlines() if "_domainkey" in line]
    name, _, text = line.partition(".\tIN TXT ")
    return name, text


@pytest.fixture(scope="module")
def dns_address(appliance: Appliance, record: tuple[str, str]) -> Iterator[str]:
    """The address of a DNS server that knows what the sender publishes."""
    records = [
        f'{appliance.domain}=TXT="v=spf1 ip4:{AUTHORISED} -all"',
        f'_dmarc.{appliance.domain}=TXT="v=DMARC1; p=reject"',
        f"{record[0]}=TXT={record[1]}",
    ]
    with nameserver(appliance, records) as address:
        yield address


class Receiver(Appliance):
    """An appliance of another domain."""

    @property
    def domain(self) -> str:
        return "receiver.test"


@pytest.fixture(scope="module")
def receiver(appliance: Appliance, dns_address: str) -> Iterator[Receiver]:
    """Another domain's appliance, which enforces DMARC; a proxy tells it who the client is."""
    with another(
        appliance,
        dns=[dns_address],
        POSTERN_HOSTNAME=HOST,
        POSTERN_DOMAINS="receiver.test",
        POSTERN_MAIL_AUTHENTICATION="enforce",
        POSTERN_PROXY_NETWORKS="10.0.0.0/8,172.16.0.0/12,192.168.0.0/16",
    ) as running:
        yield Receiver(running.container)


@pytest.fixture(scope="module")
def recipient(receiver: Receiver) -> Account:
    """Somebody there."""
    return receiver.add_account()


class Proxied(smtplib.SMTP):
    """A client that a proxy speaks for."""

    def __init__(self, at: Endpoint, address: str) -> None:
        self._address = address
        super().__init__(at.host, at.ports["mx"], "client.example", timeout=60)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connection = socket.create_connection((host, port), timeout)
        connection.sendall(f"PROXY TCP4 {self._address} 203.0.113.1 1 25\r\n".encode())
        return connection


def bring(
    receiver: Receiver,
    recipient: Account,
    raw: bytes,
    sender: str,
    address: str = STRANGER,
) -> bytes:
    """Bring a message from an address; return it as it arrived."""
    with Proxied(receiver.endpoint, address) as client:
        client.sendmail(sender, [recipient.address], raw)
    return fetched(receiver, recipient)


def fetched(receiver: Appliance, account: Account) -> bytes:
    """Return the only message of an account, and remove it."""
    home = "/home/{1}/{0}".format(*account.address.split("@"))
    uid = receiver.run(["stat", "-c", "%u", home])[1].strip()
    look = f"cd {home}/Maildir/new && ls | grep -q . && base64 * && rm *"

    def found() -> str | None:
        status, printed = receiver.run(["sh", "-c", look], user=f"{uid}:{uid}")
        return None if status else printed

    return base64.b64decode(wait.until("the message", found)).replace(b"\n", b"\r\n")


def outcome(got: bytes) -> list[str]:
    """Return the results in a message's only field of ours."""
    ours = [value for value in mail.header(got, RESULTS) if value.startswith(HOST.encode())]
    assert len(ours) == 1, ours
    return [" ".join(part.split()) for part in ours[0].decode().split(";")[1:]]


@pytest.fixture(scope="module")
def sender(appliance: Appliance) -> Account:
    """Somebody who submits mail."""
    return appliance.add_account()


@pytest.fixture(scope="module")
def signed(appliance: Appliance, sender: Account) -> bytes:
    """A message that the sender has submitted, as it leaves."""
    other = appliance.add_account()
    message = mail.compose(sender.address, other.address)
    SUBMITTERS["smtplib-starttls"](appliance.endpoint, sender, message, other.address, Path())
    return fetched(appliance, other)


def test_submitted_mail_is_signed_with_the_key_that_is_published(
    signed: bytes, record: tuple[str, str]
) -> None:
    assert len(mail.header(signed, SIGNED)) == 1
    text = record[1].replace('" "', "").strip('"').encode()

    def look_up(name: bytes, timeout: float = 5) -> bytes | None:
        return text if name.decode() == record[0] + "." else None

    assert dkim.verify(signed, dnsfunc=look_up)
    assert not dkim.verify(signed.replace(b"last line", b"lost line"), dnsfunc=look_up)


def test_signed_mail_passes_wherever_it_comes_from(
    signed: bytes, sender: Account, receiver: Receiver, recipient: Account
) -> None:
    got = bring(receiver, recipient, signed, sender.address)
    spf, dkim_result, dmarc = outcome(got)
    assert spf == f"spf=fail smtp.mailfrom={sender.address}"
    assert dkim_result.startswith("dkim=pass header.d=example.test ")
    assert dmarc == "dmarc=pass (p=reject) header.from=example.test"
    # Our word is on top of the message, beside the line of the TLS filter.
    assert got.index(b"Authentication-Results: mx.receiver.test") < got.index(b"Received: from")


def test_mail_from_the_right_address_passes_unsigned(
    receiver: Receiver, recipient: Account
) -> None:
    raw = mail.compose("someone@example.test", recipient.address).raw
    got = bring(receiver, recipient, raw, "someone@example.test", AUTHORISED)
    assert outcome(got) == [
        "spf=pass smtp.mailfrom=someone@example.test",
        "dkim=none",
        "dmarc=pass (p=reject) header.from=example.test",
    ]


@pytest.mark.parametrize("change", [(b"last line", b"lost line"), (b"Subject: a", b"Subject: A")])
def test_what_was_changed_on_the_way_is_refused_where_its_domain_asks_for_that(
    signed: bytes,
    sender: Account,
    receiver: Receiver,
    recipient: Account,
    change: tuple[bytes, bytes],
) -> None:
    assert change[0] in signed
    with pytest.raises(smtplib.SMTPDataError) as refused:
        bring(receiver, recipient, signed.replace(*change), sender.address)
    assert refused.value.smtp_code == 554
    assert b"example.test" in refused.value.smtp_error
    assert b"#5.7.1" in refused.value.smtp_error


def test_a_second_from_does_not_get_round_it(receiver: Receiver, recipient: Account) -> None:
    raw = b"From: a@other.example\r\n" + mail.compose("b@example.test", recipient.address).raw
    with pytest.raises(smtplib.SMTPDataError):
        bring(receiver, recipient, raw, "a@other.example")


def test_results_that_claim_to_be_ours_are_removed(receiver: Receiver, recipient: Account) -> None:
    forged = b"authentication-results: MX.receiver.test;\r\n dmarc=pass header.from=bank.example"
    others = b"Authentication-Results: other.example; dkim=pass"
    message = mail.compose("a@other.example", recipient.address)
    raw = forged + b"\r\n" + others + b"\r\n" + message.raw
    got = bring(receiver, recipient, raw, "a@other.example")
    assert outcome(got) == [
        "spf=none smtp.mailfrom=a@other.example",
        "dkim=none",
        "dmarc=none header.from=other.example",
    ]
    assert others in got
    assert b"bank.example" not in got
    assert mail.body_of(got) == message.body


def test_while_the_verifier_is_away_nothing_gets_in_unseen(
    receiver: Receiver, recipient: Account
) -> None:
    raw = mail.compose("a@other.example", recipient.address).raw
    service = "/run/postern/service/mailauthd"
    try:
        assert receiver.run(["s6-svc", "-wd", "-d", service])[0] == 0
        with pytest.raises(smtplib.SMTPDataError) as refused:
            bring(receiver, recipient, raw, "a@other.example")
        assert refused.value.smtp_code == 451
    finally:
        assert receiver.run(["s6-svc", "-wU", "-u", service])[0] == 0
    assert len(outcome(bring(receiver, recipient, raw, "a@other.example"))) == 3


def test_a_key_is_changed_while_mail_is_signed(
    appliance: Appliance, at: Endpoint, account: Account, tmp_path: Path
) -> None:
    domain = appliance.domain
    listed = appliance.postern("dkim", "list", domain)[1].split("\n")
    (old,) = [line.split("\t")[1] for line in listed if line.endswith("in use")]
    words = ("--algorithm", "ed25519", "--selector", "next")
    status, printed = appliance.postern("dkim", "new", domain, *words)
    assert status == 0, printed
    assert printed.startswith(f'next._domainkey.{domain}.\tIN TXT "v=DKIM1; k=ed25519; p=')
    try:
        assert appliance.postern("dkim", "use", domain, old, "next")[0] == 0
        assert appliance.postern("dkim", "del", domain, "next")[0] == 1
        message = mail.compose(account.address, account.address)
        SUBMITTERS["smtplib-starttls"](at, account, message, account.address, tmp_path)
        signatures = b"\n".join(mail.header(fetched(appliance, account), SIGNED))
        assert b"s=next;" in signatures
        assert f"s={old};".encode() in signatures
    finally:
        appliance.postern("dkim", "use", domain, old)
        assert appliance.postern("dkim", "del", domain, "next")[0] == 0


def test_a_new_domain_gets_a_key(receiver: Receiver) -> None:
    assert "made a DKIM key" in receiver.postern("domain", "add", "new.test")[1]
    assert "_domainkey.new.test.\tIN TXT" in receiver.postern("dns", "new.test")[1]


@pytest.mark.parametrize("user", ["mailauth", "qmaild", "authup", "checkpw", "20000:20000"])
def test_the_signing_keys_are_closed_to_everybody_but_their_daemon(
    appliance: Appliance, user: str
) -> None:
    look = ["sh", "-c", "cat /data/dkim/*/*.pem"]
    assert appliance.run(look, user="dkim")[0] == 0
    assert appliance.run(look, user=user)[0] != 0


@pytest.mark.parametrize(("service", "uid"), [("dkimsignd", 7803), ("mailauthd", 7804)])
def test_each_daemon_has_a_user_of_its_own_and_no_rights(
    appliance: Appliance, service: str, uid: int
) -> None:
    (daemon,) = appliance.processes_of(service)
    status = dict(
        line.split(":\t", 1) for line in (daemon.folder / "status").read_text().splitlines()
    )
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(uid)}
    assert status["Groups"].split() == [str(uid)]
    assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == 0
