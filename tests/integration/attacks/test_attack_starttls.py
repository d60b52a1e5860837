"""STARTTLS and STLS: nothing from before TLS may have an effect inside it (CVE-2011-0411)."""

import base64
import socket
import time

import pytest
from harness.clients import Account, Endpoint
from harness.dialogue import Dialogue

STARTTLS = {"mx": b"STARTTLS\r\n", "submission": b"STARTTLS\r\n", "pop3": b"STLS\r\n"}
SERVICES = tuple(STARTTLS)
# What an attacker in the middle would have the server believe the client said inside TLS.
INJECTED = {
    "mx": b"NOOP\r\nMAIL FROM:<evil@outside.example>\r\n",
    "submission": b"NOOP\r\nAUTH PLAIN AGV2aWwAZXZpbA==\r\n",
    "pop3": b"NOOP\r\nUSER evil\r\n",
}
READY = {"mx": b"220", "submission": b"220", "pop3": b"+OK"}


def ready(dialogue: Dialogue, service: str) -> None:
    """Say EHLO where the protocol has one."""
    if service != "pop3":
        dialogue.say(b"EHLO client.example")


def assert_fresh(dialogue: Dialogue, service: str) -> None:
    """Check that TLS begins silent, and that the first command gets exactly its one reply."""
    assert dialogue.silent()
    if service == "pop3":
        assert dialogue.say(b"NOOP")[0].startswith((b"+OK", b"-ERR"))
    else:
        lines = dialogue.say(b"EHLO client.example")
        assert lines[0] == b"250-mail.example.test"
        assert not [line for line in lines if b"STARTTLS" in line]
    assert dialogue.silent()


@pytest.mark.parametrize("service", SERVICES)
def test_commands_in_the_segment_of_starttls_are_forgotten(service: str, at: Endpoint) -> None:
    with Dialogue(at, service) as dialogue:
        ready(dialogue, service)
        dialogue.send(STARTTLS[service] + INJECTED[service])
        assert dialogue.reply()[-1].startswith(READY[service])
        dialogue.start_tls_now()
        assert_fresh(dialogue, service)


@pytest.mark.parametrize("service", SERVICES)
def test_half_a_command_in_the_segment_of_starttls_is_forgotten(service: str, at: Endpoint) -> None:
    with Dialogue(at, service) as dialogue:
        ready(dialogue, service)
        dialogue.send(STARTTLS[service] + INJECTED[service][:-5])
        assert dialogue.reply()[-1].startswith(READY[service])
        dialogue.start_tls_now()
        assert_fresh(dialogue, service)


@pytest.mark.parametrize("service", SERVICES)
def test_plaintext_in_a_second_segment_ends_the_connection(service: str, at: Endpoint) -> None:
    with Dialogue(at, service) as dialogue:
        ready(dialogue, service)
        dialogue.send(STARTTLS[service])
        assert dialogue.reply()[-1].startswith(READY[service])
        dialogue.send(INJECTED[service])
        # At most a TLS alert, or what the protocol says of a failed start; no command ran.
        answer = dialogue.rest()
        assert b"250" not in answer
        assert b"334" not in answer
        assert b"+OK" not in answer


@pytest.mark.parametrize("service", SERVICES)
def test_starttls_split_inside_the_line_still_works(service: str, at: Endpoint) -> None:
    with Dialogue(at, service) as dialogue:
        ready(dialogue, service)
        for byte in STARTTLS[service]:
            dialogue.send(bytes([byte]))
            time.sleep(0.01)
        assert dialogue.reply()[-1].startswith(READY[service])
        dialogue.start_tls_now()
        assert_fresh(dialogue, service)


@pytest.mark.parametrize("service", SERVICES)
def test_commands_before_starttls_in_the_same_segment_are_answered_before_it(
    service: str, at: Endpoint
) -> None:
    with Dialogue(at, service) as dialogue:
        ready(dialogue, service)
        dialogue.send(b"NOOP\r\n" + STARTTLS[service])
        dialogue.reply()
        assert dialogue.reply()[-1].startswith(READY[service])
        dialogue.start_tls_now()
        assert_fresh(dialogue, service)


@pytest.mark.parametrize("service", SERVICES)
def test_starttls_inside_tls_is_refused_and_harmless(service: str, at: Endpoint) -> None:
    with Dialogue(at, service) as dialogue:
        ready(dialogue, service)
        dialogue.start_tls()
        ready(dialogue, service)
        reply = dialogue.say(STARTTLS[service].strip())
        assert reply[-1].startswith((b"502 ", b"-ERR "))
        assert dialogue.say(b"NOOP")[0][:3] in (b"250", b"+OK")


