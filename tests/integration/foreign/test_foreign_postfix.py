"""Postfix's own SMTP server, and clients of IPv6, under Debian's tcpserver."""

from pathlib import Path

import pytest
from harness import mail, wait
from harness.clients import SUBMITTERS
from harness.foreign import ALICE, Foreign, logged_in

DROP = "/var/spool/postfix/maildrop"
# smtplib says BODY= though authup has not offered that; see test_foreign_chains.
OBEDIENT = [name for name in SUBMITTERS if "starttls" in name and not name.startswith("smtplib")]
PROXIED = ["postfix-shipped", "postfix-october-2018"]

# In the container: a client of IPv6, which the host may have none of.
ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30) as server:
    lines = server.makefile("rb")
    print(lines.readline())
    for line in sys.argv[3:]:
        server.sendall(line.encode() + b"\\r\\n")
        print(lines.readline())
"""


def dropped(postfix: Foreign, token: str) -> bytes:
    """Return the body of the message with that token that postfix has taken."""
    names = postfix.appliance.run(["ls", DROP], user="postfix")[1].split()
    for name in names:
        path = f"{DROP}/{name}"
        shown = postfix.appliance.container.exec_run(["postcat", path], user="poster").output
        assert isinstance(shown, bytes)
        if token.encode() in shown:
            contents = shown.partition(b"*** MESSAGE CONTENTS ")[2].partition(b"***\n")[2]
            text = contents.partition(b"*** HEADER EXTRACTED ")[0]
            return text.partition(b"\n\n")[2].replace(b"\n", b"\r\n")
    raise AssertionError(f"no {token} in {names}")


@pytest.mark.parametrize("service", PROXIED)
@pytest.mark.parametrize("submit", OBEDIENT)
def test_clients_submit_to_postfix(
    submit: str, service: str, postfix: Foreign, tmp_path: Path
) -> None:
    message = mail.compose(ALICE.address, "bob@example.test", size=20_000)
    SUBMITTERS[submit](postfix.at(service), ALICE, message, "bob@example.test", tmp_path)
    assert dropped(postfix, message.token) == message.body


@pytest.mark.parametrize("service", PROXIED)
def test_what_postfix_offers_that_a_proxy_cannot_keep(service: str, postfix: Foreign) -> None:
    with logged_in(postfix, service) as dialogue:
        lines = dialogue.say(b"EHLO client.example")
        assert lines[0] == b"250-mail.example.test"
        assert b"250-8BITMIME" in lines
        for missing in (b"STARTTLS", b"CHUNKING", b"AUTH", b"postfix"):
            assert not any(missing in line for line in lines), lines
        octets = b"RSET\r\nQUIT\r\n"  # and no commands
        dialogue.send(b"BDAT %d LAST\r\n" % len(octets) + octets)
        assert dialogue.reply() == [b"502 unimplemented (#5.5.1)"]
        assert dialogue.code(b"STARTTLS") == b"502"
        assert dialogue.code(b"QUIT") == b"221"
        assert dialogue.rest() == b""


def test_no_rules_leave_postfix_as_it_is(postfix: Foreign) -> None:
    with postfix.dialogue("postfix-empty") as dialogue:
        dialogue.say(b"EHLO client.example")
        dialogue.start_tls()
        dialogue.say(b"EHLO client.example")
        assert dialogue.code(b"AUTH LOGIN") == b"334"
        dialogue.say(b"YWxpY2VAZXhhbXBsZS50ZXN0")
        banner = dialogue.say(b"Y29ycmVjdCBob3JzZQ==")
        # Nobody makes a 235 of it.
        assert banner == [b"220 postfix.example ESMTP Postfix (Debian)"]
        lines = dialogue.say(b"EHLO client.example")
        assert lines[0] == b"250-postfix.example"
        assert not any(b"CHUNKING" in line for line in lines)
        assert dialogue.code(b"MAIL FROM:<alice@example.test>") == b"250"
        assert dialogue.code(b"RCPT TO:<bob@example.test>") == b"250"
        assert dialogue.code(b"DATA") == b"354"
        assert dialogue.code(b"Subject: x\r\n\r\nx\r\n.") == b"250"
        # Postfix takes a bare LF for a line end: behind the proxy it never sees one.
        dialogue.code(b"MAIL FROM:<alice@example.test>")
        dialogue.code(b"RCPT TO:<bob@example.test>")
        assert dialogue.code(b"DATA") == b"354"
        dialogue.send(b"Subject: x\r\n\r\nx\n.\nMAIL FROM:<smuggled@example.test>\r\n.\r\n")
        assert dialogue.rest() == b"451 See http://pobox.com/~djb/docs/smtplf.html.\r\n"


def test_hostile_rules_make_no_malformed_reply_of_postfixs(postfix: Foreign) -> None:
    with logged_in(postfix, "postfix-hostile") as dialogue:
        lines = dialogue.say(b"EHLO client.example")
        assert [line[3:4] for line in lines] == [b"-"] * (len(lines) - 1) + [b" "]
        assert all(line[:3].isdigit() for line in lines), lines
        assert dialogue.code(b"MAIL FROM:<alice@example.test>") == b"250"
        # DATA that the server took for a NOOP: what follows are commands.
        assert dialogue.code(b"DATA") == b"250"
        assert dialogue.code(b"NOOP") == b"250"
        assert dialogue.say(b"VRFY postmaster") == [b"252 and out"]
        assert dialogue.rest() == b""


def test_no_banner_of_a_second_postfix_inside_tls(postfix: Foreign) -> None:
    with postfix.dialogue("postfix-mx") as dialogue:
        assert b"250-STARTTLS" in dialogue.say(b"EHLO client.example")
        dialogue.send(b"STARTTLS\r\nNOOP\r\n")
        assert dialogue.reply()[0][:3] == b"220"
        dialogue.start_tls_now()
        assert dialogue.silent()
        assert dialogue.say(b"EHLO client.example")[0] == b"250-mail.example.test"
        assert dialogue.code(b"QUIT") == b"221"
        assert dialogue.rest() == b""


def test_two_messages_in_one_segment_stay_two(postfix: Foreign) -> None:
    with postfix.dialogue("postfix-mx") as dialogue:
        dialogue.say(b"EHLO client.example")
        one = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\n"
        dialogue.send(one)
        assert [line[:3] for line in dialogue.lines(3)] == [b"250", b"250", b"354"]
        dialogue.send(b"Subject: 1\r\n\r\n..\r\n.\r\n" + one)
        assert [line[:3] for line in dialogue.lines(4)] == [b"250", b"250", b"250", b"354"]
        dialogue.send(b".\r\nQUIT\r\n")
        assert [line[:3] for line in dialogue.lines(2)] == [b"250", b"221"]


@pytest.mark.parametrize("address", ["::1", "127.0.0.1"])
def test_a_client_of_either_family_is_served_and_logged(address: str, postfix: Foreign) -> None:
    running = postfix.appliance
    before = running.logs().count(f" ip={address}")
    asked = ["python3", "-c", ASK, address, "2004", "NOOP", "STARTTLS"]
    status, printed = running.run(asked)
    assert status == 0, printed
    assert printed.splitlines() == [
        r"b'220 mail.example.test ESMTP\r\n'",
        r"b'250 ok\r\n'",
        r"b'220 Ready to start TLS (#5.7.0)\r\n'",
    ]
    # The handshake that does not come is logged by ucspitlsd or fixsmtpio.
    wait.until("a log line", lambda: running.logs().count(f" ip={address}") > before)


def test_an_ipv6_client_is_kept_out_like_any(postfix: Foreign) -> None:
    asked = ["env", "RBLSMTPD=-no", "rblsmtpd", "false"]
    assert postfix.appliance.run(asked)[0] == 0
    # Both programs of that name are there, and the bare name means ours.
    for name, ours in (("rblsmtpd", True), ("rblsmtpd.ucspi-tcp", False)):
        printed = postfix.appliance.run([name, "-x", "true"])[1]
        assert ("[-n network,...]" in printed) is ours
