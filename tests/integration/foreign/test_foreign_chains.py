"""authup and fixsmtpio between tcpserver and programs that are none of ours."""

import base64
import threading
from pathlib import Path

import pytest
from harness import mail, wait
from harness.clients import FETCHERS, SUBMITTERS, Account
from harness.dialogue import Dialogue
from harness.foreign import ALICE, Foreign

SUBMIT = [name for name in SUBMITTERS if "starttls" in name]
REFUSED = b"535 authup authorization failed (#5.7.0)"


def auth(name: str, password: str = ALICE.password) -> bytes:
    """Return an AUTH PLAIN line (RFC 4616)."""
    return b"AUTH PLAIN " + base64.b64encode(f"\0{name}\0{password}".encode())


def inside_tls(foreign: Foreign, service: str) -> Dialogue:
    """Connect, say EHLO, start TLS."""
    dialogue = foreign.dialogue(service)
    dialogue.say(b"EHLO client.example")
    dialogue.start_tls()
    return dialogue


def logged_in(foreign: Foreign, service: str) -> Dialogue:
    """Do all that, and AUTH, whose answer must be 235."""
    dialogue = inside_tls(foreign, service)
    dialogue.say(b"EHLO client.example")
    assert dialogue.say(auth(ALICE.address)) == [b"235 ok, go ahead (#2.0.0)"]
    return dialogue


def ended_with(foreign: Foreign, status: int, before: int) -> None:
    """Wait until tcpserver has logged one more connection that ended with status."""
    wait.until(f"an end with status {status}", lambda: ends(foreign, status) > before)


def ends(foreign: Foreign, status: int) -> int:
    """Return how many connections tcpserver saw end with status, which it logs as wait has it."""
    return sum(
        line.split()[:2] == ["tcpserver:", "end"] and line.split()[3:] == ["status", str(status)]
        for line in foreign.appliance.logs().splitlines()
    )


# A server and a checkpassword in the shell ---------------------------------------------------


@pytest.mark.parametrize("submit", SUBMIT)
def test_clients_submit_to_a_server_in_the_shell(
    submit: str, foreign: Foreign, tmp_path: Path
) -> None:
    message = mail.compose(ALICE.address, "bob@example.test", size=20_000)
    SUBMITTERS[submit](foreign.at("shell"), ALICE, message, "bob@example.test", tmp_path)


def test_the_session_is_the_users_and_knows_what_it_should(foreign: Foreign) -> None:
    with logged_in(foreign, "shell") as dialogue:
        assert dialogue.say(b"VRFY who") == [
            b"252 Debian-exim " + ALICE.address.encode() + b" TLSv1.3 unset"
        ]
        lines = dialogue.say(b"EHLO client.example")
        assert lines == [b"250-mail.example.test", b"250 8BITMIME"]
        assert dialogue.say(auth(ALICE.address)) == [b"502 unimplemented (#5.5.1)"]
        assert dialogue.say(b"QUIT") == [b"221 mail.example.test"]
        assert dialogue.rest() == b""


@pytest.mark.parametrize(
    ("name", "password"),
    [
        (ALICE.address, "wrong"),
        ("nobody@example.test", ALICE.password),
        ("root@example.test", ALICE.password),
        ("misused@example.test", ALICE.password),
        ("later@example.test", ALICE.password),
    ],
)
def test_what_ends_with_1_2_or_111_is_a_refusal(name: str, password: str, foreign: Foreign) -> None:
    with inside_tls(foreign, "shell") as dialogue:
        assert dialogue.say(auth(name, password)) == [REFUSED]
        assert dialogue.say(auth(ALICE.address)) == [b"235 ok, go ahead (#2.0.0)"]


def test_a_checkpassword_that_crashes_is_no_refusal(foreign: Foreign) -> None:
    with inside_tls(foreign, "shell") as dialogue:
        crashed = [b"454 authup aack, child crashed (#4.3.0)"]
        assert dialogue.say(auth("crash@example.test")) == crashed
        assert dialogue.rest() == b""


