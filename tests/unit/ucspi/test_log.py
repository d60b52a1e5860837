"""Log lines: one per event, whatever is in it."""

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucspi import log


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        (b"plain bytes", "plain bytes"),
        ("two\nlines\r", "two\\x0alines\\x0d"),
        ("\x1b[2J\x7f\t", "\\x1b[2J\\x7f\\x09"),
        ("é", "\\xc3\\xa9"),
        (b"\xff\x00", "\\xff\\x00"),
        (os.fsdecode(b"\xff"), "\\xff"),
    ],
)
def test_printable(text: str | bytes, shown: str) -> None:
    assert log.printable(text) == shown


@pytest.mark.parametrize(
    ("env", "suffix"),
    [
        ({}, ""),
        ({"TCPREMOTEIP": "192.0.2.1"}, " ip=192.0.2.1"),
        ({"SESSION_ID": "ab12"}, " session=ab12"),
        ({"TCPREMOTEIP": "::1", "SESSION_ID": "ab12"}, " ip=::1 session=ab12"),
        ({"TCPREMOTEIP": "", "SESSION_ID": ""}, ""),
    ],
)
def test_suffix(env: dict[str, str], suffix: str) -> None:
    assert log.session_suffix(env) == suffix


def test_event_is_one_line_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    log.event({"TCPREMOTEIP": "::1\nforged"}, "hello\nforged")
    assert capfd.readouterr() == ("", "hello\\x0aforged ip=::1\\x0aforged\n")


def test_long_event_is_cut_and_keeps_its_suffix(capfd: pytest.CaptureFixture[str]) -> None:
    log.event({"SESSION_ID": "ab12"}, "x" * 10000)
    assert capfd.readouterr().err == "x" * log.LIMIT + " session=ab12\n"


def test_log_that_cannot_be_written_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(log, "STDERR", writing)
    log.event({}, "hello")
    os.close(writing)
    log.event({}, "hello")


@given(st.one_of(st.text(), st.binary()))
def test_nothing_but_printable_ascii_comes_out(text: str | bytes) -> None:
    assert re.fullmatch(r"[ -~]*", log.printable(text))
