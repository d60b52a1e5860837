"""The messages between P, which speaks to the client, and B, the broker, which is root.

P asks with one record of fixed size; B answers an attempt with two small ones: which
process runs checkpassword, and how that ended. B believes nothing in a record: `unpack`
is all of its parsing.
"""

import struct
from typing import NamedTuple

from acceptutils.authup.credentials import Credentials, Secret
from acceptutils.ucspitls import is_tls_variable

WORD = 12288  # bytes of a user name or a password: what 16,384 bytes of base64 hold
TIMESTAMP = 1024
VARIABLES = 16384  # bytes of all TLS variables, as NAME=value NUL

_REQUEST = struct.Struct(f"{WORD}s{WORD}s{TIMESTAMP}s{VARIABLES}s")
REQUEST_SIZE = _REQUEST.size

# Made before the processes are that wipe records with it: they need no memory for it.
_NOTHING = bytes(REQUEST_SIZE)

_REPLY = struct.Struct("cii")
REPLY_SIZE = _REPLY.size


class BadRecord(Exception):
    """Not a message that the other side could have sent in good faith."""


class Request(NamedTuple):
    """One attempt: who, and what the TLS engine said of the connection."""

    credentials: Credentials
    variables: dict[str, str]


class Started(NamedTuple):
    """checkpassword runs now, in the process pid."""

    pid: int


class Ended(NamedTuple):
    """How the process with checkpassword ended.

    code is its exit status, or minus the signal that killed it. became_user: it ended as
    another user than it began, so the password was right.
    """

    code: int
    became_user: bool


def pack(request: Request) -> bytearray:
    """Return the record of an attempt, to be wiped when it is sent.

    Variables that do not fit any more are left out.

    Raises:
        ValueError: a field is longer than its place.
    """
    user, password, timestamp = request.credentials
    secret = password.reveal()
    if len(user) > WORD or len(secret) > WORD or len(timestamp) > TIMESTAMP:
        raise ValueError("credentials do not fit the record")
    variables = b""
    for name, value in request.variables.items():
        entry = f"{name}={value}".encode("utf-8", "surrogateescape") + b"\0"
        if len(variables) + len(entry) <= VARIABLES:
            variables += entry
    record = bytearray(REQUEST_SIZE)
    _REQUEST.pack_into(record, 0, user, secret, timestamp, variables)
    return record


def wipe(record: bytearray) -> None:
    """Overwrite the record of an attempt."""
    record[:] = _NOTHING


def unpack(record: bytes | bytearray) -> Request:
    """Return the attempt that a record asks for.

    Only TLS variables pass, named as an engine names them: the environment of a root
    process is not P's to write.

    Raises:
        BadRecord: the wrong size, no user name, or no password.
    """
    if len(record) != REQUEST_SIZE:
        raise BadRecord("wrong size")
    user, password, timestamp, packed = (field.rstrip(b"\0") for field in _REQUEST.unpack(record))
    if not user or not password or b"\0" in user + password + timestamp:
        raise BadRecord("no user name and password")
    variables = {}
    for entry in packed.split(b"\0"):
        name, equals, value = entry.decode("utf-8", "surrogateescape").partition("=")
        if equals and is_tls_variable(name):
            variables[name] = value
    return Request(Credentials(user, Secret(password), timestamp), variables)


def blob(credentials: Credentials) -> bytearray:
    """Return what checkpassword reads from descriptor 3 (cr.yp.to/checkpwd/interface)."""
    user, password, timestamp = credentials
    return bytearray(b"\0").join([user, password.reveal(), timestamp, b""])


def pack_reply(reply: Started | Ended) -> bytes:
    """Return the record of one of B's messages."""
    if isinstance(reply, Started):
        return _REPLY.pack(b"S", reply.pid, 0)
    return _REPLY.pack(b"E", reply.code, reply.became_user)


def unpack_reply(record: bytes) -> Started | Ended:
    """Return B's message.

    Raises:
        BadRecord: neither of the two.
    """
    if len(record) != REPLY_SIZE:
        raise BadRecord("wrong size")
    kind, number, flag = _REPLY.unpack(record)
    if kind == b"S":
        return Started(number)
    if kind == b"E":
        return Ended(number, bool(flag))
    raise BadRecord("unknown kind")
