"""The protocol between those who queue a message and the queue server.

A connection carries one message. Client to server:

    KIND              one byte, see below
    LENGTH CHUNK ...  the message; LENGTH is four bytes, most significant first
    0                 a length of zero ends it
    LENGTH CHUNK ...  the envelope, as qmail-queue reads it (pyqmail.queue.envelope)
    0

Server to client, once, as soon as the outcome is known (possibly before all was sent):

    STATUS            one byte: qmail-queue's exit status; 0 says that the message will
                      survive a loss of power
    PID               eight bytes: the message's "qp"
    NUMBER            eight bytes: its number in the queue, 0 when it was not queued

A client that closes before the second zero has thought better of it; nothing remains.
"""

import struct
from enum import Enum

from pyqmail.queue.errors import Result

# How the message's "qp" is found. A program that takes qmail-queue's place is known to
# its parent by its process id, which the parent reports; a process that queues by itself may
# queue several messages, and each must have a number of its own.
KIND_PROGRAM = b"q"
KIND_IN_PROCESS = b"i"

END = b"\0\0\0\0"
_LENGTH = struct.Struct(">I")
_REPLY = struct.Struct(">BQQ")
REPLY_SIZE = _REPLY.size


class ProtocolError(Exception):
    """The client does not speak the protocol."""


class Part(Enum):
    """Where in the stream a client is."""

    KIND = 0
    MESSAGE = 1
    ENVELOPE = 2
    END = 3


def chunk(data: bytes) -> bytes:
    """Return data as one chunk; an empty one would be an end, so it is nothing at all."""
    return _LENGTH.pack(len(data)) + data if data else b""


def encode_reply(status: int, pid: int, number: int) -> bytes:
    """Return the server's answer."""
    return _REPLY.pack(status, pid, number)


def decode_reply(data: bytes) -> Result:
    """Return the server's answer.

    Raises:
        ProtocolError: data is not of the right length.
    """
    if len(data) != REPLY_SIZE:
        raise ProtocolError("short reply")
    status, pid, _ = _REPLY.unpack(data)
    return Result(status, pid)


class FrameReader:
    """Turns a client's bytes, split anyhow, into message and envelope."""

    __slots__ = ("_header", "_left", "kind", "part")

    def __init__(self) -> None:
        """Begin before the kind."""
        self.part = Part.KIND
        self.kind = b""
        self._left = 0  # bytes that the current chunk still lacks
        self._header = b""  # an incomplete length

    def feed(self, data: bytes) -> tuple[list[bytes], list[bytes]]:
        """Take bytes; return the message's and the envelope's among them, in pieces.

        ``part`` says afterwards how far the client is. Bytes after the end are ignored.

        Raises:
            ProtocolError: the kind is unknown.
        """
        message: list[bytes] = []
        envelope: list[bytes] = []
        at = 0
        if self.part is Part.KIND and data:
            self.kind = data[:1]
            if self.kind not in (KIND_PROGRAM, KIND_IN_PROCESS):
                raise ProtocolError("unknown kind")
            self.part = Part.MESSAGE
            at = 1
        while at < len(data) and self.part is not Part.END:
            if self._left:
                piece = data[at : at + self._left]
                (message if self.part is Part.MESSAGE else envelope).append(piece)
                self._left -= len(piece)
                at += len(piece)
                continue
            lacking = 4 - len(self._header)
            self._header += data[at : at + lacking]
            at += lacking
            if len(self._header) < 4:
                break
            self._left = _LENGTH.unpack(self._header)[0]
            self._header = b""
            if not self._left:
                self.part = Part.ENVELOPE if self.part is Part.MESSAGE else Part.END
        return message, envelope
