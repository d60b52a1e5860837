"""The MX's door: lists in the DNS, and a greeting that clients have to wait for."""

import re
import time
from collections.abc import Iterator

import pytest
from harness.another import another
from harness.appliance import Appliance
from harness.dialogue import Dialogue
from harness.nameserver import nameserver

DELAY = 2
GOOD = "198.51.100.1"
LISTED = "192.0.2.1"
LISTED_6 = "2001:db8::66"
EXCUSED = "192.0.2.2"  # listed, and in the list of good senders
MINOR = "192.0.2.3"  # listed with a code that does not count
UNASKED = "192.0.2.4"  # the list says that it does not serve this resolver
TRUSTED = "192.0.2.9"  # listed, but never looked up
NIBBLES = ".".join(reversed("20010db8000000000000000000000066"))
RECORDS = [
    "1.2.0.192.bl.test=A=127.0.0.2",
    '1.2.0.192.bl.test=TXT="see http://bl.test/?ip=%IP%"',
    f"{NIBBLES}.bl.test=A=127.0.0.4",
    "2.2.0.192.bl.test=A=127.0.0.2",
    "2.2.0.192.good.test=A=127.0.3.0",
    "3.2.0.192.bl.test=A=127.0.0.10",
    "4.2.0.192.bl.test=A=127.255.255.254",
    '4.2.0.192.bl.test=TXT="Error: open resolver"',
    "9.2.0.192.bl.test=A=127.0.0.2",
]


@pytest.fixture(scope="module")
def dns_address(appliance: Appliance) -> Iterator[str]:
    """The address of a DNS server that has lists."""
    with nameserver(appliance, RECORDS) as address:
        yield address


@pytest.fixture(scope="module")
def guarded(appliance: Appliance, dns_address: str) -> Iterator[Appliance]:
    """An appliance with a door, to which a proxy can say who the client is."""
    with another(
        appliance,
        dns=[dns_address],
        POSTERN_PROXY_NETWORKS="10.0.0.0/8,172.16.0.0/12,192.168.0.0/16",
        POSTERN_DNSBL="bl.test=127.0.0.[2..4]",
        POSTERN_DNSBL_ALLOW=f"good.test,{TRUSTED}",
        POSTERN_GREET_DELAY=str(DELAY),
    ) as running:
        yield running


def connect(guarded: Appliance, address: str) -> Dialogue:
    """Connect to the MX as a client with that address."""
    family, local = ("TCP6", "2001:db8::25") if ":" in address else ("TCP4", "198.51.100.25")
    dialogue = Dialogue(guarded.endpoint, "mx", greet=False)
    dialogue.send(f"PROXY {family} {address} {local} 40000 25\r\n".encode())
    return dialogue


def recipient(dialogue: Dialogue) -> list[bytes]:
    """Go on to a recipient and return the reply."""
    dialogue.greeting = dialogue.reply()
    dialogue.say(b"EHLO client.example")
    assert dialogue.code(b"MAIL FROM:<someone@outside.example>") == b"250"
    return dialogue.say(b"RCPT TO:<postmaster@example.test>")


@pytest.mark.parametrize("address", [GOOD, EXCUSED, MINOR, UNASKED, TRUSTED, "2001:db8::1"])
def test_who_is_not_kept_out_can_send_mail(address: str, guarded: Appliance) -> None:
    with connect(guarded, address) as dialogue:
        assert recipient(dialogue)[0][:3] == b"250"
        assert dialogue.greeting == [b"220 other.example.test ESMTP"]


def test_who_is_listed_hears_why_and_is_logged(guarded: Appliance) -> None:
    why = f"553 see http://bl.test/?ip={LISTED}"
    with connect(guarded, LISTED) as dialogue:
        assert recipient(dialogue) == [why.encode()]
        assert dialogue.code(b"DATA") == b"553"
        assert dialogue.code(b"QUIT") == b"221"
        assert dialogue.rest() == b""
    line = rf"rblsmtpd: {LISTED} pid \d+: {re.escape(why)} ip={LISTED} session=\S+\n"
    assert re.search(line, guarded.logs())


def test_an_ipv6_client_is_listed_too(guarded: Appliance) -> None:
    with connect(guarded, LISTED_6) as dialogue:
        assert recipient(dialogue) == [b"553 2001:db8::66 is listed in bl.test"]


def test_a_list_that_cannot_be_asked_is_logged(guarded: Appliance) -> None:
    with connect(guarded, UNASKED) as dialogue:
        assert dialogue.reply()[0][:3] == b"220"
    assert "unable to ask bl.test: answers 127.255.255.254" in guarded.logs()


def test_the_greeting_waits(guarded: Appliance) -> None:
    began = time.monotonic()
    with connect(guarded, GOOD) as dialogue:
        assert dialogue.reply()[0][:3] == b"220"
    assert time.monotonic() - began >= DELAY


def test_who_speaks_first_is_refused(guarded: Appliance) -> None:
    with connect(guarded, GOOD) as dialogue:
        dialogue.send(b"EHLO spam.example\r\nMAIL FROM:<>\r\n")
        assert dialogue.rest() == b"554 smtp protocol violation (#5.5.1)\r\n"
    assert re.search(rf"greetdelay \d+ client spoke first, .* ip={GOOD} session=", guarded.logs())


def test_who_is_trusted_may_speak_at_once(guarded: Appliance) -> None:
    with connect(guarded, TRUSTED) as dialogue:
        dialogue.send(b"NOOP\r\n")
        assert (dialogue.reply()[0][:3], dialogue.reply()[0][:3]) == (b"220", b"250")


def test_the_health_check_does_not_wait(guarded: Appliance) -> None:
    began = time.monotonic()
    assert guarded.run(["postern", "health", "--service", "mx"]) == (0, "")
    assert time.monotonic() - began < DELAY
    assert "127.0.0.1 pid" not in guarded.logs()


def test_the_other_services_have_no_such_door(guarded: Appliance) -> None:
    dialogue = Dialogue(guarded.endpoint, "submission", greet=False)
    with dialogue:
        dialogue.send(f"PROXY TCP4 {LISTED} 198.51.100.25 40000 25\r\nNOOP\r\n".encode())
        assert dialogue.reply()[0][:3] == b"220"
