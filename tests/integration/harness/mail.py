"""Messages that show a difference of one byte anywhere."""

import uuid
from typing import NamedTuple


class Message(NamedTuple):
    """A message as it is handed to a client, with CR LF line ends."""

    token: str
    raw: bytes

    @property
    def body(self) -> bytes:
        """What follows the first empty line: no server may change a byte of it."""
        return body_of(self.raw)


# Lines that servers, proxies and clients are known to trip over.
AWKWARD_LINES = (
    b"",
    b".",
    b"..",
    b".leading dot",
    b"From the start of a line",
    b">From quoted",
    b"trailing blanks  \t ",
    b"tab\tinside",
    b"8-bit: gr\xc3\xbc\xc3\x9fe, \xe2\x82\xac, \xff\xfe",
    b"%FROM%% percent",
    b"x" * 990,
    b"QUIT",
    b"",
    b"",
    b"last line",
)


def compose(sender: str, recipient: str, *, subject: str = "a test", size: int = 0) -> Message:
    """Return a message with a token of its own in the Subject and awkward lines in the body.

    Args:
        size: bytes of padding, in lines of 72, behind the awkward lines.
    """
    token = uuid.uuid4().hex
    head = (
        f"From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: {subject} {token}\r\n"
        f"Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nMessage-ID: <{token}@client.example>\r\n\r\n"
    )
    padding = b"".join(b"%070d\r\n" % n for n in range(size // 72))
    body = b"".join(line + b"\r\n" for line in AWKWARD_LINES)
    return Message(token, head.encode() + body + padding)


def body_of(raw: bytes) -> bytes:
    """Return what follows the first empty line."""
    return raw.partition(b"\r\n\r\n")[2]


def header(raw: bytes, name: str) -> list[bytes]:
    """Return the unfolded values of every field of that name, in order."""
    head = raw.partition(b"\r\n\r\n")[0].replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ")
    wanted = name.lower().encode() + b":"
    return [
        line[len(wanted) :].strip()
        for line in head.split(b"\r\n")
        if line.lower().startswith(wanted)
    ]
