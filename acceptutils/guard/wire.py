"""What authup's broker and authguardd say to each other: one connection for each attempt.

The broker connects and sends a question; the answer is whether the attempt may be made, and
how long to wait before it is. What became of the attempt is one more record. A connection
that is closed without it says that no password was judged.
"""

from enum import Enum
from typing import NamedTuple

ACCOUNT_LIMIT = 320  # bytes: 64 @ 255 (RFC 5321, 4.5.3.1); what is longer is cut
SERVICE_LIMIT = 64
ADDRESS_LIMIT = 64
QUESTION_LIMIT = ACCOUNT_LIMIT + SERVICE_LIMIT + ADDRESS_LIMIT + 3
ANSWER_LIMIT = 16
MOST_MILLISECONDS = 60_000  # that a client of the daemon believes


class WireError(Exception):
    """Not a record of this protocol."""


class Question(NamedTuple):
    """An attempt that is about to be made."""

    service: bytes
    address: bytes  # of the client, in text; empty where it is not known
    account: bytes  # as the client wrote it


class Answer(NamedTuple):
    """What is to become of the attempt."""

    refused: bool
    milliseconds: int  # to wait before it is made, or refused


class Outcome(Enum):
    """What became of an attempt; the value is the record that says so."""

    PASSED = b"+"
    FAILED = b"-"


def pack_question(question: Question) -> bytes:
    """Return the record of a question, its fields cut to their limits."""
    service, address, account = question
    fields = (service[:SERVICE_LIMIT], address[:ADDRESS_LIMIT], account[:ACCOUNT_LIMIT])
    return b"".join(field + b"\0" for field in fields)


def parse_question(record: bytes) -> Question:
    """Return the question in a record.

    Raises:
        WireError: not three fields, each with its NUL, or too long.
    """
    fields = record.split(b"\0")
    if len(record) > QUESTION_LIMIT or len(fields) != 4 or fields[3]:
        raise WireError("not a question")
    return Question(*fields[:3])


def pack_answer(answer: Answer) -> bytes:
    """Return the record of an answer."""
    return b"%c%d" % (b"-" if answer.refused else b"+", answer.milliseconds)


def parse_answer(record: bytes) -> Answer:
    """Return the answer in a record.

    Raises:
        WireError: it is none, or a wait longer than any guard asks for.
    """
    verdict, digits = record[:1], record[1:]
    if verdict not in (b"+", b"-") or not digits.isdigit() or len(digits) > 5:
        raise WireError("not an answer")
    milliseconds = int(digits)
    if milliseconds > MOST_MILLISECONDS:
        raise WireError("not an answer")
    return Answer(verdict == b"-", milliseconds)
