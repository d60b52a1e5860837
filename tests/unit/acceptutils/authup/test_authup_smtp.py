"""The SMTP dialogue, row by row."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptutils.authup.dialogue import Effect, Settings, Turn
from acceptutils.authup.lines import AUTH_LIMIT, COMMAND_LIMIT
from acceptutils.authup.smtp import Smtp
from acceptutils.ucspitls import Availability

UNAVAILABLE, OPTIONAL, REQUIRED = (
    Availability.UNAVAILABLE,
    Availability.OPTIONAL,
    Availability.REQUIRED,
)

MALFORMED = b"501 authup malformed auth input (#5.5.4)\r\n"
CANCELLED = b"501 authup auth exchange cancelled (#5.0.0)\r\n"
NEED_TLS = b"530 authup Must start TLS first (#5.7.0)\r\n"
NO_MECHANISM = b"504 authup auth type unimplemented (#5.5.1)\r\n"
UNIMPLEMENTED = b"502 unimplemented (#5.5.1)\r\n"
UNAUTHENTICATED = b"530 authup authentication required (#5.7.1)\r\n"
ASK_USER = b"334 VXNlcm5hbWU6\r\n"
ASK_PASSWORD = b"334 UGFzc3dvcmQ6\r\n"


def smtp(
    availability: Availability = UNAVAILABLE,
    *,
    capabilities: tuple[bytes, ...] = (b"PIPELINING", b"8BITMIME"),
    broken: bool = False,
) -> Smtp:
    return Smtp(Settings(b"mail.example.org", capabilities, broken, availability), b"1.2")


def b64(raw: bytes) -> bytes:
    return base64.b64encode(raw)


def says(dialogue: Smtp, line: bytes) -> bytes:
    turn = dialogue.answer(line)
    assert turn.effect is Effect.NONE, turn
    return turn.reply


def attempt(turn: Turn) -> tuple[bytes, bytes, bytes]:
    assert turn.effect is Effect.ATTEMPT
    assert turn.reply == b""
    assert turn.credentials is not None
    user, password, timestamp = turn.credentials
    return user, bytes(password.reveal()), timestamp


def test_greeting() -> None:
    assert smtp().greet() == b"220 mail.example.org ESMTP\r\n"


@pytest.mark.parametrize(
    ("availability", "in_tls", "middle"),
    [
        (UNAVAILABLE, False, b"250-AUTH LOGIN PLAIN\r\n"),
        (OPTIONAL, False, b"250-STARTTLS\r\n250-AUTH LOGIN PLAIN\r\n"),
        (OPTIONAL, True, b"250-AUTH LOGIN PLAIN\r\n"),
        (REQUIRED, False, b"250-STARTTLS\r\n"),
        (REQUIRED, True, b"250-AUTH LOGIN PLAIN\r\n"),
    ],
)
def test_ehlo_offers_what_can_be_used_now(
    availability: Availability, in_tls: bool, middle: bytes
) -> None:
    dialogue = smtp(availability)
    if in_tls:
        dialogue.tls_started()
    expected = b"250-mail.example.org\r\n" + middle + b"250-PIPELINING\r\n250 8BITMIME\r\n"
    assert says(dialogue, b"EHLO client.example") == expected


def test_ehlo_for_broken_clients() -> None:
    assert says(smtp(broken=True), b"EHLO c") == (
        b"250-mail.example.org\r\n250-AUTH LOGIN PLAIN\r\n250-AUTH=LOGIN PLAIN\r\n"
        b"250-PIPELINING\r\n250 8BITMIME\r\n"
    )
    required = smtp(REQUIRED, broken=True)
    assert b"AUTH" not in says(required, b"EHLO c")


@pytest.mark.parametrize(
    ("availability", "expected"),
    [
        (UNAVAILABLE, b"250-mail.example.org\r\n250 AUTH LOGIN PLAIN\r\n"),
        (REQUIRED, b"250-mail.example.org\r\n250 STARTTLS\r\n"),
    ],
)
def test_ehlo_without_capabilities_still_ends(availability: Availability, expected: bytes) -> None:
    assert says(smtp(availability, capabilities=()), b"EHLO c") == expected


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"HELO client.example", b"250 mail.example.org\r\n"),
        (b"HELO", b"250 mail.example.org\r\n"),
        (b"HELP", b"214 authup home page: https://schmonz.com/qmail/acceptutils\r\n"),
        (b"HELP me", b"214 authup home page: https://schmonz.com/qmail/acceptutils\r\n"),
        (b"NOOP", b"250 ok\r\n"),
        (b"noop x", b"250 ok\r\n"),
        (b"MAIL FROM:<a@b>", UNAUTHENTICATED),
        (b"RCPT TO:<a@b>", UNAUTHENTICATED),
        (b"DATA", UNAUTHENTICATED),
        (b"RSET", UNAUTHENTICATED),
        (b"VRFY a", UNAUTHENTICATED),
        (b"BDAT 5 LAST", UNAUTHENTICATED),
        (b"", UNAUTHENTICATED),
        (b" NOOP", UNAUTHENTICATED),
        (b"NOOPX", UNAUTHENTICATED),
        (b"NOOP\tx", UNAUTHENTICATED),
        (b"GET / HTTP/1.1", UNAUTHENTICATED),
        (b"\xff\xfe", UNAUTHENTICATED),
        (b"*", UNAUTHENTICATED),
    ],
)
def test_command(line: bytes, reply: bytes) -> None:
    assert says(smtp(), line) == reply


def test_quit() -> None:
    assert smtp().answer(b"quit") == Turn(b"221 mail.example.org\r\n", Effect.QUIT)


@pytest.mark.parametrize("availability", [OPTIONAL, REQUIRED])
def test_starttls_once(availability: Availability) -> None:
    dialogue = smtp(availability)
    ready = Turn(b"220 Ready to start TLS (#5.7.0)\r\n", Effect.START_TLS)
    assert dialogue.answer(b"StartTLS") == ready
    dialogue.tls_started()
    assert says(dialogue, b"STARTTLS") == UNIMPLEMENTED


def test_starttls_unavailable() -> None:
    assert says(smtp(), b"STARTTLS") == UNIMPLEMENTED


@pytest.mark.parametrize(
    "line", [b"AUTH PLAIN", b"AUTH LOGIN", b"AUTH CRAM-MD5", b"AUTH", b"auth plain AGEAYg=="]
)
def test_auth_is_refused_while_tls_is_required_and_absent(line: bytes) -> None:
    dialogue = smtp(REQUIRED)
    assert says(dialogue, line) == NEED_TLS
    assert says(dialogue, b"NOOP") == b"250 ok\r\n"  # not in an exchange


def test_auth_with_optional_tls_absent() -> None:
    assert attempt(smtp(OPTIONAL).answer(b"AUTH PLAIN AGEAYg==")) == (b"a", b"b", b"")


@pytest.mark.parametrize("line", [b"AUTH", b"AUTH CRAM-MD5", b"AUTH XOAUTH2 x", b"AUTH PLAINX"])
def test_other_mechanism(line: bytes) -> None:
    dialogue = smtp()
    assert says(dialogue, line) == NO_MECHANISM
    assert says(dialogue, b"NOOP") == b"250 ok\r\n"


@pytest.mark.parametrize("command", [b"AUTH PLAIN ", b"auth  plain   ", b"Auth Plain "])
def test_plain_with_initial_response(command: bytes) -> None:
    found = attempt(smtp().answer(command + b64(b"ignored\0alice\0swordfish")))
    assert found == (b"alice", b"swordfish", b"")


@pytest.mark.parametrize("command", [b"AUTH PLAIN", b"AUTH PLAIN "])
def test_plain_in_two_lines(command: bytes) -> None:
    dialogue = smtp()
    assert says(dialogue, command) == b"334 \r\n"
    assert attempt(dialogue.answer(b64(b"\0alice\0swordfish"))) == (b"alice", b"swordfish", b"")


def test_login() -> None:
    dialogue = smtp()
    assert says(dialogue, b"AUTH LOGIN") == ASK_USER
    assert says(dialogue, b64(b"alice")) == ASK_PASSWORD
    assert attempt(dialogue.answer(b64(b"swordfish"))) == (b"alice", b"swordfish", b"")


def test_login_with_initial_user() -> None:
    dialogue = smtp()
    assert says(dialogue, b"AUTH login " + b64(b"alice")) == ASK_PASSWORD
    assert attempt(dialogue.answer(b64(b"swordfish"))) == (b"alice", b"swordfish", b"")


EXCHANGES = [
    [b"AUTH PLAIN"],
    [b"AUTH LOGIN"],
    [b"AUTH LOGIN", b64(b"alice")],
    [b"AUTH LOGIN " + b64(b"alice")],
]


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_cancelled_exchange_gets_one_reply_and_leaves_nothing(exchange: list[bytes]) -> None:
    dialogue = smtp()
    for line in exchange:
        says(dialogue, line)
    assert says(dialogue, b"*") == CANCELLED
    assert says(dialogue, b64(b"swordfish")) == UNAUTHENTICATED
    assert says(dialogue, b"AUTH LOGIN") == ASK_USER


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize(
    "line", [b"", b"=", b"*=", b"**", b" *", b"a", b"YQ", b"YR==", b"QUIT ", b"YQ== ", b"\xff"]
)
def test_malformed_line_in_exchange_gets_one_reply_and_ends_it(
    exchange: list[bytes], line: bytes
) -> None:
    dialogue = smtp()
    for earlier in exchange:
        says(dialogue, earlier)
    assert says(dialogue, line) == MALFORMED
    assert says(dialogue, b"NOOP") == b"250 ok\r\n"


@pytest.mark.parametrize(
    "line",
    [
        b"AUTH PLAIN =",
        b"AUTH PLAIN *",
        b"AUTH LOGIN =",
        b"AUTH LOGIN *",
        b"AUTH PLAIN " + b64(b"\0alice\0"),
        b"AUTH PLAIN " + b64(b"\0\0swordfish"),
        b"AUTH PLAIN " + b64(b"\0alice\0swordfish") + b" x",
        b"AUTH PLAIN " + b64(b"\0alice\0sword\0fish"),
        b"AUTH LOGIN " + b64(b"ali\0ce"),
    ],
)
def test_malformed_initial_response(line: bytes) -> None:
    dialogue = smtp()
    assert says(dialogue, line) == MALFORMED
    assert says(dialogue, b"NOOP") == b"250 ok\r\n"


def test_user_name_of_one_exchange_is_not_used_in_the_next() -> None:
    dialogue = smtp()
    says(dialogue, b"AUTH LOGIN " + b64(b"alice"))
    says(dialogue, b"*")
    assert says(dialogue, b"AUTH LOGIN") == ASK_USER
    assert says(dialogue, b64(b"bob")) == ASK_PASSWORD
    assert attempt(dialogue.answer(b64(b"x")))[0] == b"bob"


def test_tls_start_forgets_an_exchange() -> None:
    dialogue = smtp(OPTIONAL)
    says(dialogue, b"AUTH LOGIN " + b64(b"alice"))
    dialogue.tls_started()
    assert says(dialogue, b64(b"swordfish")) == UNAUTHENTICATED


def test_line_limit_is_auth_s_own_in_auth_only() -> None:
    dialogue = smtp()
    assert dialogue.line_limit(b"EHLO ") == COMMAND_LIMIT
    assert dialogue.line_limit(b"AUTHX") == COMMAND_LIMIT
    assert dialogue.line_limit(b"auth ") == AUTH_LIMIT
    says(dialogue, b"AUTH PLAIN")
    assert dialogue.line_limit(b"xxxxx") == AUTH_LIMIT
    says(dialogue, b"*")
    assert dialogue.line_limit(b"xxxxx") == COMMAND_LIMIT


LINES = st.one_of(
    st.binary(max_size=30).filter(lambda line: b"\n" not in line),
    st.sampled_from(
        [b"AUTH LOGIN", b"AUTH PLAIN", b"AUTH PLAIN =", b"*", b64(b"a"), b64(b"\0a\0b"), b"EHLO"]
    ),
)


@given(st.lists(LINES, max_size=12), st.sampled_from(list(Availability)))
def test_every_line_gets_exactly_one_reply_or_an_attempt(
    lines: list[bytes], availability: Availability
) -> None:
    dialogue = smtp(availability)
    for line in lines:
        turn = dialogue.answer(line)
        if turn.effect is Effect.ATTEMPT:
            assert turn.reply == b""
            assert turn.credentials is not None
            assert availability is not REQUIRED
            user, password, _ = turn.credentials
            assert user
            assert password.reveal()
            assert b"\0" not in user + bytes(password.reveal())
            continue
        reply_lines = turn.reply.split(b"\r\n")
        assert reply_lines.pop() == b""
        assert {reply_line[:3] for reply_line in reply_lines} == {turn.reply[:3]}
        assert [reply_line[3:4] for reply_line in reply_lines] == [b"-"] * (
            len(reply_lines) - 1
        ) + [b" "]
