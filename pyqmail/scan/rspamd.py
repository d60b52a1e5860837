"""Ask rspamd what to do with a message (its normal worker, POST /checkv2)."""

import os
from collections.abc import Iterable
from typing import NamedTuple

from pyqmail.scan.address import Connection, Place, ScannerError

CHUNK = 65536
REPLY_LIMIT = 1 << 20


class Verdict(NamedTuple):
    """What rspamd says of a message."""

    action: str
    score: float
    required: float
    text: str = ""  # for the SMTP client


def scan(place: Place, message: int, facts: Iterable[tuple[str, bytes]], seconds: float) -> Verdict:
    """Return rspamd's verdict on a message.

    Args:
        place: of its normal worker.
        message: a file; it is read from its beginning, wherever it stands.
        facts: name and value of what is known of how it came, as request headers.
        seconds: for everything.

    Raises:
        ScannerError: it cannot be reached, or says something else.
        OSError: the message cannot be read.
    """
    size = os.fstat(message).st_size
    with Connection(place, seconds) as connection:
        open_still = connection.send(request(place, size, facts))
        offset = 0
        while open_still and offset < size:
            data = os.pread(message, min(CHUNK, size - offset), offset)
            if not data:
                raise ScannerError("the message became shorter")
            offset += len(data)
            open_still = connection.send(data)
        return verdict(body(connection.receive(REPLY_LIMIT)))


def request(place: Place, size: int, facts: Iterable[tuple[str, bytes]]) -> bytes:
    """Return the head of a request. What could end a line is left out of values."""
    host = f"[{place.host}]" if ":" in place.host else place.host
    lines = [b"POST /checkv2 HTTP/1.1", f"Host: {host}".encode(), b"Connection: close"]
    lines += [b"Content-Length: %d" % size]
    lines += [name.encode() + b": " + _visible(value) for name, value in facts if value]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _visible(value: bytes) -> bytes:
    return bytes(byte for byte in value if 32 <= byte < 127)


def body(reply: bytes) -> bytes:
    """Return the body of a whole HTTP reply whose status is 200.

    Raises:
        ScannerError: it is not whole, or has another status.
    """
    head, end, content = reply.partition(b"\r\n\r\n")
    status, *fields = head.split(b"\r\n")
    words = status.split(b" ", 2)
    if not end or not words[0].startswith(b"HTTP/1.") or words[1:2] != [b"200"]:
        raise ScannerError(f"rspamd said {status[:200]!r}")
    named = {}
    for field in fields:
        name, _, value = field.partition(b":")
        named[name.strip().lower()] = value.strip()
    if b"transfer-encoding" in named:
        raise ScannerError("rspamd answered in chunks")
    length = named.get(b"content-length", b"%d" % len(content))
    if not length.isdigit() or len(content) != int(length):
        raise ScannerError("rspamd did not finish its answer")
    return content


def verdict(content: bytes) -> Verdict:
    """Return the verdict in a reply's JSON.

    Raises:
        ScannerError: there is none.
    """
    import json  # not in the processes that only load this

    try:
        told = json.loads(content)
        messages = told.get("messages") or {}
        text = messages.get("smtp_message") or "" if isinstance(messages, dict) else ""
        action, score = told["action"], float(told["score"])
        required = float(told["required_score"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ScannerError(f"rspamd said {content[:200]!r}") from error
    return Verdict(str(action), score, required, str(text))
