"""What ofmipd makes of a message's header (ofmipd(8), and mess822's new-inject(1))."""

from collections.abc import Iterable, Iterator

from pyqmail.header.addresslist import ListError, every_address, mailboxes, quote_phrase, rewrite
from pyqmail.header.fields import SPEAKERS, Field, make
from pyqmail.header.rewriting import Rewriter
from pyqmail.quote import quote

REWRITTEN = frozenset(
    {
        b"to",
        b"cc",
        b"notice-requested-upon-delivery-to",
        b"from",
        b"sender",
        b"reply-to",
        b"mail-reply-to",
        b"mail-followup-to",
    }
)
# Added fields stand behind these, so that the trace of a message stays on top of it.
TRACE = frozenset({b"received", b"delivered-to"})
DROPPED = frozenset({b"bcc", b"apparently-to", b"content-length", b"return-path"})
NO_RECIPIENTS = b"recipient list not shown: ;"


def author(address: bytes, name: bytes) -> Field:
    """Return a From field."""
    quoted = quote(address)
    return make(b"From", quote_phrase(name) + b" <" + quoted + b">" if name else quoted)


def rewritten(fields: Iterable[Field], rewriter: Rewriter) -> Iterator[Field]:
    """Yield the fields that stay, those with addresses made whole."""
    for field in fields:
        if field.name in DROPPED:
            continue
        if field.name in REWRITTEN:
            value = field.value
            new = rewrite(value, rewriter.host)
            yield field if new == value else field.with_value(new)
        else:
            yield field


def authors(fields: Iterable[Field]) -> list[bytes]:
    """Return the addresses in all From fields.

    Raises:
        ListError: a From field does not say clearly who its authors are.
    """
    found: list[bytes] = []
    for field in fields:
        if field.name == b"from":
            here = [one.address for one in mailboxes(field.value)]
            if not here:
                raise ListError
            found += here
    return found


def speakers(fields: Iterable[Field]) -> list[bytes]:
    """Return all that somebody may take for an address in the fields that say who speaks.

    Raises:
        ListError: one of them names nobody, or not clearly.
    """
    found: list[bytes] = []
    for field in fields:
        if field.name in SPEAKERS:
            here = every_address(field.value)
            if not here:
                raise ListError
            found += here
    return found


def without_authors(fields: Iterable[Field]) -> list[Field]:
    """Return fields without From, which is to be another."""
    return [field for field in fields if field.name != b"from"]


def completed(
    fields: Iterable[Field], *, date: bytes, message_id: bytes, sender: bytes, name: bytes
) -> list[Field]:
    """Return fields with those that must not be missing added, behind the trace.

    Args:
        fields: as rewritten.
        date: the value of a Date field.
        message_id: that of a Message-ID field.
        sender: whose From is made up where there is none; with an empty one none is.
        name: of that sender.
    """
    kept = list(fields)
    names = {field.name for field in kept}
    added = []
    if b"date" not in names:
        added.append(make(b"Date", date))
    if b"message-id" not in names:
        added.append(make(b"Message-ID", message_id))
    if b"from" not in names and sender:
        added.append(author(sender, name))
    if not names & {b"to", b"cc"}:
        added.append(make(b"Cc", NO_RECIPIENTS))
    place = next((i for i, field in enumerate(kept) if field.name not in TRACE), len(kept))
    return kept[:place] + added + kept[place:]