@pytest.mark.parametrize("service", ["submissions", "pop3s"])
def test_starttls_on_an_implicit_port_is_refused(service: str, at: Endpoint) -> None:
    with Dialogue(at, service) as dialogue:
        verb = b"STLS" if service == "pop3s" else b"STARTTLS"
        assert dialogue.say(verb)[-1].startswith((b"502 ", b"-ERR "))


def test_starttls_inside_a_transaction_forgets_the_transaction(at: Endpoint) -> None:
    with Dialogue(at, "mx") as dialogue:
        dialogue.say(b"EHLO client.example")
        assert dialogue.code(b"MAIL FROM:<evil@outside.example>") == b"250"
        dialogue.start_tls()
        dialogue.say(b"EHLO client.example")
        assert dialogue.code(b"RCPT TO:<postmaster@example.test>") == b"503"


def test_a_user_given_before_stls_is_forgotten(at: Endpoint, account: Account) -> None:
    with Dialogue(at, "pop3") as dialogue:
        dialogue.say(b"USER " + account.address.encode())
        dialogue.start_tls()
        reply = dialogue.say(b"PASS " + account.password.encode())
        assert reply == [b"-ERR authup USER first"]


@pytest.mark.parametrize("service", ["submissions", "pop3s"])
@pytest.mark.parametrize("spoken", [b"EHLO a\r\n", b"USER a\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_plaintext_on_an_implicit_port_is_no_protocol(
    service: str, spoken: bytes, at: Endpoint
) -> None:
    with Dialogue(at, service, greet=False, tls=False) as dialogue:
        dialogue.send(spoken)
        answer = dialogue.rest()
        # A TLS alert record at most.
        assert answer == b"" or answer[0] == 0x15


@pytest.mark.parametrize("service", SERVICES)
def test_tls_on_a_plaintext_port_gets_no_handshake(service: str, at: Endpoint) -> None:
    hello = bytes.fromhex("16030100f8010000f40303") + bytes(range(200))
    with Dialogue(at, service, tls=False) as dialogue:
        dialogue.send(hello + b"\r\n")
        dialogue.socket.shutdown(socket.SHUT_WR)
        assert not dialogue.rest().startswith(b"\x16\x03")


@pytest.mark.parametrize("service", SERVICES)
def test_an_http_request_runs_nothing(service: str, at: Endpoint) -> None:
    with Dialogue(at, service) as dialogue:
        dialogue.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n")
        dialogue.send(b"MAIL FROM:<a@b.example>\r\nUSER a\r\n")
        dialogue.socket.shutdown(socket.SHUT_WR)
        answer = dialogue.rest()
        assert answer
        for line in answer.splitlines():
            assert line[:3] not in (b"334", b"354", b"235"), answer


@pytest.mark.parametrize("service", SERVICES)
def test_starttls_twice_in_one_segment_is_one(service: str, at: Endpoint) -> None:
    with Dialogue(at, service) as dialogue:
        ready(dialogue, service)
        dialogue.send(STARTTLS[service] * 2)
        assert dialogue.reply()[-1].startswith(READY[service])
        assert dialogue.silent()
        dialogue.start_tls_now()
        assert_fresh(dialogue, service)


@pytest.mark.parametrize("argument", [b" x", b" \t", b" " + b"x" * 3000])
@pytest.mark.parametrize("service", SERVICES)
def test_starttls_with_an_argument_starts_it_or_does_nothing(
    service: str, argument: bytes, at: Endpoint
) -> None:
    with Dialogue(at, service) as dialogue:
        ready(dialogue, service)
        dialogue.send(STARTTLS[service].strip() + argument + b"\r\n" + INJECTED[service])
        if dialogue.reply()[-1].startswith(READY[service]):
            dialogue.start_tls_now()
            assert_fresh(dialogue, service)
        else:
            # The commands behind it are then commands, each with its reply.
            assert dialogue.reply()[-1][:3] in (b"250", b"+OK")
            assert dialogue.reply()
            assert dialogue.silent(0.2)


def test_auth_is_not_for_the_mx(at: Endpoint, account: Account) -> None:
    secret = base64.b64encode(f"\0{account.address}\0{account.password}".encode())
    with Dialogue(at, "mx") as dialogue:
        for inside in (False, True):
            if inside:
                dialogue.start_tls()
            assert not [line for line in dialogue.say(b"EHLO client.example") if b"AUTH" in line]
            assert dialogue.say(b"AUTH PLAIN " + secret) == [b"502 unimplemented (#5.5.1)"]
