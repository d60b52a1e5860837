"""The grammar of control/fixsmtpio."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptutils.fixsmtpio.rules import RuleError, Rules, parse, parse_line

SHIPPED = Path(__file__).parents[3] / "templates" / "control" / "fixsmtpio.j2"

MISTAKES = [
    (b"a:b", 1, 4, "2 of 6 fields"),
    (b":helo::*:", 1, 10, "5 of 6 fields"),
    (b"# fine\n\n:helo::*::\nwrong", 4, 6, "1 of 6 fields"),
    (b"ENV:::*::", 1, 5, "no event"),
    (b":helo::::", 1, 8, "no response-line-glob"),
    (b":helo::*:x:", 1, 10, "not a number"),
    (b":helo::*:12abc:", 1, 10, "not a number"),
    (b":helo::*:-1:", 1, 10, "not a number"),
    (b":helo::*: 1:", 1, 10, "not a number"),
    (b":helo::*:256:", 1, 10, "0 to 255"),
    (b":helo::*:" + b"9" * 5000 + b":", 1, 10, "0 to 255"),
    (b":clienteof::*::bye", 1, 16, "clienteof"),
    (b":CLIENTEOF::*::bye", 1, 16, "clienteof"),
    (b":mail::*::&fixsmtpio_fixup", 1, 11, "no fixup"),
    (b":timeout::*::&fixsmtpio_fixup", 1, 14, "no fixup"),
    (b":helo::*::&fixsmtpio_fix", 1, 11, "unknown"),
    (b":helo::*::&fixsmtpio", 1, 11, "unknown"),
    (b":helo::*::&fixsmtpio_noop_not", 1, 11, "unknown"),
    (b":helo::*::250 a\0b", 1, 16, "NUL"),
    (b":helo::*::250 a\rb", 1, 16, "carriage return"),
    (b":helo:NOOP\r :*::", 1, 11, "carriage return"),
]


@pytest.mark.parametrize(("content", "line", "column", "reason"), MISTAKES)
def test_mistake_is_refused_with_its_place(
    content: bytes, line: int, column: int, reason: str
) -> None:
    with pytest.raises(RuleError) as caught:
        parse(content)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert reason in caught.value.reason


def test_all_fields_of_a_rule() -> None:
    rule = parse_line(b"AUTHUP_USER:Auth:NOOP :250*:7:502 see http://example.org/: no", 9)
    assert rule.line == 9
    assert rule.env == "AUTHUP_USER"
    assert rule.event == b"auth"
    assert rule.prepend == b"NOOP "
    assert rule.glob.pattern == b"250*"
    assert rule.exitcode == 7
    assert rule.response == b"502 see http://example.org/: no"


@pytest.mark.parametrize(("field", "code"), [(b"", None), (b"0", 0), (b"255", 255), (b"007", 7)])
def test_exitcode(field: bytes, code: int | None) -> None:
    assert parse_line(b":helo::*:" + field + b":").exitcode == code


def test_comments_and_blank_lines_are_skipped_and_trailing_blanks_stripped() -> None:
    parsed = parse(b"# :helo\n\n  \t\n:helo::*::250 hi \t\r\n:quit::*::")
    assert [rule.line for rule in parsed.rules] == [4, 5]
    assert parsed.rules[0].response == b"250 hi"


def test_a_comment_may_not_be_indented() -> None:
    with pytest.raises(RuleError):
        parse(b" # not a comment")


def test_empty_file_has_no_rules() -> None:
    assert parse(b"") == Rules(())


def test_rules_hold_only_with_their_variable_set_even_if_empty() -> None:
    parsed = parse(b"A:noop::*::1\nB:noop::*::2\n:noop::*::3")
    held = parsed.select({"B": "", "C": "x"}).replies[b"noop"]
    assert [rule.response for rule in held] == [b"2", b"3"]


def test_a_later_prepend_comes_first() -> None:
    parsed = parse(b":mail:A :*::\n:mail:B :*::\nNOT:mail:C :*::")
    assert parsed.select({}).prepend(b"mail") == b"B A "
    assert parsed.select({}).prepend(b"rcpt") == b""


def test_shipped_file_parses() -> None:
    parsed = parse(SHIPPED.read_bytes())
    assert {rule.exitcode for rule in parsed.rules} == {None, 0, 14, 15, 16}
    assert parsed.need_greeting()


@given(
    st.binary(max_size=200) | st.lists(st.sampled_from(list(b":*0a\n&# ")), max_size=80).map(bytes)
)
def test_any_bytes_parse_or_are_refused_within_the_file(content: bytes) -> None:
    try:
        parse(content)
    except RuleError as error:
        lines = content.split(b"\n")
        assert 1 <= error.line <= len(lines)
        assert 1 <= error.column <= len(lines[error.line - 1]) + 1
