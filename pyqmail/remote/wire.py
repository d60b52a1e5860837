"""A message as it goes over an SMTP connection (RFC 5321, 4.5.2).

In the queue a line ends with LF; on the wire with CR LF, and with nothing else: a bare
CR or LF there is what SMTP smuggling is made of. So

- LF, and any CRs directly in front of it, become CR LF;
- any other CR becomes a space: it ends no line in the queue, and must not seem to on
  the wire;
- a dot that begins a line, in this sense, is doubled;
- a last line without an end gets one.
"""

from collections.abc import Iterable, Iterator

END_OF_DATA = b".\r\n"

BLANKS = b" " * 65536


def encode(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the message, without the end of data; chunks may be cut anywhere."""
    held = 0  # CRs at the end of a chunk: what they become depends on what follows
    at_line_start = True
    for chunk in chunks:
        data = chunk.rstrip(b"\r")
        if data and held and not data.lstrip(b"\r").startswith(b"\n"):
            yield from _blanks(held)
            at_line_start = False
        held = len(chunk) - len(data) + (0 if data else held)
        if not data:
            continue
        if b"\r" in data:
            # Not by a pattern: it would look for LF again behind each CR of a long row.
            *lines, last = data.split(b"\n")
            data = b"\n".join([*(line.rstrip(b"\r") for line in lines), last])
            data = data.replace(b"\r", b" ")
        ends_line = data.endswith(b"\n")
        data = data.replace(b"\n.", b"\n..").replace(b"\n", b"\r\n")
        yield b"." + data if at_line_start and data.startswith(b".") else data
        at_line_start = ends_line
    if held:
        yield from _blanks(held)
        at_line_start = False
    if not at_line_start:
        yield b"\r\n"


def _blanks(count: int) -> Iterator[bytes]:
    while count:
        yield BLANKS[:count]
        count -= min(count, len(BLANKS))


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
