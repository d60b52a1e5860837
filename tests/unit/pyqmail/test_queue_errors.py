"""Exit statuses, netqmail's words for them, and SMTP replies."""

import pytest

from pyqmail.queue.errors import CRASHED, Result, message_for, reply_for


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, b""),
        (11, b"Denvelope address too long for qq (#5.1.3)"),
        (31, b"Dmail server permanently rejected message (#5.3.0)"),
        (33, b"Dqq permanent problem (#5.3.0)"),
        (40, b"Dqq permanent problem (#5.3.0)"),
        (41, b"Zqq temporary problem (#4.3.0)"),
        (53, b"Zqq write error or disk full (#4.3.0)"),
        (66, b"Zqq trouble creating files in queue (#4.3.0)"),
        (74, b"Zcommunication with mail server failed (#4.4.2)"),
        (81, b"Zqq internal bug (#4.3.0)"),
        (91, b"Zqq internal bug (#4.3.0)"),
        (120, b"Zunable to exec qq (#4.3.0)"),
        (255, b"Zqq temporary problem (#4.3.0)"),
        (CRASHED, b"Zqq crashed (#4.3.0)"),
    ],
)
def test_texts(status: int, text: bytes) -> None:
    assert message_for(status) == text


@pytest.mark.parametrize(
    ("result", "reply"),
    [
        (Result(31, 1), b"554 mail server permanently rejected message (#5.3.0)"),
        (Result(53, 1), b"451 qq write error or disk full (#4.3.0)"),
        (Result(82, 1, b"Dspam (#5.7.1)\n"), b"554 spam (#5.7.1)"),
        (Result(82, 1, b"Zgreylisted"), b"451 greylisted"),
        (Result(82, 1, b""), b"451 qq temporary problem (#4.3.0)"),
        (Result(82, 1, b"250 ok"), b"451 qq temporary problem (#4.3.0)"),
        (Result(31, 1, b"Dnot for this status"), b"554 mail server permanently rejected message"),
    ],
)
def test_replies(result: Result, reply: bytes) -> None:
    assert reply_for(result).startswith(reply)


def test_a_custom_text_cannot_forge_a_reply() -> None:
    assert reply_for(Result(82, 1, b"Da\rb\x1b[1m\xff\n250 ok")) == b"554 a?b?[1m?"
    assert len(reply_for(Result(82, 1, b"D" + b"x" * 1000))) <= 510


def test_queued_is_no_error() -> None:
    with pytest.raises(ValueError, match="queued"):
        reply_for(Result(0, 1))
