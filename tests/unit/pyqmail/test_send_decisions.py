"""What qmail-send decides without a process: routes, times, bounces, log lines."""

from collections.abc import Callable

import pytest

from pyqmail.send import bounce
from pyqmail.send.controls import Identity
from pyqmail.send.log import safe
from pyqmail.send.routing import Route, Routing
from pyqmail.send.schedule import LOCAL, REMOTE, Due, next_retry

ROUTING = Routing(
    [b"localhost", b"Example.ORG"],
    [
        b"v.example:virt",
        b"ann@u.example:ann-list",
        b"u.example:users",
        b".wild.example:wild",
        b"not.wild.example:",
        b"Upper.Example:up",
        b"no colon",
        b"colon.example:a:b",
    ],
    [b"hack.example", b"more.example"],
    b"no-at.example",
)


@pytest.mark.parametrize(
    ("recipient", "channel", "address"),
    [
        (b"a@example.org", LOCAL, b"a@example.org"),
        (b"A@EXAMPLE.org", LOCAL, b"A@EXAMPLE.org"),
        (b"a@sub.example.org", REMOTE, b"a@sub.example.org"),
        (b"a", REMOTE, b"a@no-at.example"),
        (b"", REMOTE, b"@no-at.example"),
        (b"a@b@localhost", LOCAL, b"a@b@localhost"),
        (b"a@v.example", LOCAL, b"virt-a@v.example"),
        (b"a@V.Example", LOCAL, b"virt-a@V.Example"),
        (b"a@upper.example", LOCAL, b"up-a@upper.example"),
        (b"a@x.v.example", REMOTE, b"a@x.v.example"),
        (b"ann@u.example", LOCAL, b"ann-list-ann@u.example"),
        (b"Ann@u.example", LOCAL, b"ann-list-Ann@u.example"),
        (b"bob@u.example", LOCAL, b"users-bob@u.example"),
        (b"a@wild.example", REMOTE, b"a@wild.example"),
        (b"a@x.wild.example", LOCAL, b"wild-a@x.wild.example"),
        (b"a@x.y.wild.example", LOCAL, b"wild-a@x.y.wild.example"),
        (b"a@not.wild.example", REMOTE, b"a@not.wild.example"),
        (b"a@x.not.wild.example", LOCAL, b"wild-a@x.not.wild.example"),
        (b"a@no colon", REMOTE, b"a@no colon"),
        (b"a@colon.example", LOCAL, b"a:b-a@colon.example"),
        (b"a%example.org@hack.example", LOCAL, b"a@example.org"),
        (b"a%x.example%more.example@HACK.example", REMOTE, b"a@x.example"),
        (b"a@hack.example", REMOTE, b"a@hack.example"),
        (b"a%b@example.org", LOCAL, b"a%b@example.org"),
    ],
)
def test_routes(recipient: bytes, channel: int, address: bytes) -> None:
    assert ROUTING.route(recipient) == Route(channel, address)


def test_catch_all() -> None:
    routing = Routing([b"here"], [b":all", b"not.example:"])
    assert routing.route(b"a@x.example") == Route(LOCAL, b"all-a@x.example")
    assert routing.route(b"a@not.example") == Route(REMOTE, b"a@not.example")
    assert routing.route(b"a@here") == Route(LOCAL, b"a@here")


@pytest.mark.parametrize(
    ("address", "known_as"),
    [
        (b"virt-a@v.example", b"a@v.example"),
        (b"wild-a@x.wild.example", b"a@x.wild.example"),
        (b"other-a@v.example", b"other-a@v.example"),
        (b"virta@v.example", b"virta@v.example"),
        (b"a@not.wild.example", b"a@not.wild.example"),
        (b"nobody", b"nobody"),
    ],
)
def test_bounces_name_the_address_the_sender_used(address: bytes, known_as: bytes) -> None:
    assert ROUTING.without_prepend(address) == known_as


@pytest.mark.parametrize(
    ("age", "channel", "due"),
    [
        (0, LOCAL, 100),
        (0, REMOTE, 400),
        (100, LOCAL, 400),
        (400, REMOTE, 1600),
        (399, REMOTE, 39**2),
        (1600, REMOTE, 3600),
        (-5, LOCAL, 100),
    ],
)
def test_the_nth_retry_is_the_square_of_n_times_ten_or_twenty(
    age: int, channel: int, due: int
) -> None:
    assert next_retry(1_000_000, 1_000_000 + age, channel) - 1_000_000 == due


