"""Replies: reading them, changing them, writing them well-formed."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptutils.fixsmtpio import reply as replies
from acceptutils.fixsmtpio.reply import Fixups, Line, MalformedReply, Reader
from acceptutils.fixsmtpio.rules import parse

PLAIN = Fixups(b"mail.example.org", offer_starttls=False)
OFFERING = Fixups(b"mail.example.org", offer_starttls=True)


def changed(
    rules: bytes,
    event: bytes,
    *reply: bytes,
    fixups: Fixups = PLAIN,
    env: dict[str, str] | None = None,
) -> bytes:
    selection = parse(rules).select(env or {})
    return replies.render(replies.change(list(reply), event, selection, fixups).lines)


def exitcode(rules: bytes, event: bytes, *reply: bytes) -> int | None:
    return replies.change(list(reply), event, parse(rules).select({}), PLAIN).exitcode


def test_no_rule_leaves_a_reply() -> None:
    assert changed(b"", b"noop", b"250 ok") == b"250 ok\r\n"
    assert changed(b":helo::*::250 x", b"noop", b"250 ok") == b"250 ok\r\n"


def test_each_matching_line_is_replaced_and_the_others_left() -> None:
    shown = changed(b":ehlo::250?B*::250 X", b"ehlo", b"250-a", b"250-B1", b"250-c", b"250 B2")
    assert shown == b"250-a\r\n250-X\r\n250-c\r\n250 X\r\n"


def test_a_later_rule_applies_to_what_an_earlier_one_made() -> None:
    rules = b":noop::250 ok::250 first\n:noop::250 first::250 second\n:noop::250 ok::250 wrong"
    assert changed(rules, b"noop", b"250 ok") == b"250 second\r\n"


def test_a_deleted_line_is_gone_for_later_rules() -> None:
    assert changed(b":noop::*::\n:noop::*::250 back", b"noop", b"250 ok") == b""


def test_noop_leaves_the_line() -> None:
    assert changed(b":noop::*::&fixsmtpio_noop", b"noop", b"250 ok") == b"250 ok\r\n"


def test_last_exit_code_wins() -> None:
    rules = b":mail::2*:3:&fixsmtpio_noop\n:mail::*:4:&fixsmtpio_noop\n:mail::5*:5:&fixsmtpio_noop"
    assert exitcode(rules, b"mail", b"250 ok") == 4
    assert exitcode(rules, b"mail", b"550 no") == 5
    assert exitcode(rules, b"rcpt", b"250 ok") is None


def test_deleting_the_last_line_leaves_a_last_line() -> None:
    assert (
        changed(b":ehlo::250 C::", b"ehlo", b"250-A", b"250-B", b"250 C") == b"250-A\r\n250 B\r\n"
    )


def test_response_without_a_code_gets_the_code_it_replaces() -> None:
    assert changed(b":noop::*::hello", b"noop", b"250 ok") == b"250 hello\r\n"


def test_response_without_a_blank_behind_its_code_gets_one() -> None:
    assert changed(b":noop::*::550", b"noop", b"250 ok") == b"550 \r\n"
    assert changed(b":noop::*::550no", b"noop", b"250 ok") == b"550 no\r\n"
    assert changed(b":noop::*::550-no", b"noop", b"250 ok") == b"550 no\r\n"


@pytest.mark.parametrize(
    ("event", "server", "client"),
    [
        (b"greeting", b"220 server hi", b"220 mail.example.org ESMTP\r\n"),
        (b"helo", b"250 server", b"250 mail.example.org\r\n"),
        (b"quit", b"221 server bye", b"221 mail.example.org\r\n"),
        (b"ehlo", b"250 server", b"250 mail.example.org\r\n"),
    ],
)
def test_fixup_puts_our_name_in_the_first_line(event: bytes, server: bytes, client: bytes) -> None:
    assert changed(b":" + event + b"::2*::&fixsmtpio_fixup", event, server) == client


def test_fixup_of_ehlo_leaves_the_other_lines() -> None:
    shown = changed(b":ehlo::*::&fixsmtpio_fixup", b"ehlo", b"250-server", b"250-SIZE 9", b"250 X")
    assert shown == b"250-mail.example.org\r\n250-SIZE 9\r\n250 X\r\n"


def test_fixup_of_ehlo_drops_the_servers_starttls_and_offers_ours() -> None:
    rules = b":ehlo::2*::&fixsmtpio_fixup"
    server = (b"250-server", b"250-PIPELINING", b"250 StartTLS")
    assert changed(rules, b"ehlo", *server) == b"250-mail.example.org\r\n250 PIPELINING\r\n"
    assert (
        changed(rules, b"ehlo", *server, fixups=OFFERING)
        == b"250-mail.example.org\r\n250-STARTTLS\r\n250 PIPELINING\r\n"
    )


def test_fixup_of_ehlo_offers_starttls_to_a_reply_of_one_line() -> None:
    shown = changed(b":ehlo::2*::&fixsmtpio_fixup", b"ehlo", b"250 server", fixups=OFFERING)
    assert shown == b"250-mail.example.org\r\n250 STARTTLS\r\n"


def test_two_fixups_of_ehlo_offer_starttls_once() -> None:
    rules = b":ehlo::2*::&fixsmtpio_fixup\n:ehlo::2*::&fixsmtpio_fixup"
    shown = changed(rules, b"ehlo", b"250 server", fixups=OFFERING)
    assert shown == b"250-mail.example.org\r\n250 STARTTLS\r\n"


def test_a_rule_can_take_our_starttls_away() -> None:
    rules = b":ehlo::2*::&fixsmtpio_fixup\n:ehlo::250?STARTTLS*::"
    assert changed(rules, b"ehlo", b"250 s", fixups=OFFERING) == b"250 mail.example.org\r\n"


def test_fixup_of_help_puts_one_line_in_front() -> None:
    shown = changed(b":help::*::&fixsmtpio_fixup", b"help", b"214-one", b"214 two")
    assert shown == (
        b"214-fixsmtpio home page: https://schmonz.com/qmail/acceptutils\r\n214-one\r\n214 two\r\n"
    )


def test_refusals_are_not_fixed_up_by_a_glob_for_success() -> None:
    assert changed(b":ehlo::2*::&fixsmtpio_fixup", b"ehlo", b"502 no") == b"502 no\r\n"


def test_withheld_extensions_are_not_announced_but_the_first_line_stays() -> None:
    lines = [Line(0, b"250-CHUNKING"), Line(1, b"250-Chunking"), Line(2, b"250 AUTH=LOGIN")]
    kept = replies.withhold(lines, frozenset((b"CHUNKING", b"AUTH")))
    assert replies.render(kept) == b"250 CHUNKING\r\n"


# Reading


def read(*chunks: bytes) -> list[list[bytes]]:
    reader = Reader()
    return [reply for chunk in chunks for reply in reader.feed(chunk)]


def test_reader_joins_lines_to_replies() -> None:
    assert read(b"250-a\r\n250 b\r\n221 c\n354\r\n") == [[b"250-a", b"250 b"], [b"221 c"], [b"354"]]


@pytest.mark.parametrize(
    "junk", [b"hello\r\n", b"\r\n", b"25 \r\n", b"2500 x\r\n", b"650 x\r\n", b"250-a\r\nwhat\r\n"]
)
def test_reader_refuses_what_is_no_reply(junk: bytes) -> None:
    with pytest.raises(MalformedReply):
        read(junk)


def test_reader_refuses_a_line_without_end() -> None:
    with pytest.raises(MalformedReply):
        read(b"250 ", *[b"x" * 4096] * 2)


def test_reader_refuses_a_reply_without_end() -> None:
    with pytest.raises(MalformedReply):
        read(*[b"250-" + b"x" * 1000 + b"\r\n"] * 100)


def test_reader_disarms_a_bare_cr_and_nul() -> None:
    assert read(b"250 a\r250 b\0\r\n") == [[b"250 a?250 b?"]]


def test_reader_keeps_a_last_line_without_its_end() -> None:
    reader = Reader()
    assert list(reader.feed(b"250-a\r\n250 b")) == []
    assert reader.end() == [b"250-a", b"250 b"]
    assert list(reader.feed(b"250-a")) == []
    assert reader.end() is None


CODES = st.sampled_from([b"220", b"250", b"354", b"421", b"550"])
REPLY_LINES = st.tuples(CODES, st.sampled_from([b" ", b"-"]), st.binary(max_size=20)).map(
    lambda parts: b"".join(parts).replace(b"\n", b"").replace(b"\r", b"")
)


@given(st.lists(REPLY_LINES, max_size=20), st.lists(st.integers(0, 400)))
def test_any_split_reads_the_same_replies(lines: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(line + b"\r\n" for line in lines)
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    chunks = [stream[a:b] for a, b in pairwise(places)]
    assert read(*chunks) == read(stream)
