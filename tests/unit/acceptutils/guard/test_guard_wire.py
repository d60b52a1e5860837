"""The records between broker and guard, and the lines of the event stream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptutils.guard import events, wire
from acceptutils.guard.wire import Answer, Question, WireError

WORD = st.binary(max_size=64).map(lambda raw: raw.replace(b"\0", b""))


@given(WORD, WORD, WORD)
def test_question_arrives_as_it_was(service: bytes, address: bytes, account: bytes) -> None:
    question = Question(service, address, account)
    assert wire.parse_question(wire.pack_question(question)) == question


def test_what_is_too_long_is_cut() -> None:
    question = wire.parse_question(
        wire.pack_question(Question(b"s" * 999, b"a" * 999, b"u" * 9999))
    )
    assert tuple(map(len, question)) == (64, 64, 320)


@pytest.mark.parametrize(
    "record", [b"", b"a\0b\0", b"a\0b\0c", b"a\0b\0c\0d", b"a\0b\0c\0\0", b"x" * 452 + b"\0\0\0"]
)
def test_what_is_no_question(record: bytes) -> None:
    with pytest.raises(WireError):
        wire.parse_question(record)


@pytest.mark.parametrize("answer", [Answer(False, 0), Answer(True, 16000), Answer(False, 60000)])
def test_answer_arrives_as_it_was(answer: Answer) -> None:
    assert wire.parse_answer(wire.pack_answer(answer)) == answer


@pytest.mark.parametrize("record", [b"", b"+", b"x1", b"+-1", b"+ 1", b"+60001", b"+999999", b"1"])
def test_what_is_no_answer(record: bytes) -> None:
    with pytest.raises(WireError):
        wire.parse_answer(record)


def test_event_line() -> None:
    question = Question(b"pop3", b"192.0.2.1", b"alice@example.org")
    assert events.line(question, "failed", 1_700_000_000.9) == (
        b"time=2023-11-14T22:13:20Z service=pop3 ip=192.0.2.1 "
        b"account=alice@example.org outcome=failed\n"
    )


@given(st.binary(max_size=320))
def test_no_name_forges_a_field_or_a_line(account: bytes) -> None:
    line = events.line(Question(b"pop3", b"::1", account), "failed", 0)
    assert line.isascii() and line.endswith(b"\n") and line[:-1].decode().isprintable()
    names = [field.split(b"=") for field in line[:-1].split(b" ")]
    assert [name[0] for name in names] == [b"time", b"service", b"ip", b"account", b"outcome"]
    assert {len(name) for name in names} == {2}
    assert names[3][1].decode("unicode_escape").encode("latin-1") == account
