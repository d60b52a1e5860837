"""Ask clamd whether there is a virus in a message (clamd(8), INSTREAM)."""

import os

from pyqmail.scan.address import Connection, Place, ScannerError, TooLargeError

CHUNK = 65536
REPLY_LIMIT = 4096
FOUND = b" FOUND"
SIZE_LIMIT = b"INSTREAM size limit exceeded. ERROR"


def scan(place: Place, message: int, seconds: float) -> bytes | None:
    """Return the name of the virus in a message, None if there is none.

    Args:
        place: of clamd.
        message: a file; it is read from its beginning, wherever it stands.
        seconds: for everything.

    Raises:
        ScannerError: clamd cannot be reached or says something else.
        TooLargeError: the message is larger than its StreamMaxLength.
        OSError: the message cannot be read.
    """
    with Connection(place, seconds) as connection:
        open_still = connection.send(b"zINSTREAM\0")
        offset = 0
        while open_still and (data := os.pread(message, CHUNK, offset)):
            offset += len(data)
            open_still = connection.send(len(data).to_bytes(4, "big") + data)
        if open_still:
            connection.send(bytes(4))
        return verdict(connection.receive(REPLY_LIMIT))


def verdict(reply: bytes) -> bytes | None:
    """Return the name of the virus that a reply tells of, None if it tells of none.

    Raises:
        ScannerError: it tells of something else.
        TooLargeError: the message was too large.
    """
    text = reply.rstrip(b"\0\n")
    if text == SIZE_LIMIT:
        raise TooLargeError
    if text == b"stream: OK":
        return None
    if text.startswith(b"stream: ") and text.endswith(FOUND):
        return text[len(b"stream: ") : -len(FOUND)]
    raise ScannerError(f"clamd said {reply[:200]!r}")
