"""SRS: envelope senders of forwarded mail, made ours and turned back again.

The Sender Rewriting Scheme of Meng Weng Wong and Shevek ("The Sender Rewriting Scheme",
2004). Who forwards mail with the sender unchanged sends in the name of a domain that has
not allowed it (SPF). So the sender user@host becomes an address of the forwarder's,

    SRS0=HASH=TIME=host=user@forwarder

to which bounces come, and which the forwarder turns back. One that another forwarder has
made, ``SRS0=rest@first``, becomes ``SRS1=HASH=first==rest@forwarder``: bounces then skip
everybody between us and the first. HASH is a part of an HMAC, so that nobody else can make
an address that we would turn into another; TIME ends its life.

Pure: the secrets, and what time it is, are told.
"""

import base64
import hmac
import re

SRS0 = b"SRS0"
SRS1 = b"SRS1"
_TAGGED = re.compile(rb"(SRS[01])([-+=])(.*)\Z", re.IGNORECASE | re.DOTALL)
_HOST = re.compile(rb"[A-Za-z0-9_.-]+\Z")

# Four characters are usual. Letters are compared without their case, as mailers on the
# way may change it, which leaves five bits of each: thirty bits cannot be guessed over SMTP.
HASH_LENGTH = 6
MAX_AGE = 21  # days; bounces come later than that from nobody
DAY = 86400  # seconds
PERIOD = 1024  # days, after which timestamps repeat

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
ADDRESS_LIMIT = 900  # bytes; a sender that would get longer is left alone


class SrsError(Exception):
    """An address that nobody here made, or that has expired; the text says which."""


class Scheme:
    """SRS for one forwarder.

    Args:
        domain: to which the addresses belong.
        secrets: the first makes addresses, all of them are accepted: so a secret can be
            replaced while addresses made with it are under way.
    """

    def __init__(self, domain: bytes, secrets: list[bytes], *, hash_length: int = HASH_LENGTH):
        if not secrets:
            raise ValueError("no secret")
        self.domain = domain
        self._secrets = secrets
        self._hash_length = hash_length

    def forward(self, sender: bytes, now: float) -> bytes:
        """Return the sender under which to forward a message.

        Args:
            sender: the envelope sender that it came with, not one of ours.
            now: seconds since the epoch.

        Returns:
            The rewritten address; sender itself when it cannot be rewritten: there is no
            host in it, or it would get too long.
        """
        box, _, host = sender.rpartition(b"@")
        if not box or not _HOST.match(host):
            return sender
        tagged = _TAGGED.match(box)
        if tagged is None:
            data = (timestamp(now), host, box)
            new = b"=".join((SRS0, self._hash(self._secrets[0], data), *data))
        else:
            tag, separator, rest = tagged.groups()
            if tag.upper() == SRS0:
                first, opaque = host, separator + rest
            else:
                parts = rest.split(b"=", 2)
                if len(parts) != 3 or not _HOST.match(parts[1]):
                    return sender
                first, opaque = parts[1:]
            new = b"=".join((SRS1, self._hash(self._secrets[0], (first, opaque)), first, opaque))
        rewritten = new + b"@" + self.domain
        return rewritten if len(rewritten) <= ADDRESS_LIMIT else sender

    def is_ours(self, address: bytes) -> bool:
        """Say whether an address is one that only SRS can have made, rightly or not."""
        box, _, host = address.rpartition(b"@")
        return host.lower() == self.domain.lower() and _TAGGED.match(box) is not None

    def reverse(self, address: bytes, now: float) -> bytes:
        """Return the address to which mail for a rewritten one goes.

        Raises:
            SrsError: it is not one of ours, or too old.
        """
        tagged = _TAGGED.match(address.rpartition(b"@")[0])
        if tagged is None or not self.is_ours(address):
            raise SrsError("no such address")
        tag, _, rest = tagged.groups()
        if tag.upper() == SRS0:
            parts = rest.split(b"=", 3)
            if len(parts) != 4:
                raise SrsError("no such address")
            code, time, host, box = parts
            self._check(code, (time, host, box))
            if age(time, now) > MAX_AGE:
                raise SrsError("expired")
            return box + b"@" + host
        parts = rest.split(b"=", 2)
        if len(parts) != 3:
            raise SrsError("no such address")
        code, first, opaque = parts
        self._check(code, (first, opaque))
        return SRS0 + opaque + b"@" + first

    def _hash(self, secret: bytes, data: tuple[bytes, ...]) -> bytes:
        digest = hmac.digest(secret, b"".join(data).lower(), "sha1")
        return base64.b64encode(digest)[: self._hash_length]

    def _check(self, code: bytes, data: tuple[bytes, ...]) -> None:
        right = [self._hash(secret, data).lower() for secret in self._secrets]
        # All are compared, so that the time says nothing about which.
        if not sum([hmac.compare_digest(code.lower(), one) for one in right]):
            raise SrsError("forged")


def timestamp(now: float) -> bytes:
    """Return a day as two letters."""
    day = int(now // DAY) % PERIOD
    return bytes((ALPHABET[day >> 5], ALPHABET[day & 31]))


def age(text: bytes, now: float) -> int:
    """Return how many days ago a timestamp was made.

    Raises:
        SrsError: it is none.
    """
    digits = [ALPHABET.find(code) for code in text.upper()]
    if len(digits) != 2 or min(digits) < 0:
        raise SrsError("no such address")
    return (int(now // DAY) - (digits[0] << 5 | digits[1])) % PERIOD
