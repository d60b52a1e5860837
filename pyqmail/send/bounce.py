"""Bounces: what a failure leaves in bounce/N, and the message made of it.

The form is QSBMF (the qmail-send Bounce Message Format); programs parse it, so the
words are netqmail's.
"""

from collections.abc import Iterable
from typing import NamedTuple

from pyqmail.quote import quote, quote_box
from pyqmail.received import date822
from pyqmail.send.controls import Identity

VERP = b"-@[]"  # at the end of a sender: an address per recipient (qmail-send(8))
DOUBLE_BOUNCE_SENDER = b"#@[]"

TOO_OLD = b"I'm not going to try again; this message has been in the queue too long.\n"

_INTRODUCTION = (
    b"Hi. This is the qmail-send program at %s.\n"
    b"I'm afraid I wasn't able to deliver your message to the following addresses.\n"
    b"This is a permanent error; I've given up. Sorry it didn't work out.\n\n"
)
_DOUBLE_INTRODUCTION = (
    b"Hi. This is the qmail-send program at %s.\n"
    b"I tried to deliver a bounce message to this address, but the bounce bounced!\n\n"
)
_BREAK = b"--- Below this line is a copy of the message.\n\n"
_DOUBLE_BREAK = b"--- Below this line is the original bounce.\n\n"


class Plan(NamedTuple):
    """What is to be done with the failures of a message."""

    sender: bytes  # of the message, without VERP's mark
    discard: bytes | None  # the log's word for it when they are thrown away
    bounce_sender: bytes
    bounce_recipient: bytes


def verp(sender: bytes, recipient: bytes) -> bytes:
    """Return the sender under which a message goes to recipient.

    ``owner-@host-@[]`` becomes ``owner-box=domain@host`` for ``box@domain``.
    """
    if not sender.endswith(VERP):
        return sender
    box, at, host = sender[: -len(VERP)].rpartition(b"@")
    recipient_box, recipient_at, recipient_domain = recipient.rpartition(b"@")
    if not at or not recipient_at:
        return sender
    return box + recipient_box + b"=" + recipient_domain + b"@" + host


def without_verp(sender: bytes) -> bytes:
    """Return the sender to whom failures of all recipients together are reported."""
    return sender.removesuffix(VERP)


def plan(sender: bytes, identity: Identity) -> Plan:
    """Decide to whom the failures of a message from sender are reported."""
    sender = without_verp(sender)
    if sender == DOUBLE_BOUNCE_SENDER:
        return Plan(sender, b"triple", b"", b"")
    if sender:
        return Plan(sender, None, b"", sender)
    if identity.double_bounce_to.startswith(b"@"):
        return Plan(sender, b"double", b"", b"")
    return Plan(sender, None, DOUBLE_BOUNCE_SENDER, identity.double_bounce_to)


def paragraph(recipient: bytes, report: bytes) -> bytes:
    """Return what a failure adds to bounce/N: one QSBMF recipient paragraph.

    Blank lines inside would end the paragraph, so ``/`` takes the place of their LF; and a
    recipient with an LF in it must not write lines of its own.
    """
    text = bytearray(b"<" + recipient.replace(b"\n", b"_") + b">:\n" + report)
    if not report.endswith(b"\n") and report:
        text += b"\n"
    for at in range(len(text) - 2, 0, -1):
        if text[at] == text[at - 1] == 10:
            text[at] = ord("/")
    return bytes(text) + b"\n"


def head(what: Plan, identity: Identity, seconds: float) -> bytes:
    """Return the bounce up to the recipient paragraphs."""
    header = b"Date: %s\nFrom: %s@%s\nTo: %s\nSubject: failure notice\n\n" % (
        date822(seconds),
        quote_box(identity.bounce_from),
        identity.bounce_host,
        quote(what.bounce_recipient),
    )
    introduction = _INTRODUCTION if what.sender else _DOUBLE_INTRODUCTION
    return header + introduction % identity.bounce_host


def tail(what: Plan) -> bytes:
    """Return what stands between the recipient paragraphs and the original message."""
    separator = _BREAK if what.sender else _DOUBLE_BREAK
    return separator + b"Return-Path: <" + quote(what.sender) + b">\n"


def compose(
    what: Plan, identity: Identity, seconds: float, paragraphs: bytes, message: Iterable[bytes]
) -> Iterable[bytes]:
    """Yield the whole bounce, in pieces."""
    yield head(what, identity, seconds)
    yield paragraphs
    yield tail(what)
    yield from message
