"""A message as it goes over an SMTP connection (RFC 5321, 4.5.2).

In the queue a line ends with LF; on the wire with CR LF, and with nothing else: a bare
CR or LF there is what SMTP smuggling is made of. So

- LF, and any CRs directly in front of it, become CR LF;
- any other CR becomes a space: it ends no line in the queue, and must not seem to on
  the wire;
- a dot that begins a line, in this sense, is doubled;
- a last line without an end gets one.
"""

import re
from collections.abc import Iterable, Iterator

END_OF_DATA = b".\r\n"

_LINE_END = re.compile(rb"\r*\n")
_LAST_CRS = re.compile(rb"\r+\Z")


def encode(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the message, without the end of data; chunks may be cut anywhere."""
    held = b""  # CRs at the end of a chunk: what they become depends on what follows
    at_line_start = True
    for chunk in chunks:
        data = held + chunk if held else chunk
        held = b""
        if b"\r" in data:
            last = _LAST_CRS.search(data)
            if last:
                held = last.group()
                data = data[: last.start()]
            data = _LINE_END.sub(b"\n", data).replace(b"\r", b" ")
        if not data:
            continue
        ends_line = data.endswith(b"\n")
        data = data.replace(b"\n.", b"\n..").replace(b"\n", b"\r\n")
        yield b"." + data if at_line_start and data.startswith(b".") else data
        at_line_start = ends_line
    if held:
        yield b" " * len(held)
        at_line_start = False
    if not at_line_start:
        yield b"\r\n"


class Facts:
    """What has to be known of a message before it is sent: read once, whole."""

    __slots__ = ("eight_bit", "size")

    def __init__(self, chunks: Iterable[bytes]) -> None:
        """Look through a message.

        size is at least the number of bytes on the wire, without the doubled dots
        (RFC 1870, 6); eight_bit tells whether it has bytes outside ASCII.
        """
        size = 0
        eight_bit = False
        for chunk in chunks:
            size += len(chunk) + chunk.count(b"\n")
            eight_bit = eight_bit or not chunk.isascii()
        self.size = size + 2  # the end that the last line may lack
        self.eight_bit = eight_bit
