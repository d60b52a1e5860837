"""The SMTP server that takes no mail."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptutils.rblsmtpd.lists import Refusal
from acceptutils.rblsmtpd.refusing import Conversation, refusal_line

REFUSAL = Refusal(553, "go away")
NO = b"553 go away\r\n"
OK = b"250 rblsmtpd.local\r\n"
BYE = b"221 rblsmtpd.local\r\n"

DIALOGUE = (
    b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\n"
    b"rset\r\nNoOp \r\nHELP\r\nSTARTTLS\r\n\r\nhelox\r\nHELO\r\nQUIT\r\nNOOP\r\n"
)
REPLIES = OK + OK + NO + NO + OK + OK + NO + NO + NO + NO + OK + BYE


def test_recipients_hear_the_reason_and_nothing_follows_quit() -> None:
    conversation = Conversation(REFUSAL)
    assert conversation.feed(DIALOGUE) == REPLIES
    assert conversation.over


@given(st.lists(st.integers(0, len(DIALOGUE)), max_size=20))
def test_any_split_gives_the_same_replies(cuts: list[int]) -> None:
    conversation = Conversation(REFUSAL)
    places = [0, *sorted(cuts), len(DIALOGUE)]
    replies = b""
    for start, end in pairwise(places):
        if not conversation.over:
            replies += conversation.feed(DIALOGUE[start:end])
    assert replies == REPLIES


@pytest.mark.parametrize("end", [b"", b"\r\n"])
def test_a_line_without_end_is_cut(end: bytes) -> None:
    conversation = Conversation(REFUSAL)
    assert (
        conversation.feed(b"NOOP\r\n" + b"x" * 5000 + end) == OK + b"500 line too long (#5.5.2)\r\n"
    )
    assert conversation.over


def test_the_reason_is_one_line_of_ascii() -> None:
    reply = refusal_line(Refusal(451, "a\r\n250 b\x00\x7fü" + "x" * 1000))
    assert reply.startswith(b"451 a??250 b???xxx")
    assert len(reply) == 500
