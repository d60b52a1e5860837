"""The question that checkpassword puts to checkpasswordd, and the answer.

One SOCK_SEQPACKET connection, one record each way. Question: ``service NUL user NUL
password NUL``. Inquiry, of a program that has found a password right elsewhere and wants to
know whose mailbox it opens: ``whose NUL service NUL user NUL NUL``. Answer: one byte, ``0``
right, ``1`` refused, ``t`` failed for now; behind ``0``: ``user NUL uid NUL gid NUL home NUL
shell NUL``.
"""

from typing import NamedTuple

BLOB_LIMIT = 2048  # bytes on descriptor 3; Bernstein's interface promises 512
QUESTION_LIMIT = BLOB_LIMIT + 64  # the service's name comes on top
ANSWER_LIMIT = 8192

REFUSED = b"1"
TEMPORARY = b"t"
_RIGHT = b"0"
_WHOSE = b"whose"

FIRST_ID = 1000  # no account has an id below: those are the system's, and root's
# Nor one of these: the users and groups of the mail system itself, in the image.
RESERVED_IDS = frozenset((2107, 2108, *range(7790, 7810)))


class WireError(Exception):
    """The bytes are no question, or no answer."""


class Question(NamedTuple):
    """Who wants to use which service."""

    service: bytes
    user: bytes
    password: bytes

    def __repr__(self) -> str:
        return f"Question({self.service!r}, {self.user!r}, ...)"


class Inquiry(NamedTuple):
    """Whose mailbox is it, and may it be opened; the password is not the question here."""

    service: bytes
    user: bytes


class Identity(NamedTuple):
    """Whom checkpassword becomes: the account's own name, not what the client typed."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


def parse_blob(blob: bytes) -> tuple[bytes, bytes]:
    """Return user name and password from the bytes of descriptor 3.

    They are ``user NUL password NUL timestamp NUL``, and maybe more
    (cr.yp.to/checkpwd/interface.html).

    Raises:
        WireError: fewer than three fields, or more bytes than the limit.
    """
    fields = blob.split(b"\0", 3)
    if len(blob) > BLOB_LIMIT or len(fields) != 4:
        raise WireError("not user, password and timestamp")
    return fields[0], fields[1]


def pack_question(question: Question) -> bytes:
    """Return the record of a question."""
    return b"\0".join((*question, b""))


def pack_inquiry(inquiry: Inquiry) -> bytes:
    """Return the record of an inquiry.

    It is longer than a question, never shorter: no question that has lost its password on
    the way can be taken for one.
    """
    return b"\0".join((_WHOSE, *inquiry, b"", b""))


def parse_question(record: bytes) -> Question | Inquiry:
    """Return the question or inquiry in a record.

    Raises:
        WireError: not as many fields as it must have, each ended by a NUL.
    """
    fields = record.split(b"\0")
    if len(record) > QUESTION_LIMIT or fields.pop():
        raise WireError("not service, user and password")
    if len(fields) == 4 and fields[0] == _WHOSE and not fields[3]:
        return Inquiry(fields[1], fields[2])
    if len(fields) != 3:
        raise WireError("not service, user and password")
    return Question(fields[0], fields[1], fields[2])


def is_account(uid: int, gid: int) -> bool:
    """Whether these can be a user's ids: neither the system's, nor the mail system's own.

    Who checks passwords names them, and may be a directory that numbers its users as it likes;
    one of qmail-send's number would be given the queue.
    """
    return all(FIRST_ID <= each < 2**32 - 1 and each not in RESERVED_IDS for each in (uid, gid))


def pack_right(identity: Identity) -> bytes:
    """Return the record that says: right, and this is who it is."""
    return _RIGHT + b"".join(str(field).encode() + b"\0" for field in identity)


def parse_answer(record: bytes) -> Identity | None:
    """Return whom to become, None when the password was refused.

    Raises:
        WireError: it failed for now, or the answer is not one that may be believed: the
            verifier is less than root, and must not be able to name a system user.
    """
    if record == REFUSED:
        return None
    fields = record[1:].split(b"\0")
    if record[:1] != _RIGHT or len(fields) != 6 or fields[5]:
        raise WireError("failed for now" if record == TEMPORARY else "unknown answer")
    try:
        name, uid, gid, home, shell = (field.decode() for field in fields[:5])
    except UnicodeDecodeError as error:
        raise WireError("answer is not text") from error
    if not (uid.isdecimal() and gid.isdecimal() and home.startswith("/") and name):
        raise WireError("malformed answer")
    if not is_account(int(uid), int(gid)):
        raise WireError(f"refusing uid {uid}, gid {gid}")
    return Identity(name, int(uid), int(gid), home, shell)
