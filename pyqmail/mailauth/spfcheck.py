"""SPF (RFC 7208), by pyspf, with look-ups of ours."""

from typing import Any, NamedTuple

import spf

from pyqmail.mailauth.lookups import Lookups, TroubleError

RESULTS = frozenset({"pass", "fail", "softfail", "neutral", "none", "temperror", "permerror"})
LABEL_LIMIT = 63


class SpfResult(NamedTuple):
    """What SPF says of a client."""

    result: str
    domain: str  # whose record it was, in small letters
    by_helo: bool  # of the name in HELO, because the sender was empty


class Query(spf.query):  # type: ignore[misc]
    """A check whose look-ups have the message's deadline and everybody's cache."""

    lookups_of_message: Lookups

    def dns(self, name: Any, qtype: str, cnames: Any = None, ignore_void: bool = False) -> Any:
        """Return the records of a name as pyspf has them; the resolver has followed aliases.

        Raises:
            spf.TempError: the DNS gave no answer.
            spf.PermError: too many names have no records (RFC 7208, 4.6.4).
        """
        text = str(name).rstrip(".")
        if not all(0 < len(label) <= LABEL_LIMIT for label in text.split(".")):
            return []
        try:
            records = self.lookups_of_message.records(text, qtype)
        except TroubleError as error:
            raise spf.TempError(f"DNS {error}") from error
        if not records and not ignore_void:
            self.void_lookups += 1
            if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                raise spf.PermError("too many void lookups")
        return [_value(record, qtype) for record in records]


def _value(record: Any, kind: str) -> Any:
    if kind in ("A", "AAAA"):
        return record.address
    if kind == "MX":
        return record.preference, record.exchange.to_text(omit_final_dot=True)
    if kind == "PTR":
        return record.target.to_text(omit_final_dot=True)
    return record.strings


def check(address: str, helo: str, sender: str, receiver: str, lookups: Lookups) -> SpfResult:
    """Say whether a client may send as sender, or as the name in HELO when that is empty.

    Args:
        address: of the client.
        helo: the name in HELO or EHLO.
        sender: the address in MAIL FROM.
        receiver: our own name, for explanations.
        lookups: of this message.
    """
    domain = (sender.rpartition("@")[2] if sender else helo).lower().rstrip(".")
    if not address or "." not in domain:
        return SpfResult("none", domain, not sender)
    try:
        query = Query(i=address, s=sender, h=helo or "unknown", receiver=receiver, strict=True)
        query.lookups_of_message = lookups
        result = str(query.check()[0])
    except TroubleError:
        result = "temperror"
    except Exception:  # pyspf trips over some names and records that are none
        result = "permerror"
    return SpfResult(result if result in RESULTS else "permerror", domain, not sender)