def test_a_server_that_crashes_is_no_refusal(foreign: Foreign) -> None:
    with logged_in(foreign, "shell") as dialogue:
        dialogue.send(b"VRFY crash\r\n")
        assert REFUSED not in dialogue.rest()


@pytest.mark.parametrize("status", [0, 1, 2, 7])
def test_the_servers_own_status_is_the_connections(status: int, foreign: Foreign) -> None:
    before = ends(foreign, status << 8)
    with logged_in(foreign, "shell") as dialogue:
        dialogue.send(b"VRFY exit %d\r\n" % status)
        assert REFUSED not in dialogue.rest()
        ended_with(foreign, status << 8, before)


def test_a_server_that_could_not_begin_is_no_refusal(foreign: Foreign) -> None:
    before = ends(foreign, 1 << 8)
    with logged_in(foreign, "shell") as dialogue:
        dialogue.send(b"VRFY exit 111\r\n")
        assert dialogue.rest() == b"454 authup aack, child crashed (#4.3.0)\r\n"
        ended_with(foreign, 1 << 8, before)


def test_a_client_that_hangs_up_after_auth_was_served(foreign: Foreign) -> None:
    before = ends(foreign, 0)
    logged_in(foreign, "shell").socket.close()
    ended_with(foreign, 0, before)


# A server that hangs --------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def hanging(foreign: Foreign) -> dict[str, bytes]:
    """What clients of the servers that hang are told, once it is; they wait from the first test.

    The servers have five seconds to time out by themselves, and the proxy's 30 more.
    """
    told: dict[str, bytes] = {}

    def listen(service: str) -> None:
        with inside_tls(foreign, service) as dialogue:
            dialogue.say(b"EHLO client.example")
            dialogue.send(auth(ALICE.address) + b"\r\n")
            if service == "hangs-later":
                assert dialogue.reply() == [b"235 ok, go ahead (#2.0.0)"]
                dialogue.send(b"NOOP\r\n")
            dialogue.socket.settimeout(90)
            told[service] = dialogue.rest()

    for service in ("hangs", "hangs-later"):
        threading.Thread(target=listen, args=(service,), daemon=True).start()
    return told


# STARTTLS by fixsmtpio, which starts the server anew ------------------------------------------


@pytest.mark.parametrize("service", ["shell-mx", "exim-mx-october-2018", "exim-mx-empty"])
def test_no_banner_of_the_second_server_inside_tls(service: str, foreign: Foreign) -> None:
    with foreign.dialogue(service) as dialogue:
        assert b"250-STARTTLS" in dialogue.say(b"EHLO client.example")
        dialogue.start_tls()
        assert dialogue.silent()
        assert dialogue.say(b"EHLO client.example")[0][:4] == b"250-"
        assert dialogue.code(b"STARTTLS") == b"502"
        assert dialogue.code(b"NOOP") == b"250"
        assert dialogue.code(b"QUIT") == b"221"
        assert dialogue.rest() == b""


@pytest.mark.parametrize("service", ["shell-mx", "exim-mx-october-2018", "exim-mx-empty", "shell"])
def test_plaintext_behind_starttls_is_dropped(service: str, foreign: Foreign) -> None:
    with foreign.dialogue(service) as dialogue:
        dialogue.say(b"EHLO client.example")
        dialogue.send(b"STARTTLS\r\nNOOP\r\n")
        assert dialogue.reply()[0][:3] == b"220"
        dialogue.start_tls_now()
        assert dialogue.silent()
        assert dialogue.say(b"EHLO client.example")[0][:4] == b"250-"


def test_the_second_server_knows_of_tls(foreign: Foreign) -> None:
    with inside_tls(foreign, "shell-mx") as dialogue:
        assert dialogue.say(b"VRFY who") == [b"252 qmaild nobody TLSv1.3 unset"]
    with foreign.dialogue("shell-mx") as dialogue:
        assert dialogue.say(b"VRFY who") == [b"252 qmaild nobody plain unset"]


