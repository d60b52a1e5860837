"""What the filters and the two daemons say to each other: one record each way.

A request is a verb and the facts of the connection; the message's descriptor travels with
it. The answer is what is to become of the message, and the header lines to put before it.
"""

import os
import socket
from typing import NamedTuple

VERIFY = b"verify"
SIGN = b"sign"

FIELD_LIMIT = 1024  # bytes; a longer name or address is cut
REQUEST_LIMIT = 5 * (FIELD_LIMIT + 1)
LINES_LIMIT = 16384  # bytes of header lines
ANSWER_LIMIT = LINES_LIMIT + FIELD_LIMIT + 2

GO_ON = b"K"
REFUSED = b"D"  # for good
DEFERRED = b"Z"


class WireError(Exception):
    """Not a record of this protocol."""


class Request(NamedTuple):
    """A message to sign or to verify, and how it came."""

    verb: bytes
    address: bytes = b""  # of the client, in text
    helo: bytes = b""
    sender: bytes = b""  # MAIL FROM, empty for a bounce
    session: bytes = b""  # for the log


class Answer(NamedTuple):
    """What a daemon says of a message."""

    verdict: bytes  # GO_ON, REFUSED or DEFERRED
    text: bytes = b""  # why it is not to go on
    lines: bytes = b""  # whole header fields, with LF


def pack_request(request: Request) -> bytes:
    """Return the record of a request, its fields cut to their limits."""
    return b"".join(field[:FIELD_LIMIT].replace(b"\0", b"?") + b"\0" for field in request)


def parse_request(record: bytes) -> Request:
    """Return the request in a record.

    Raises:
        WireError: it is none.
    """
    fields = record.split(b"\0")
    if len(record) > REQUEST_LIMIT or len(fields) != 6 or fields[5]:
        raise WireError("not a request")
    return Request(*fields[:5])


def pack_answer(answer: Answer) -> bytes:
    """Return the record of an answer.

    Raises:
        WireError: it has more header lines than an answer can hold.
    """
    if len(answer.lines) > LINES_LIMIT:
        raise WireError("too many header lines")
    text = answer.text[:FIELD_LIMIT].replace(b"\0", b"?")
    return answer.verdict + text + b"\0" + answer.lines


def parse_answer(record: bytes) -> Answer:
    """Return the answer in a record.

    Raises:
        WireError: it is none; an answer's lines are whole header fields.
    """
    text, nul, lines = record[1:].partition(b"\0")
    verdict = record[:1]
    if verdict not in (GO_ON, REFUSED, DEFERRED) or not nul:
        raise WireError("not an answer")
    if lines and (not lines.endswith(b"\n") or b"\n\n" in lines or lines[:1] in b" \t\n"):
        raise WireError("not header lines")
    return Answer(verdict, text, lines)


def ask(path: str, request: Request, message: int, seconds: float) -> Answer:
    """Ask the daemon at path about the message behind a descriptor.

    Args:
        path: of the daemon's socket.
        request: what to ask.
        message: a regular file; where it stands does not matter.
        seconds: to wait for the connection, and for the answer.

    Raises:
        OSError: nobody answers there, or not in time.
        WireError: what answers is no such daemon.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(seconds)
        connection.connect(path)
        socket.send_fds(connection, [pack_request(request)], [message])
        record = connection.recv(ANSWER_LIMIT)
    if not record:
        raise WireError("no answer")
    return parse_answer(record)


def receive(connection: socket.socket) -> tuple[Request, int] | None:
    """Return the request of a client, and the message's descriptor for the caller to close.

    None for a client that has only looked whether anybody is there, as the health check does.

    Raises:
        OSError: it did not come in time.
        WireError: it is none, or not with exactly one descriptor.
    """
    record, descriptors, _, _ = socket.recv_fds(connection, REQUEST_LIMIT + 1, 4)
    try:
        if not record and not descriptors:
            return None
        if len(descriptors) != 1:
            raise WireError("not with one descriptor")
        return parse_request(record), descriptors.pop()
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
