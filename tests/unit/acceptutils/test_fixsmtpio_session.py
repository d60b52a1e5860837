"""What fixsmtpio decides, without any process: bytes in, bytes out."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from acceptutils.fixsmtpio import answers
from acceptutils.fixsmtpio.request import AUTH_LIMIT, COMMAND_LIMIT
from acceptutils.fixsmtpio.rules import parse
from acceptutils.fixsmtpio.session import Context, Outcome, Session

PLAIN = Context()
AVAILABLE = Context(b"mail.example.org", tls_available=True)
REQUIRED = Context(b"mail.example.org", tls_available=True, tls_required=True)
IN_TLS = REQUIRED._replace(in_tls=True, restarted=True)


def start(
    rules: bytes = b"", context: Context = PLAIN, env: dict[str, str] | None = None
) -> Session:
    """Return a session whose client has been greeted."""
    session = Session(parse(rules).select(env or {}), context)
    session.server(b"220 server\r\n")
    session.to_client.clear()
    return session


def to_server(session: Session) -> bytes:
    sent = b"".join(session.to_server)
    session.to_server.clear()
    return sent


def to_client(session: Session) -> bytes:
    shown = b"".join(session.to_client)
    session.to_client.clear()
    return shown


def in_message(session: Session) -> Session:
    session.client(b"DATA\r\n")
    session.server(b"354 go\r\n")
    to_server(session)
    to_client(session)
    return session


# Order


def test_requests_pass_and_replies_come_back() -> None:
    session = start()
    session.client(b"NOOP\r\nRSET\r\n")
    assert to_server(session) == b"NOOP\r\nRSET\r\n"
    session.server(b"250 one\r\n250 two\r\n")
    assert to_client(session) == b"250 one\r\n250 two\r\n"


def test_our_own_answer_waits_for_the_replies_before_it() -> None:
    session = start()
    session.client(b"NOOP\r\nSTARTTLS\r\nRSET\r\n")
    assert to_server(session) == b"NOOP\r\nRSET\r\n"
    assert to_client(session) == b""
    session.server(b"250 one\r\n")
    assert to_client(session) == b"250 one\r\n" + answers.STARTTLS_REFUSED
    session.server(b"250 two\r\n")
    assert to_client(session) == b"250 two\r\n"


def test_reply_gets_the_rules_of_its_own_request_in_a_pipeline() -> None:
    session = start(b":mail::*::250 M\n:rcpt::*::250 R")
    session.client(b"MAIL FROM:<>\r\nRCPT TO:<a>\r\nrcpt TO:<b>\r\n")
    session.server(b"250 ok\r\n250 ok\r\n550 no\r\n")
    assert to_client(session) == b"250 M\r\n250 R\r\n250 R\r\n"


def test_line_ends_of_commands_are_made_canonical() -> None:
    session = start()
    session.client(b"NOOP\nRSET\r\n")
    assert to_server(session) == b"NOOP\r\nRSET\r\n"


def test_no_more_requests_are_taken_than_can_be_kept() -> None:
    session = start()
    session.client(b"NOOP\r\n" * 5000)
    assert to_server(session).count(b"\r\n") == 1000
    session.server(b"250 ok\r\n" * 10)
    assert to_server(session).count(b"\r\n") == 10


# Requests


def test_prepend_goes_in_front_of_the_request() -> None:
    session = start(b":auth:NOOP :*::502 no")
    session.client(b"AUTH PLAIN AGEAYg==\r\n")
    assert to_server(session) == b"NOOP AUTH PLAIN AGEAYg==\r\n"
    session.server(b"250 ok\r\n")
    assert to_client(session) == b"502 no\r\n"


def test_a_tab_or_a_blank_does_not_hide_a_verb_from_its_rules() -> None:
    session = start(b":auth:NOOP :*::502 no")
    session.client(b" auth\tPLAIN AGEAYg==\r\n")
    assert to_server(session) == b"NOOP  auth\tPLAIN AGEAYg==\r\n"


def test_a_client_cannot_cause_an_event_by_its_name() -> None:
    rules = b":timeout::*:16:\n:clienteof::*:0:\n:greeting::*:14:\n:in_data::*:9:\n"
    session = Session(parse(rules).select({}), Context())
    session.client(b"TIMEOUT\r\nCLIENTEOF\r\nGREETING\r\nIN_DATA\r\n")
    session._pending.popleft()  # the greeting, which has a rule here
    session.server(b"502 no\r\n" * 4)
    assert to_client(session) == b"502 no\r\n" * 4
    assert session.outcome is None


def test_line_of_the_limit_passes_and_a_longer_one_ends_the_session() -> None:
    session = start()
    longest = b"NOOP " + b"x" * (COMMAND_LIMIT - 5) + b"\r\n"
    session.client(longest)
    assert to_server(session) == longest
    session.client(b"NOOP " + b"x" * (COMMAND_LIMIT - 4) + b"\r\nRSET\r\n")
    assert to_server(session) == b""
    assert session.outcome is None
    session.server(b"250 ok\r\n")
    assert to_client(session) == b"250 ok\r\n" + answers.LINE_TOO_LONG
    assert session.outcome == Outcome()


def test_line_without_end_ends_the_session_before_it_ends() -> None:
    session = start()
    session.client(b"x" * (COMMAND_LIMIT + 2))
    assert to_client(session) == answers.LINE_TOO_LONG
    assert session.outcome == Outcome()


def test_auth_line_may_be_longer() -> None:
    session = start()
    session.client(b"AUTH PLAIN " + b"x" * (AUTH_LIMIT - 11) + b"\r\n")
    assert len(to_server(session)) == AUTH_LIMIT + 2
    session.server(b"334 \r\n")
    session.client(b"x" * AUTH_LIMIT + b"\r\n")
    assert len(to_server(session)) == AUTH_LIMIT + 2
    session.server(b"334 \r\n")
    session.client(b"x" * (AUTH_LIMIT + 2))
    assert to_client(session).endswith(answers.LINE_TOO_LONG)


def test_nul_in_a_command_ends_the_session() -> None:
    session = start()
    session.client(b"NOOP\0\r\nRSET\r\n")
    assert to_server(session) == b""
    assert to_client(session) == answers.LINE_TOO_LONG
    assert session.outcome == Outcome()


def test_bare_cr_in_a_command_does_not_reach_the_server() -> None:
    session = start()
    session.client(b"NOOP\rDATA\r\nRSET\r\n")
    assert to_client(session) == answers.BARE_CR_IN_COMMAND
    assert to_server(session) == b"RSET\r\n"


# DATA


def test_what_follows_data_waits_for_354_and_is_then_the_message() -> None:
    session = start()
    session.client(b"DATA\r\nRSET\r\n.\r\nQUIT\r\n")
    assert to_server(session) == b"DATA\r\n"
    session.server(b"354 go\r\n")
    assert to_server(session) == b"RSET\r\n.\r\nQUIT\r\n"
    session.server(b"250 queued\r\n221 bye\r\n")
    assert to_client(session) == b"354 go\r\n250 queued\r\n221 bye\r\n"


def test_what_follows_a_refused_data_is_commands() -> None:
    session = start()
    session.client(b"DATA\r\nRSET\r\n")
    session.server(b"503 RCPT first\r\n")
    assert to_server(session) == b"DATA\r\nRSET\r\n"


def test_data_neutralised_by_a_prepend_starts_no_message() -> None:
    session = start(b":data:NOOP :*::554 no")
    session.client(b"DATA\r\nRSET\r\n")
    session.server(b"250 ok\r\n250 ok\r\n")
    assert to_server(session) == b"NOOP DATA\r\nRSET\r\n"
    assert to_client(session) == b"554 no\r\n250 ok\r\n"


def test_354_made_by_a_rule_is_no_354() -> None:
    session = start(b":data::5*::354 go on")
    session.client(b"DATA\r\n")
    session.server(b"503 no\r\n")
    assert to_client(session) == answers.RULES_CONTRADICT
    assert session.outcome == Outcome()


def test_354_refused_by_a_rule_ends_the_session() -> None:
    session = start(b":data::354*::554 not today")
    session.client(b"DATA\r\nsubject: x\r\n.\r\n")
    session.server(b"354 go\r\n")
    assert to_client(session) == b"554 not today\r\n"
    assert to_server(session) == b"DATA\r\n"
    assert session.outcome == Outcome()


def test_354_without_data_ends_the_session() -> None:
    session = start()
    session.client(b"MAIL FROM:<>\r\n")
    session.server(b"354 surprise\r\n")
    assert to_client(session) == answers.SERVER_MALFORMED
    assert session.outcome == Outcome()


def test_bare_lf_in_data_is_refused_and_the_server_sees_no_end() -> None:
    session = in_message(start())
    session.client(b"one\r\ntwo\n.\nMAIL FROM:<x>\r\n.\r\n")
    assert to_server(session) == b"one\r\ntwo"
    assert to_client(session) == answers.BARE_NEWLINE
    assert session.outcome == Outcome()
    assert session.server_input_ended


def test_bare_lf_in_data_can_be_allowed() -> None:
    session = in_message(start(context=Context(bare_lf=True)))
    session.client(b"one\ntwo\r\n.\r\n")
    assert to_server(session) == b"one\ntwo\r\n.\r\n"


def test_reply_to_the_message_has_an_event_of_its_own() -> None:
    session = in_message(start(b":in_data::250*:3:250 taken"))
    session.client(b".\r\n")
    session.server(b"250 ok\r\n")
    assert to_client(session) == b"250 taken\r\n"
    assert session.outcome == Outcome(exitcode=3)


def test_reply_before_the_end_of_the_message_ends_the_session() -> None:
    session = in_message(start())
    session.client(b"half a mess")
    session.server(b"451 timeout (#4.4.2)\r\n")
    assert to_client(session) == b"451 timeout (#4.4.2)\r\n"
    session.client(b"age\r\n.\r\nQUIT\r\n")
    assert to_server(session) == b"half a mess"
    assert session.outcome == Outcome()


# AUTH and BDAT


def test_line_of_an_auth_exchange_is_no_command() -> None:
    session = start(b":data:NOOP :*::500 no")
    session.client(b"AUTH LOGIN\r\nDATA\r\nSTARTTLS\r\nDATA\r\n")
    assert to_server(session) == b"AUTH LOGIN\r\n"
    session.server(b"334 VXNlcm5hbWU6\r\n")
    assert to_server(session) == b"DATA\r\n"
    session.server(b"334 UGFzc3dvcmQ6\r\n")
    assert to_server(session) == b"STARTTLS\r\n"
    session.server(b"535 no\r\n")
    assert to_server(session) == b"NOOP DATA\r\n"


def test_octets_of_bdat_are_never_commands() -> None:
    session = start()
    session.client(b"BDAT 12 LAST\r\nMAIL FROM:<>NOOP\r\n")
    assert to_server(session) == b"NOOP\r\n"
    assert to_client(session) == answers.BDAT_REFUSED


def test_bdat_without_a_size_ends_the_session() -> None:
    session = start()
    session.client(b"BDAT x\r\nNOOP\r\n")
    assert to_client(session) == answers.BDAT_WITHOUT_SIZE
    assert to_server(session) == b""
    assert session.outcome == Outcome()


def test_extensions_that_the_proxy_does_not_follow_are_not_offered() -> None:
    session = start()
    session.client(b"EHLO me\r\n")
    session.server(b"250-server\r\n250-CHUNKING\r\n250-SIZE\r\n250-PRDR\r\n250 BINARYMIME\r\n")
    assert to_client(session) == b"250-server\r\n250 SIZE\r\n"


# TLS


def test_starttls_is_refused_when_unavailable_or_started() -> None:
    for context in (Context(), IN_TLS):
        session = start(context=context)
        session.client(b"STARTTLS\r\n")
        assert to_client(session) == answers.STARTTLS_REFUSED
        assert session.outcome is None


def test_starttls_drops_what_the_client_sent_behind_it() -> None:
    session = start(context=AVAILABLE)
    session.client(b"EHLO me\r\nSTARTTLS\r\nMAIL FROM:<injected@example.org>\r\n")
    session.client(b"RCPT TO:<injected@example.org>\r\n")
    assert session.outcome is None
    session.server(b"250 server\r\n")
    assert to_client(session) == b"250 server\r\n" + answers.STARTTLS_READY
    assert session.outcome == Outcome(start_tls=True)
    assert to_server(session) == b"EHLO me\r\n"
    session.server(b"250 late\r\n")
    assert to_client(session) == b""


def test_starttls_takes_no_argument() -> None:
    session = start(context=AVAILABLE)
    session.client(b"STARTTLS now\r\nSTARTTLS \r\n")
    assert to_client(session) == answers.STARTTLS_ARGUMENT + answers.STARTTLS_READY


def test_starttls_switched_off_by_a_rule_file() -> None:
    rules = b"AUTHUP_USER:starttls:NOOP :*::502 unimplemented (#5.5.1)"
    session = start(rules, AVAILABLE, {"AUTHUP_USER": "a"})
    session.client(b"STARTTLS\r\n")
    assert to_server(session) == b"NOOP STARTTLS\r\n"
    session.server(b"250 ok\r\n")
    assert to_client(session) == b"502 unimplemented (#5.5.1)\r\n"


def test_starttls_switched_off_carelessly_never_looks_as_if_it_started() -> None:
    session = start(b":starttls:NOOP :*::220 go ahead", AVAILABLE)
    session.client(b"STARTTLS\r\n")
    session.server(b"250 ok\r\n")
    assert to_client(session) == answers.STARTTLS_REFUSED


def test_second_servers_greeting_is_swallowed_whatever_the_rules_are() -> None:
    for rules in (b"", b":greeting::2*::&fixsmtpio_fixup", b":greeting::*::235 ok"):
        for greeting in (b"220 hi\r\n", b"220-a\r\n220 b\r\n", b"554 no\r\n"):
            session = Session(parse(rules).select({}), IN_TLS)
            session.client(b"EHLO me\r\n")
            session.server(greeting)
            assert to_client(session) == b""
            session.server(b"250 server\r\n")
            assert to_client(session) == b"250 server\r\n"


def test_required_tls_refuses_everything_but_four_verbs() -> None:
    session = start(context=REQUIRED)
    for verb in (b"MAIL FROM:<>", b"HELO me", b"AUTH PLAIN x", b"HELP", b"", b"DATA", b"BDAT 0"):
        session.client(verb + b"\r\n")
        assert to_client(session) == answers.TLS_FIRST
        assert to_server(session) == b""
    for verb in (b"NOOP", b"EHLO me", b"QUIT"):
        session.client(verb + b"\r\n")
        assert to_server(session) == verb + b"\r\n"
        session.server(b"250 ok\r\n")
    session.client(b"starttls\r\n")
    assert session.outcome == Outcome(start_tls=True)


def test_required_tls_offers_no_auth_before_it() -> None:
    shown = {}
    for context in (REQUIRED, IN_TLS, AVAILABLE):
        session = start(context=context)
        session.client(b"EHLO me\r\n")
        session.server(b"250-s\r\n250-AUTH PLAIN\r\n250 AUTH=PLAIN\r\n")
        shown[context] = to_client(session)
    assert shown[REQUIRED] == b"250 s\r\n"
    assert shown[IN_TLS] == shown[AVAILABLE] == b"250-s\r\n250-AUTH PLAIN\r\n250 AUTH=PLAIN\r\n"


def test_required_tls_is_met_once_tls_is_up() -> None:
    session = start(context=IN_TLS)
    session.client(b"MAIL FROM:<>\r\n")
    assert to_server(session) == b"MAIL FROM:<>\r\n"


# Ends


def test_reply_that_nobody_asked_for_is_the_timeout_event() -> None:
    session = start(b":timeout::*:16:")
    session.server(b"451 timeout (#4.4.2)\r\n")
    assert to_client(session) == b""
    assert session.outcome == Outcome(exitcode=16)


def test_our_own_timeout_is_the_timeout_event_too() -> None:
    session = start(b":timeout::451*:16:")
    session.timeout()
    assert to_client(session) == b""
    assert session.outcome == Outcome(exitcode=16)
    session = start()
    session.timeout()
    assert to_client(session) == b"451 timeout (#4.4.2)\r\n"
    assert session.outcome == Outcome()


def test_clienteof_comes_after_the_last_reply() -> None:
    session = start(b":clienteof::*:0:\n:noop::*:9:&fixsmtpio_noop")
    session.client(b"RSET\r\npart")
    session.client_end()
    assert session.server_input_ended
    assert session.outcome is None
    session.server(b"250 ok\r\n")
    assert to_client(session) == b"250 ok\r\n"
    assert session.outcome == Outcome(exitcode=0)
    assert to_server(session) == b"RSET\r\n"


def test_clienteof_matches_the_unfinished_line() -> None:
    rules = b":clienteof::QUIT:1:\n:clienteof:::2:".replace(b":::2:", b"::[!Q]*:2:")
    for line, code in ((b"QUIT", 1), (b"xyz", 2)):
        session = start(rules)
        session.client(line)
        session.client_end()
        assert session.outcome == Outcome(exitcode=code)


def test_client_end_without_a_rule_leaves_the_last_word_to_the_server() -> None:
    session = start(b":timeout::*:16:")
    session.client_end()
    assert session.hung_up
    assert session.outcome is None
    session.server(b"421 lost you\r\n")
    session.server_end()
    assert to_client(session) == b"421 lost you\r\n"
    assert session.outcome == Outcome()


def test_end_of_file_in_a_message_is_no_end_of_the_message() -> None:
    session = in_message(start(b":clienteof::*:0:"))
    session.client(b"text\r\n.")
    session.client_end()
    assert to_server(session) == b"text"
    assert session.server_input_ended
    assert session.outcome == Outcome(exitcode=0)


def test_message_whose_dot_came_is_answered_after_the_clients_end() -> None:
    session = start(b":clienteof::*:0:")
    session.client(b"DATA\r\nx\r\n.\r\nQUIT\r\n")
    session.client_end()
    session.server(b"354 go\r\n")
    assert to_server(session) == b"DATA\r\nx\r\n.\r\nQUIT\r\n"
    session.server(b"250 queued\r\n")
    assert session.outcome is None
    session.server(b"221 bye\r\n")
    assert to_client(session) == b"354 go\r\n250 queued\r\n221 bye\r\n"
    assert session.outcome == Outcome(exitcode=0)


def test_exit_code_ends_the_session_once_its_reply_is_shown() -> None:
    session = start(b":mail::5*:7:&fixsmtpio_noop")
    session.client(b"MAIL FROM:<>\r\nRCPT TO:<>\r\n")
    session.server(b"550 no\r\n550 never seen\r\n")
    assert to_client(session) == b"550 no\r\n"
    assert session.outcome == Outcome(exitcode=7)


def test_greeting_for_an_authenticated_client() -> None:
    rules = (
        b"U:greeting::2*::235 ok\n"
        b"U:greeting::4*:14:&fixsmtpio_noop\n"
        b"U:greeting::5*:15:&fixsmtpio_noop"
    )
    for greeting, shown, code in (
        (b"220 hi", b"235 ok\r\n", None),
        (b"421 later", b"421 later\r\n", 14),
        (b"554 no", b"554 no\r\n", 15),
    ):
        session = Session(parse(rules).select({"U": ""}), Context())
        session.server(greeting + b"\r\n")
        assert to_client(session) == shown
        assert session.outcome == (None if code is None else Outcome(exitcode=code))


def test_malformed_reply_ends_the_session_with_a_well_formed_one() -> None:
    session = start()
    session.client(b"NOOP\r\n")
    session.server(b"what?\r\n")
    assert to_client(session) == answers.SERVER_MALFORMED
    assert session.outcome == Outcome()


def test_server_that_ends_owing_a_reply_is_reported() -> None:
    session = start()
    session.client(b"NOOP\r\n")
    session.server_end()
    assert session.outcome == Outcome()
    assert session.farewell(reported=False) == answers.SERVER_GONE


def test_server_that_ends_after_quit_is_not_reported() -> None:
    session = start()
    session.client(b"QUIT\r\nNOOP\r\n")
    session.server(b"221 bye\r\n")
    session.server_end()
    assert session.farewell(reported=False) == b""


def test_second_server_that_will_not_serve_is_reported() -> None:
    session = Session(parse(b"").select({}), IN_TLS)
    session.client(b"EHLO me\r\n")
    session.server(b"421 too busy\r\n")
    session.server_end()
    assert to_client(session) == b""
    assert session.farewell(reported=False) == answers.SERVER_GONE


def test_crash_behind_authup_is_left_to_authup() -> None:
    session = start(context=Context(authenticated=True))
    session.client(b"NOOP\r\n")
    session.server_end()
    assert session.farewell(reported=True) == b""
    assert session.farewell(reported=False) == answers.SERVER_GONE


def log_of(rules: bytes, *turns: tuple[bytes, bytes]) -> list[tuple[str, bytes]]:
    """Return what a session logs when client and server take turns."""
    logged: list[tuple[str, bytes]] = []
    session = Session(
        parse(rules).select({}), PLAIN, lambda mark, line: logged.append((mark, line))
    )
    for client, server in turns:
        session.client(client)
        session.server(server)
    return logged


def test_debug_log_has_each_line_of_each_kind() -> None:
    logged = log_of(
        b":noop:X :*::250 Y",
        (b"", b"220 hi\r\n"),
        (b"NOOP a\r\n", b"250 ok\r\n"),
        (b"DATA\r\na\r", b"354 go\r\n"),
        (b"\nb\r\n.\r\n", b"250 ok\r\n"),
    )
    assert logged[:2] == [("3", b"220 hi"), ("4", b"220 hi")]
    assert logged[2:6] == [("1", b"NOOP a"), ("2", b"X NOOP a"), ("3", b"250 ok"), ("4", b"250 Y")]
    assert logged[6:10] == [("1", b"DATA"), ("2", b"DATA"), ("3", b"354 go"), ("4", b"354 go")]
    assert logged[10:] == [
        ("D", b"a"),
        ("D", b"b"),
        ("D", b"."),
        ("3", b"250 ok"),
        ("4", b"250 ok"),
    ]


def test_debug_log_has_no_password() -> None:
    turns = (
        (b"", b"220 hi\r\n"),
        (b"AUTH PLAIN c2Vj\r\n", b"334 \r\n"),
        (b"c2Vj\r\n", b"235 x\r\n"),
    )
    for rules in (b"", b":auth:NOOP :*::&fixsmtpio_noop", b":auth:X:*::"):
        logged = log_of(rules, *turns[: 3 if not rules else 2])
        assert ("1", b"AUTH PLAIN ...") in logged
        assert not [line for _, line in logged if b"c2Vj" in line]


# Properties

COMMANDS = st.sampled_from(
    [b"EHLO me\r\n", b"NOOP\r\n", b"mail from:<a@b>\n", b"RCPT TO:<c@d>\r\n", b"DATA\r\n"]
    + [b"text\r\n", b".\r\n", b"..x\r\n", b"RSET\r\n", b"AUTH LOGIN\r\n", b"HELP\r\n", b"\r\n"]
    + [b"BDAT 4\r\n", b"QUIT\r\n", b"\r", b"\n", b"\0", b"x" * 5000, b"STARTTLS\r\n", b"\xff\r\n"]
)
REPLIES = st.sampled_from(
    [b"250 ok\r\n", b"250-a\r\n", b"354 go\r\n", b"550 no\r\n", b"334 \r\n", b"221 bye\n"]
    + [b"421 x\r\n", b"250-CHUNKING\r\n", b"junk\r\n", b"250", b"\r\n", b"250 \r x\r\n"]
)
RULE_LINES = st.sampled_from(
    [b":ehlo::2*::&fixsmtpio_fixup", b":help::*::&fixsmtpio_fixup", b":ehlo::250?A*::"]
    + [b":noop::*::hello", b":noop::*::", b":data::354*::550 no", b":data::5*::354 yes"]
    + [b":mail:NOOP :*::250 fine", b":rcpt:DATA :*::", b":rset:AUTH :*::", b":quit::*:3:221"]
    + [b":timeout::*:16:", b":clienteof::*:0:", b":greeting::*::235 ok", b":auth:NOOP :*::502 no"]
    + [b":in_data::*::&fixsmtpio_noop", b":help::[a*::x", b":starttls:NOOP :*::2", b":\xff::*::y"]
)


def is_well_formed(output: bytes) -> bool:
    """Tell whether output is a sequence of complete replies (RFC 5321, 4.2)."""
    if not output:
        return True
    *lines, rest = output.split(b"\r\n")
    return (
        rest == b""
        and not any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines)
        and all(line[:3].isdigit() and line[0] in b"2345" for line in lines)
        and all(line[3:4] in (b" ", b"-") for line in lines)
        and lines[-1][3:4] == b" "
    )


@settings(deadline=None)
@given(
    st.lists(RULE_LINES, max_size=6),
    st.lists(st.tuples(st.booleans(), st.one_of(COMMANDS, REPLIES)), max_size=30),
    st.sampled_from([Context(), AVAILABLE, REQUIRED, IN_TLS]),
)
def test_nothing_crashes_or_makes_a_malformed_reply(
    rules: list[bytes], inputs: list[tuple[bool, bytes]], context: Context
) -> None:
    session = Session(parse(b"\n".join(rules)).select({}), context)
    for from_client, data in inputs:
        (session.client if from_client else session.server)(data)
        assert is_well_formed(to_client(session))
    session.client_end()
    session.server_end()
    assert is_well_formed(to_client(session))
    assert session.outcome is not None


class Scripted:
    """A server that answers each command by its verb, and reads messages."""

    def __init__(self, refuse_data: bool) -> None:
        self._refuse_data = refuse_data
        self._in_message = False
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        replies = []
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        for line in lines:
            if self._in_message:
                if line == b".":
                    self._in_message = False
                    replies.append(b"250 queued\r\n")
            elif line.upper() == b"DATA" and not self._refuse_data:
                self._in_message = True
                replies.append(b"354 go\r\n")
            elif line.upper() == b"AUTH LOGIN":
                replies.append(b"334 who\r\n")
            else:
                replies.append(b"250-" + line[:10] + b"\r\n250 done\r\n")
        return b"".join(replies)


def converse(
    stream: bytes, cuts: list[int], rules: bytes, refuse_data: bool
) -> tuple[bytes, bytes, Outcome | None]:
    """Return what server and client have read, and how it ended."""
    session = Session(parse(rules).select({}), REQUIRED._replace(in_tls=True))
    session.server(b"220 hi\r\n")
    server = Scripted(refuse_data)
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    seen, shown = b"", b""
    for start_at, end_at in pairwise(places):
        if start_at < end_at:
            session.client(stream[start_at:end_at])
        while sent := to_server(session):
            seen += sent
            session.server(server.feed(sent))
        shown += to_client(session)
    session.client_end()
    session.server_end()
    return seen, shown + to_client(session), session.outcome


@settings(deadline=None)
@given(
    st.lists(COMMANDS, max_size=20).map(b"".join),
    st.lists(st.integers(0, 2000), max_size=20),
    st.lists(RULE_LINES, max_size=4).map(b"\n".join),
    st.booleans(),
)
def test_any_split_of_the_clients_bytes_gives_the_same_dialogue(
    stream: bytes, cuts: list[int], rules: bytes, refuse_data: bool
) -> None:
    seen, shown, outcome = converse(stream, cuts, rules, refuse_data)
    whole_seen, whole_shown, whole_outcome = converse(stream, [], rules, refuse_data)
    assert (shown, outcome) == (whole_shown, whole_outcome)
    if outcome and outcome.exitcode is not None:
        # A rule has ended it at a reply: what was pipelined behind may not have been sent.
        assert whole_seen.startswith(seen)
    else:
        assert seen == whole_seen
