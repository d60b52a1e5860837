"""The harness's patience: it waits, it ends, it gives up early and says why."""

import pytest
from harness import mail, wait


def test_it_returns_the_first_true_value() -> None:
    answers = iter([None, 0, "", "there"])
    assert wait.until("an answer", lambda: next(answers)) == "there"


def test_it_ends_at_the_deadline_and_names_what_was_awaited() -> None:
    with pytest.raises(wait.GaveUpError, match=r"a miracle: not within 0\.05 seconds"):
        wait.until("a miracle", lambda: None, seconds=0.05)


def test_it_gives_up_early_with_the_reason() -> None:
    with pytest.raises(wait.GaveUpError, match="the container is gone"):
        wait.until("mail", lambda: None, seconds=60, give_up=lambda: "the container is gone")


def test_every_composed_message_can_be_told_from_the_others() -> None:
    first, second = (mail.compose("a@x.example", "b@x.example") for _ in range(2))
    assert first.token != second.token
    assert first.body == second.body == mail.body_of(first.raw)


def test_header_unfolds_and_keeps_the_order() -> None:
    raw = b"Received: one\r\n\ttwo\r\nSubject: s\r\nreceived: three\r\n\r\nReceived: body\r\n"
    assert mail.header(raw, "Received") == [b"one two", b"three"]