def test_messages_come_in_the_order_they_are_due() -> None:
    due = Due()
    due.extend([(30, 3), (10, 1)])
    due.add(20, 2)
    assert (due.first(), len(due)) == (10, 3)
    assert [due.take(20), due.take(20), due.take(20)] == [1, 2, None]
    due.all_due(5)
    assert due.take(5) == 3
    assert due.first() is None


@pytest.mark.parametrize(
    ("sender", "recipient", "becomes"),
    [
        (b"list-@host-@[]", b"a@b", b"list-a=b@host"),
        (b"list-@host-@[]", b"a@x@b", b"list-a@x=b@host"),
        (b"l@x-@host-@[]", b"a@b", b"l@x-a=b@host"),
        (b"list-@host-@[]", b"a", b"list-@host-@[]"),
        (b"nohost-@[]", b"a@b", b"nohost-@[]"),
        (b"-@[]", b"a@b", b"-@[]"),
        (b"#@[]", b"a@b", b"#@[]"),
        (b"", b"a@b", b""),
        (b"joe@host", b"a@b", b"joe@host"),
    ],
)
def test_verp(sender: bytes, recipient: bytes, becomes: bytes) -> None:
    assert bounce.verp(sender, recipient) == becomes


IDENTITY = Identity(b"MAILER-DAEMON", b"mx.example.org", b"postmaster@mx.example.org")
DISCARDING = IDENTITY._replace(double_bounce_to=b"@mx.example.org")


@pytest.mark.parametrize(
    ("sender", "identity", "plan"),
    [
        (b"joe@x", IDENTITY, bounce.Plan(b"joe@x", None, b"", b"joe@x")),
        (b"l-@x-@[]", IDENTITY, bounce.Plan(b"l-@x", None, b"", b"l-@x")),
        (b"", IDENTITY, bounce.Plan(b"", None, b"#@[]", b"postmaster@mx.example.org")),
        (b"", DISCARDING, bounce.Plan(b"", b"double", b"", b"")),
        (b"joe@x", DISCARDING, bounce.Plan(b"joe@x", None, b"", b"joe@x")),
        (b"#@[]", IDENTITY, bounce.Plan(b"#@[]", b"triple", b"", b"")),
    ],
)
def test_to_whom_failures_are_reported(
    sender: bytes, identity: Identity, plan: bounce.Plan
) -> None:
    assert bounce.plan(sender, identity) == plan


def test_a_recipient_cannot_write_lines_into_the_bounce() -> None:
    assert bounce.paragraph(b"a\n<b@c>:\nfine\n@d", b"no\n") == b"<a_<b@c>:_fine_@d>:\nno\n\n"


@pytest.mark.parametrize(
    ("report", "paragraph"),
    [
        (b"no\n", b"<a@b>:\nno\n\n"),
        (b"no", b"<a@b>:\nno\n\n"),
        (b"", b"<a@b>:\n\n"),
        (b"no\n\nx\n", b"<a@b>:\nno\n/x\n\n"),
        (b"\nx\n", b"<a@b>:\n/x\n\n"),
        (b"no\n\n\n", b"<a@b>:\nno\n/\n\n"),
    ],
)
def test_a_paragraph_has_no_blank_line_inside(report: bytes, paragraph: bytes) -> None:
    assert bounce.paragraph(b"a@b", report) == paragraph


def test_odd_addresses_are_quoted_in_the_header() -> None:
    what = bounce.plan(b"joe smith@x", IDENTITY)
    head = bounce.head(what, IDENTITY._replace(bounce_from=b"Mail System"), 0)
    assert b'\nFrom: "Mail System"@mx.example.org\nTo: "joe smith"@x\n' in head
    assert bounce.tail(what).endswith(b'Return-Path: <"joe smith"@x>\n')


@pytest.mark.parametrize("make", [lambda text: text, bytes])
def test_log_lines_keep_to_visible_ascii(make: Callable[[bytes], bytes]) -> None:
    assert safe(make(b"a b\nc%d\t\x00\x7f\xff~!")) == b"a_b/c_d____~!"
