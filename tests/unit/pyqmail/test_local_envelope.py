"""Header lines, environment and the sender of forwarded copies."""

import pytest

from pyqmail.local import envelope
from pyqmail.local.envelope import Envelope
from pyqmail.quote import quote


def to(**changes: bytes) -> Envelope:
    base = Envelope(
        b"joe", b"/home/joe", b"joe-a-b-c-d", b"-", b"a-b-c-d", b"mx.a.example.org",
        b"sam@example.net", b"./Maildir/",
    )  # fmt: skip
    return base._replace(**changes)


def test_lines_of_a_delivery() -> None:
    assert envelope.delivered_to(to()) == b"Delivered-To: joe-a-b-c-d@mx.a.example.org\n"
    assert envelope.return_path(b"sam@example.net") == b"Return-Path: <sam@example.net>\n"
    assert envelope.return_path(b"") == b"Return-Path: <>\n"


def test_a_newline_in_an_address_forges_no_header_line() -> None:
    line = envelope.delivered_to(to(local=b"joe\nBcc: everybody"))
    assert line == b"Delivered-To: joe_Bcc: everybody@mx.a.example.org\n"
    assert envelope.return_path(b"a\nb@c").count(b"\n") == 1


@pytest.mark.parametrize(
    ("address", "quoted"),
    [
        (b"", b""),
        (b"a.b@c", b"a.b@c"),
        (b"a b@c", b'"a b"@c'),
        (b".a@c", b'".a"@c'),
        (b"a..b@c", b'"a..b"@c'),
        (b"a.@c", b'"a."@c'),
        (b"@c", b'""@c'),
        (b'a"\\b@c', b'"a\\"\\\\b"@c'),
        (b"a@b@c", b'"a@b"@c'),
        (b"\xc3\xa4@c", b'"\xc3\xa4"@c'),
        (b"box", b"box"),
    ],
)
def test_quoting_is_the_least_that_is_needed(address: bytes, quoted: bytes) -> None:
    assert quote(address) == quoted


def test_from_line_has_no_blanks_in_the_sender_and_a_utc_date() -> None:
    assert envelope.mbox_from(b"a b\tc\nd@e", 841_000_009) == (
        b"From a-b-c-d@e Sun Aug 25 19:06:49 1996\n"
    )
    assert (
        envelope.mbox_from(b"", 1_000_000_000) == b"From MAILER-DAEMON Sun Sep 09 01:46:40 2001\n"
    )


def test_environment_has_the_variables_of_qmail_command() -> None:
    found = envelope.environment(to(), 0)
    assert found == {
        b"USER": b"joe",
        b"HOME": b"/home/joe",
        b"LOCAL": b"joe-a-b-c-d",
        b"HOST": b"mx.a.example.org",
        b"HOST2": b"mx.a.example",
        b"HOST3": b"mx.a",
        b"HOST4": b"mx",
        b"EXT": b"a-b-c-d",
        b"EXT2": b"b-c-d",
        b"EXT3": b"c-d",
        b"EXT4": b"d",
        b"RECIPIENT": b"joe-a-b-c-d@mx.a.example.org",
        b"SENDER": b"sam@example.net",
        b"DTLINE": b"Delivered-To: joe-a-b-c-d@mx.a.example.org\n",
        b"RPLINE": b"Return-Path: <sam@example.net>\n",
        b"UFLINE": b"From sam@example.net Thu Jan 01 00:00:00 1970\n",
    }


def test_shorter_names_stay_what_they_are() -> None:
    found = envelope.environment(to(ext=b"a", host=b"localhost"), 0)
    assert (found[b"EXT2"], found[b"EXT4"]) == (b"", b"")
    assert (found[b"HOST2"], found[b"HOST4"]) == (b"localhost", b"localhost")


@pytest.mark.parametrize(
    ("sender", "owner", "owner_default", "expected"),
    [
        (b"s@x", False, False, b"s@x"),
        (b"s@x", True, False, b"joe-a-b-c-d-owner@mx.a.example.org"),
        (b"s@x", True, True, b"joe-a-b-c-d-owner-@mx.a.example.org-@[]"),
        (b"s@x", False, True, b"s@x"),
        (b"", True, True, b""),
        (b"#@[]", True, True, b"#@[]"),
    ],
)
def test_owner_files_choose_the_new_sender(
    sender: bytes, owner: bool, owner_default: bool, expected: bytes
) -> None:
    found = envelope.new_sender(to(sender=sender), owner=owner, owner_default=owner_default)
    assert found == expected
