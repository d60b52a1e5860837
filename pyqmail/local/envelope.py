"""What qmail-local derives from its arguments: header lines, environment, new sender.

Pure functions. The reference is qmail-local(8), dot-qmail(5) and qmail-command(8).
"""

import time
from typing import NamedTuple

from pyqmail.quote import quote

_DAYS = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_MONTHS = (
    *(b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun"),
    *(b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"),
)

# Senders that are not rewritten for a mailing list: a bounce's and a double bounce's.
BOUNCE_SENDERS = (b"", b"#@[]")


class Envelope(NamedTuple):
    """The arguments of qmail-local, in its order."""

    user: bytes
    home: bytes
    local: bytes
    dash: bytes
    ext: bytes
    host: bytes
    sender: bytes
    default_delivery: bytes

    @property
    def recipient(self) -> bytes:
        """The address that the message is for."""
        return self.local + b"@" + self.host


def delivered_to(envelope: Envelope) -> bytes:
    """Return the Delivered-To line. A newline in the address cannot forge a second line."""
    return b"Delivered-To: " + envelope.recipient.replace(b"\n", b"_") + b"\n"


def return_path(sender: bytes) -> bytes:
    """Return the Return-Path line."""
    return b"Return-Path: <" + quote(sender).replace(b"\n", b"_") + b">\n"


def mbox_from(sender: bytes, when: float) -> bytes:
    """Return the From_ line of mbox(5) for a delivery at when (seconds since 1970, UTC)."""
    who = sender.translate(bytes.maketrans(b" \t\n", b"---")) or b"MAILER-DAEMON"
    t = time.gmtime(when)
    date = b"%s %s %02d %02d:%02d:%02d %d" % (
        *(_DAYS[t.tm_wday], _MONTHS[t.tm_mon - 1], t.tm_mday),
        *(t.tm_hour, t.tm_min, t.tm_sec, t.tm_year),
    )
    return b"From " + who + b" " + date + b"\n"


def new_sender(envelope: Envelope, *, owner: bool, owner_default: bool) -> bytes:
    """Return the envelope sender for forwarded copies.

    Args:
        envelope: of this delivery.
        owner: ``.qmail-EXT-owner`` exists, so bounces of forwarded copies go there.
        owner_default: so does ``.qmail-EXT-owner-default``: a variable envelope
            return path is wanted, one address for each recipient.
    """
    if envelope.sender in BOUNCE_SENDERS or not owner:
        return envelope.sender
    if owner_default:
        return envelope.local + b"-owner-@" + envelope.host + b"-@[]"
    return envelope.local + b"-owner@" + envelope.host


def environment(envelope: Envelope, when: float) -> dict[bytes, bytes]:
    """Return the variables of qmail-command(8) but DEFAULT and NEWSENDER."""
    host2 = _without_last_label(envelope.host)
    host3 = _without_last_label(host2)
    host4 = _without_last_label(host3)
    ext2 = envelope.ext.partition(b"-")[2]
    ext3 = ext2.partition(b"-")[2]
    ext4 = ext3.partition(b"-")[2]
    return {
        b"USER": envelope.user,
        b"HOME": envelope.home,
        b"LOCAL": envelope.local,
        b"HOST": envelope.host,
        b"HOST2": host2,
        b"HOST3": host3,
        b"HOST4": host4,
        b"EXT": envelope.ext,
        b"EXT2": ext2,
        b"EXT3": ext3,
        b"EXT4": ext4,
        b"RECIPIENT": envelope.recipient,
        b"SENDER": envelope.sender,
        b"DTLINE": delivered_to(envelope),
        b"RPLINE": return_path(envelope.sender),
        b"UFLINE": mbox_from(envelope.sender, when),
    }


def _without_last_label(host: bytes) -> bytes:
    dot = host.rfind(b".")
    return host if dot < 0 else host[:dot]
