"""MTA-STS (RFC 8461): what a domain says of its mail exchangers' TLS.

Pure functions from what the DNS and the policy host say to values. The record tells that
there is a policy, and by its id when it has changed; the policy itself comes by HTTPS.
"""

import re
from enum import Enum
from typing import NamedTuple

PATH = b"/.well-known/mta-sts.txt"
BODY_LIMIT = 65536  # bytes of a policy (3.2)
LONGEST = 31557600  # seconds; of max_age
REFRESH_SECONDS = 86400  # after which a policy is asked for again, while the old one counts
RETRY_SECONDS = 300  # after a failure (3.3)

_ID = re.compile(rb"[0-9A-Za-z]{1,32}\Z")


class PolicyError(Exception):
    """What the policy host sent is no policy."""


class Mode(Enum):
    """What is to be done with a server that does not fit."""

    ENFORCE = b"enforce"  # no mail for it
    TESTING = b"testing"  # mail, as if there were no policy
    NONE = b"none"  # there is no policy any more


class Policy(NamedTuple):
    """A domain's policy (3.2)."""

    mode: Mode
    max_age: int  # seconds
    patterns: tuple[bytes, ...] = ()  # of the mail exchangers' names, in lower case

    def allows(self, host: bytes) -> bool:
        """Tell whether a mail exchanger is one that the policy lists (4.1)."""
        name = host.lower().rstrip(b".")
        above = name.partition(b".")[2]
        return name in self.patterns or (above != b"" and b"*." + above in self.patterns)


def parse_record(texts: list[bytes]) -> bytes | None:
    """Return the id in the TXT records of ``_mta-sts.DOMAIN`` (3.1), None if there is none.

    More than one record that claims to be it is none.
    """
    found = [text for text in texts if re.match(rb"v=STSv1[ \t]*;", text)]
    if len(found) != 1:
        return None
    for field in found[0].split(b";")[1:]:
        name, _, value = field.partition(b"=")
        if name.strip() == b"id":
            value = value.strip()
            return value if _ID.match(value) else None
    return None


def parse_policy(body: bytes) -> Policy:
    """Return the policy in the body of the policy host's answer.

    Of a name that comes twice the first counts; only mx may; unknown names do not matter.

    Raises:
        PolicyError: something that must be there is not, or makes no sense.
    """
    fields: dict[bytes, bytes] = {}
    patterns = []
    for line in body.split(b"\n"):
        name, colon, value = line.partition(b":")
        name, value = name.strip(), value.strip()
        if not colon:
            if name:
                raise PolicyError("a line without a colon")
        elif name == b"mx":
            patterns.append(value.lower().rstrip(b"."))
        else:
            fields.setdefault(name, value)
    if fields.get(b"version") != b"STSv1":
        raise PolicyError("no version that is known")
    try:
        mode = Mode(fields.get(b"mode"))
    except ValueError:
        raise PolicyError("no mode that is known") from None
    age = fields.get(b"max_age", b"")
    if not age.isdigit() or len(age) > 10:
        raise PolicyError("no max_age")
    if mode is not Mode.NONE and not (patterns and all(patterns)):
        raise PolicyError("no mx")
    return Policy(mode, min(int(age), LONGEST), tuple(patterns))


class Entry(NamedTuple):
    """What is remembered of a domain."""

    id: bytes = b""  # of the policy
    fetched: int = 0  # seconds since 1970
    failed: int = 0  # when it could not be fetched, after that; 0: it could
    body: bytes = b""  # of the policy; empty: it never was fetched

    def policy(self, now: int) -> Policy | None:
        """Return the policy while it counts (3.3), None if there is none any more."""
        try:
            policy = parse_policy(self.body)
        except PolicyError:
            return None
        return policy if self.fetched <= now < self.fetched + policy.max_age else None

    def expires(self) -> int:
        """Return from when on the entry is of no use, in seconds since 1970."""
        try:
            lasts = self.fetched + parse_policy(self.body).max_age
        except PolicyError:
            lasts = 0
        return max(lasts, self.failed + RETRY_SECONDS)


def is_due(entry: Entry, live: bytes | None, now: int) -> bool:
    """Tell whether the policy is to be fetched.

    Args:
        entry: what is remembered; an empty one if nothing is.
        live: the id in the DNS now; None if there is none, or no telling.
        now: seconds since 1970.
    """
    if live is None or 0 <= now - entry.failed < RETRY_SECONDS:
        return False
    policy = entry.policy(now)
    if policy is None or entry.id != live:
        return True
    return now - entry.fetched >= min(REFRESH_SECONDS, policy.max_age // 2)


def encode(entry: Entry) -> bytes:
    """Return the file of an entry: three lines, an empty one, and the policy as it came."""
    head = b"id: %s\nfetched: %d\nfailed: %d\n\n"
    return head % (entry.id, entry.fetched, entry.failed) + entry.body


def decode(content: bytes) -> Entry:
    """Return the entry in a file; an empty one if the file makes no sense."""
    head, _, body = content.partition(b"\n\n")
    fields = dict(line.split(b": ", 1) for line in head.split(b"\n") if b": " in line)
    fetched, failed = fields.get(b"fetched", b""), fields.get(b"failed", b"")
    if not (fetched.isdigit() and failed.isdigit() and len(fetched + failed) < 40):
        return Entry()
    return Entry(fields.get(b"id", b""), int(fetched), int(failed), body)
