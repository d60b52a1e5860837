"""The POP3 dialogue, row by row."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptutils.authup.dialogue import Effect, Settings, Turn
from acceptutils.authup.lines import AUTH_LIMIT, COMMAND_LIMIT
from acceptutils.authup.pop3 import Pop3
from acceptutils.ucspitls import Availability

UNAVAILABLE, OPTIONAL, REQUIRED = (
    Availability.UNAVAILABLE,
    Availability.OPTIONAL,
    Availability.REQUIRED,
)

OK = b"+OK \r\n"
SYNTAX = b"-ERR authup syntax error\r\n"
USER_FIRST = b"-ERR authup USER first\r\n"
NEED_TLS = b"-ERR authup Must start TLS first\r\n"
FIRST = b"-ERR authup authorization first\r\n"
NO_AUTH = b"-ERR authup auth type unimplemented\r\n"
MALFORMED = b"-ERR authup malformed auth input\r\n"
NO_STLS = b"-ERR STLS not available\r\n"


def pop3(availability: Availability = UNAVAILABLE) -> Pop3:
    settings = Settings(b"mail.example.org", (b"TOP", b"UIDL"), False, availability)
    return Pop3(settings, b"123.456")


def says(dialogue: Pop3, line: bytes) -> bytes:
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
    assert pop3().greet() == b"+OK <123.456@mail.example.org>\r\n"


@pytest.mark.parametrize(
    ("availability", "in_tls", "middle"),
    [
        (UNAVAILABLE, False, b"USER\r\nSASL PLAIN\r\n"),
        (OPTIONAL, False, b"STLS\r\nUSER\r\nSASL PLAIN\r\n"),
        (OPTIONAL, True, b"USER\r\nSASL PLAIN\r\n"),
        (REQUIRED, False, b"STLS\r\n"),
        (REQUIRED, True, b"USER\r\nSASL PLAIN\r\n"),
    ],
)
def test_capa_offers_what_can_be_used_now(
    availability: Availability, in_tls: bool, middle: bytes
) -> None:
    dialogue = pop3(availability)
    if in_tls:
        dialogue.tls_started()
    expected = b"+OK capability list follows\r\n" + middle + b"TOP\r\nUIDL\r\n.\r\n"
    assert says(dialogue, b"CAPA") == expected


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"NOOP", OK),
        (b"USER alice", OK),
        (b"USER", SYNTAX),
        (b"USER  ", SYNTAX),
        (b"PASS x", USER_FIRST),
        (b"PASS", USER_FIRST),
        (b"STLS", NO_STLS),
        (b"STAT", FIRST),
        (b"RETR 1", FIRST),
        (b"APOP alice 0123", FIRST),
        (b"AUTH PLAIN", b"+ \r\n"),
        (b"AUTH LOGIN", NO_AUTH),
        (b"AUTH", NO_AUTH),
        (b"AUTH PLAIN *", b"-ERR authup auth exchange cancelled\r\n"),
        (b"AUTH PLAIN =", MALFORMED),
        (b"AUTH PLAIN AGEAYg", MALFORMED),
        (b"", FIRST),
        (b"\xff", FIRST),
    ],
)
def test_command(line: bytes, reply: bytes) -> None:
    assert says(pop3(), line) == reply


def test_quit() -> None:
    assert pop3().answer(b"quit") == Turn(OK, Effect.QUIT)


def test_user_and_pass() -> None:
    dialogue = pop3()
    says(dialogue, b"user alice")
    found = attempt(dialogue.answer(b"pass swordfish"))
    assert found == (b"alice", b"swordfish", b"<123.456@mail.example.org>")


@pytest.mark.parametrize(
    "password", [b"two words", b" begins", b"ends ", b" ", b"p%s", b"\xc3\xa9", b"a\tb"]
)
def test_password_is_all_behind_the_one_space(password: bytes) -> None:
    dialogue = pop3()
    says(dialogue, b"USER alice")
    assert attempt(dialogue.answer(b"PASS " + password))[1] == password


@pytest.mark.parametrize("line", [b"PASS", b"PASS "])
def test_empty_password_is_a_syntax_error_and_user_stays(line: bytes) -> None:
    dialogue = pop3()
    says(dialogue, b"USER alice")
    assert says(dialogue, line) == SYNTAX
    assert attempt(dialogue.answer(b"PASS x"))[0] == b"alice"


def test_attempt_asks_for_the_user_anew() -> None:
    dialogue = pop3()
    says(dialogue, b"USER alice")
    attempt(dialogue.answer(b"PASS wrong"))
    assert says(dialogue, b"PASS right") == USER_FIRST


def test_second_user_replaces_the_first() -> None:
    dialogue = pop3()
    says(dialogue, b"USER alice")
    says(dialogue, b"USER bob")
    assert attempt(dialogue.answer(b"PASS x"))[0] == b"bob"


@pytest.mark.parametrize("line", [b"USER alice", b"PASS x", b"USER", b"PASS", b"AUTH PLAIN"])
def test_nothing_is_asked_while_tls_is_required_and_absent(line: bytes) -> None:
    assert says(pop3(REQUIRED), line) == NEED_TLS


@pytest.mark.parametrize("availability", [OPTIONAL, REQUIRED])
def test_stls_once(availability: Availability) -> None:
    dialogue = pop3(availability)
    assert dialogue.answer(b"stls") == Turn(b"+OK starting TLS negotiation\r\n", Effect.START_TLS)
    dialogue.tls_started()
    assert says(dialogue, b"STLS") == NO_STLS


def test_tls_start_forgets_a_user() -> None:
    dialogue = pop3(OPTIONAL)
    says(dialogue, b"USER alice")
    dialogue.tls_started()
    assert says(dialogue, b"PASS x") == USER_FIRST


RESPONSE = base64.b64encode(b"ignored\0alice\0sword fish")


def test_auth_plain_with_an_initial_response() -> None:
    found = attempt(pop3().answer(b"auth plain " + RESPONSE))
    assert found == (b"alice", b"sword fish", b"<123.456@mail.example.org>")


def test_auth_plain_with_the_response_on_its_own_line() -> None:
    dialogue = pop3()
    assert says(dialogue, b"AUTH PLAIN") == b"+ \r\n"
    assert attempt(dialogue.answer(RESPONSE))[:2] == (b"alice", b"sword fish")


@pytest.mark.parametrize(
    ("line", "reply"),
    [(b"*", b"-ERR authup auth exchange cancelled\r\n"), (b"QUIT", MALFORMED), (b"", MALFORMED)],
)
def test_the_line_after_auth_plain_is_no_command(line: bytes, reply: bytes) -> None:
    dialogue = pop3()
    says(dialogue, b"AUTH PLAIN")
    assert says(dialogue, line) == reply
    assert says(dialogue, b"NOOP") == OK


def test_tls_start_forgets_an_exchange() -> None:
    dialogue = pop3(OPTIONAL)
    says(dialogue, b"AUTH PLAIN")
    dialogue.tls_started()
    assert says(dialogue, b"NOOP") == OK


def test_only_an_auth_line_may_be_long() -> None:
    dialogue = pop3()
    assert dialogue.line_limit(b"USER ") == COMMAND_LIMIT
    assert dialogue.line_limit(b"auth ") == AUTH_LIMIT
    says(dialogue, b"AUTH PLAIN")
    assert dialogue.line_limit(b"AAAAA") == AUTH_LIMIT


LINES = st.one_of(
    st.binary(max_size=30).filter(lambda line: b"\n" not in line and b"\0" not in line),
    st.sampled_from([b"USER a", b"PASS b", b"CAPA", b"STLS", b"AUTH PLAIN"]),
)


@given(st.lists(LINES, max_size=12), st.sampled_from(list(Availability)))
def test_every_line_gets_exactly_one_reply_or_an_attempt(
    lines: list[bytes], availability: Availability
) -> None:
    dialogue = pop3(availability)
    for line in lines:
        turn = dialogue.answer(line)
        if turn.effect is Effect.ATTEMPT:
            assert turn.reply == b""
            assert availability is not REQUIRED
        elif turn.reply.startswith(b"+OK capability"):
            assert turn.reply.endswith(b"\r\n.\r\n")
        else:
            assert turn.reply.startswith((b"+OK ", b"-ERR ", b"+ \r\n"))
            assert turn.reply.index(b"\r\n") == len(turn.reply) - 2