# qmail-pop3d behind a checkpassword in the shell ----------------------------------------------


@pytest.mark.parametrize("fetch", ["curl-pop3", "poplib-stls", "mpop-stls", "openssl-stls"])
def test_clients_fetch(fetch: str, foreign: Foreign, tmp_path: Path) -> None:
    (got,) = FETCHERS[fetch](foreign.at("pop3", "pop3"), ALICE, tmp_path)
    assert got == b"Subject: waiting\r\n\r\nhello\r\n"


def test_pop3_refusal_and_crash(foreign: Foreign) -> None:
    expected = {
        Account(ALICE.address, "wrong"): b"-ERR authup authorization failed",
        Account("later@example.test", ALICE.password): b"-ERR authup authorization failed",
        Account("root@example.test", ALICE.password): b"-ERR authup authorization failed",
        Account("crash@example.test", ALICE.password): b"-ERR authup aack, child crashed",
    }
    for account, reply in expected.items():
        with foreign.dialogue("pop3") as dialogue:
            dialogue.start_tls()
            dialogue.say(b"USER " + account.address.encode())
            assert dialogue.say(b"PASS " + account.password.encode()) == [reply]
            assert dialogue.rest() == b""


# exim ------------------------------------------------------------------------------------------


def queued(foreign: Foreign, token: str) -> bytes:
    """Return the body of the message with that token in exim's queue, with CR LF line ends."""
    script = f'cd /var/spool/exim4/input && cat -- "$(basename "$(grep -l {token} -- *-H)" -H)"-D'
    ran = foreign.appliance.container.exec_run(["sh", "-c", script], user="Debian-exim")
    assert isinstance(ran.output, bytes)
    return ran.output.partition(b"-D\n")[2].replace(b"\n", b"\r\n")


# It says BODY= though authup has not offered that; exim takes no parameters before an EHLO.
OBEDIENT = [name for name in SUBMIT if not name.startswith("smtplib")]


@pytest.mark.parametrize("rules", ["shipped", "october-2018"])
@pytest.mark.parametrize("submit", OBEDIENT)
def test_clients_submit_to_exim(submit: str, rules: str, foreign: Foreign, tmp_path: Path) -> None:
    message = mail.compose(ALICE.address, "bob@example.test", size=20_000)
    at = foreign.at(f"exim-{rules}")
    SUBMITTERS[submit](at, ALICE, message, "bob@example.test", tmp_path)
    assert queued(foreign, message.token) == message.body


@pytest.mark.parametrize("rules", ["shipped", "october-2018"])
def test_what_exim_offers_that_a_proxy_cannot_keep(rules: str, foreign: Foreign) -> None:
    with logged_in(foreign, f"exim-{rules}") as dialogue:
        lines = dialogue.say(b"EHLO client.example")
        assert lines[0] == b"250-mail.example.test"
        assert b"250-8BITMIME" in lines
        assert b"250-PIPELINING" in lines
        for missing in (b"STARTTLS", b"CHUNKING", b"AUTH"):
            assert not any(missing in line for line in lines), lines
        octets = b"RSET\r\nQUIT\r\n"  # and no commands
        dialogue.send(b"BDAT %d LAST\r\n" % len(octets) + octets)
        assert dialogue.reply() == [b"502 unimplemented (#5.5.1)"]
        assert dialogue.code(b"STARTTLS") == b"502"
        assert dialogue.code(b"QUIT") == b"221"
        assert dialogue.rest() == b""


