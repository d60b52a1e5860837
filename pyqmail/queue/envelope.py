"""The envelope of a message, as qmail-queue reads it and as the queue keeps it.

On qmail-queue's descriptor 1 (qmail-queue(8)): ``F`` SENDER NUL, any number of ``T``
RECIPIENT NUL, and one more NUL. In todo/N and intd/N (INTERNALS): ``u`` UID NUL ``p``
PID NUL, then the same without the last NUL. In info/N the ``F`` field alone, in local/N
and remote/N one ``T`` field per recipient, whose first byte becomes ``D`` when done.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pyqmail.queue import errors

ADDRESS_LIMIT = 1003  # bytes of one address with the NUL that ends it

# qmail-send reads an envelope as a whole, and could not go on without memory for it. Ten
# times what an SMTP server takes, a hundred times what RFC 5321 asks of one.
RECIPIENTS_LIMIT = 100_000


class EnvelopeError(Exception):
    """The envelope is not in the form; ``status`` is qmail-queue's exit status for it."""

    def __init__(self, status: int) -> None:
        """Name the exit status."""
        super().__init__(f"envelope refused, status {status}")
        self.status = status


class EnvelopeReader:
    """Checks an envelope that arrives in pieces, without keeping more than one address."""

    __slots__ = ("_expected", "_fields", "_partial", "complete")

    def __init__(self) -> None:
        """Begin before the sender."""
        self._expected = b"F"
        self._partial = b""
        self._fields = 0
        self.complete = False  # the last NUL has been seen

    @property
    def recipients(self) -> int:
        """How many recipients there have been so far."""
        return max(0, self._fields - 1)

    def feed(self, data: bytes) -> bytes:
        """Take bytes and return the whole fields among them, for the queue's file.

        What follows the end of the envelope is ignored, as qmail-queue never reads it.

        Raises:
            EnvelopeError: 91 for a field that is neither sender nor recipient where it
                must be, 11 for an address that is too long, 31 for too many recipients.
        """
        if self.complete:
            return b""
        fields = (self._partial + data).split(b"\0")
        self._partial = fields.pop()
        for number, field in enumerate(fields):
            if not field and self._expected == b"T":
                self.complete = True
                fields = fields[:number]
                break
            self._check(field)
            self._expected = b"T"
        else:
            if self._partial:
                self._check(self._partial)
        self._fields += len(fields)
        if self._fields > RECIPIENTS_LIMIT + 1:
            raise EnvelopeError(errors.REFUSED)
        return b"".join([field + b"\0" for field in fields])

    def _check(self, field: bytes) -> None:
        if field[:1] != self._expected:
            raise EnvelopeError(errors.BAD_ENVELOPE)
        if len(field) > ADDRESS_LIMIT:  # the letter takes the place of the NUL
            raise EnvelopeError(errors.TOO_LONG)


def encode(sender: bytes, recipients: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces of an envelope in qmail-queue's form.

    Raises:
        EnvelopeError: 91 for an address with a NUL in it, which could pass for another one.
    """
    yield _field(b"F", sender)
    for recipient in recipients:
        yield _field(b"T", recipient)
    yield b"\0"


def _field(letter: bytes, address: bytes) -> bytes:
    if b"\0" in address:
        raise EnvelopeError(errors.BAD_ENVELOPE)
    return letter + address + b"\0"


def origin(uid: int, pid: int) -> bytes:
    """Return the first two fields of a file in intd/ or todo/."""
    return b"u%d\0p%d\0" % (uid, pid)


class Queued(NamedTuple):
    """What todo/N says."""

    uid: int
    pid: int
    sender: bytes
    recipients: list[bytes]


def decode_todo(content: bytes) -> Queued:
    """Return what the content of todo/N says.

    Like netqmail's qmail-send: fields may stand in any order, the last of a kind counts,
    bytes after the last NUL are no field, a number that is none is 0.

    Raises:
        ValueError: a field of unknown type, or no sender.
    """
    uid = pid = 0
    sender: bytes | None = None
    recipients: list[bytes] = []
    for field in content.split(b"\0")[:-1]:
        letter, value = field[:1], field[1:]
        if letter == b"T":
            recipients.append(value)
        elif letter == b"F":
            sender = value
        elif letter == b"u":
            uid = int(value) if value.isdigit() else 0
        elif letter == b"p":
            pid = int(value) if value.isdigit() else 0
        else:
            raise ValueError(f"unknown record type {letter!r}")
    if sender is None:
        raise ValueError("no sender")
    return Queued(uid, pid, sender, recipients)