def test_no_rules_change_nothing_but_what_is_no_rule(foreign: Foreign) -> None:
    with inside_tls(foreign, "exim-empty") as dialogue:
        (banner,) = dialogue.say(auth(ALICE.address))
        # Nobody makes a 235 of it.
        assert banner.startswith(b"220 ")
        assert b" ESMTP Exim " in banner
        lines = dialogue.say(b"EHLO client.example")
        assert b" Hello " in lines[0]
        assert not any(b"CHUNKING" in line for line in lines)
        assert dialogue.code(b"MAIL FROM:<alice@example.test>") == b"250"
        assert dialogue.code(b"RCPT TO:<bob@example.test>") == b"250"
        assert dialogue.code(b"DATA") == b"354"
        assert dialogue.code(b"Subject: x\r\n\r\nx\r\n.") == b"250"


def test_rules_that_do_not_parse_are_421(foreign: Foreign) -> None:
    before = ends(foreign, 1 << 8)
    with inside_tls(foreign, "exim-unparsable") as dialogue:
        unreadable = [b"421 authup unable to read controls (#4.3.0)"]
        assert dialogue.say(auth(ALICE.address)) == unreadable
        assert dialogue.rest() == b""
    ended_with(foreign, 1 << 8, before)


def test_hostile_rules_make_no_malformed_reply(foreign: Foreign) -> None:
    before = ends(foreign, 77 << 8)
    with inside_tls(foreign, "exim-hostile") as dialogue:
        dialogue.send(auth(ALICE.address) + b"\r\n")
        assert dialogue.line() is not None
        lines = dialogue.say(b"EHLO client.example")
        assert [line[3:4] for line in lines] == [b"-"] * (len(lines) - 1) + [b" "]
        assert all(line[:3].isdigit() for line in lines), lines
        aaa = b"MAIL FROM:<" + b"a" * 60 + b"@example.test>"
        assert dialogue.code(aaa) == b"250"
        # DATA that the server took for a NOOP: what follows are commands.
        assert dialogue.code(b"DATA") == b"250"
        assert dialogue.code(b"NOOP") == b"250"
        assert dialogue.say(b"VRFY postmaster") == [b"252 and out"]
        assert dialogue.rest() == b""
    ended_with(foreign, 77 << 8, before)


# The descriptors of UCSPI-TLS, without any program of ours behind them ------------------------


@pytest.mark.parametrize("command", ["Y", "y"])
def test_a_shell_script_speaks_ucspi_tls(command: str, foreign: Foreign) -> None:
    with foreign.dialogue(f"starttls-{command}", greet=False) as dialogue:
        dialogue.send(b"go\r\n")
        dialogue.start_tls_now()
        report = []
        while (line := dialogue.line()) != b".":
            report.append(line)
        facts = dict(line.split(b"=", 1) for line in report if line)
        if command == "Y":
            assert facts[b"SSL_PROTOCOL"] == b"TLSv1.3"
            assert facts[b"SSL_CIPHER"].startswith(b"TLS_")
            assert all(name.startswith(b"SSL_") for name in facts)
        else:
            assert not facts
        dialogue.send(b"one\r\ntwo\r\n")
        assert (dialogue.line(), dialogue.line()) == (b"one", b"two")


def test_a_failed_handshake_ends_the_report_before_it_begins(foreign: Foreign) -> None:
    before = ends(foreign, 99 << 8)
    with foreign.dialogue("starttls-Y", greet=False) as dialogue:
        dialogue.send(b"go\r\nthis is no ClientHello, and it is long enough to be seen\r\n")
        dialogue.rest()
    ended_with(foreign, 99 << 8, before)


# At last, because it lasts -------------------------------------------------------------------


@pytest.mark.parametrize("service", ["hangs", "hangs-later"])
def test_a_server_that_hangs_is_a_timeout_of_authups(
    service: str, hanging: dict[str, bytes]
) -> None:
    wait.until("the timeout", lambda: service in hanging, seconds=90)
    # The rule for the event removes the proxy's words and exits 16, which authup knows.
    assert hanging[service] == b"451 authup timeout (#4.4.2)\r\n"
