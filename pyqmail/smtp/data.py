"""The bytes between DATA and its end (RFC 5321, 4.1.1.4 and 4.5.2), chunk by chunk.

Only CR LF ``.`` CR LF ends a message, and a CR or LF that stands alone is refused:
programs that disagree on where a message ends are what SMTP smuggling is made of.
"""

from ucspi.dialogue import Step, Talk

END = b"\r\n.\r\n"
HOP_LIMIT = 100


class StrayLineEnd(Exception):
    """A CR without LF or an LF without CR in the message."""


class Decoder:
    """Turn SMTP's lines into Unix lines: CR LF to LF, one leading dot off.

    Whatever the chunks, the outputs put together are the same. At most four bytes wait
    between two calls.
    """

    __slots__ = ("_first", "_held", "rest")

    def __init__(self) -> None:
        # The message starts at the start of a line: as if CR LF had come before. Its LF
        # is taken off the first output.
        self._held = b"\r\n"
        self._first = True
        self.rest: bytes | None = None  # what followed the end of the message; None before

    def feed(self, chunk: bytes) -> bytes:
        """Return the part of the message that chunk completes; sets rest at the end.

        Raises:
            StrayLineEnd: the message must not be accepted.
        """
        data = self._held + chunk
        end = data.find(END)
        if end >= 0:
            self.rest = data[end + len(END) :]
            data = data[: end + 2]
        else:
            held = held_back(data)
            self._held = data[len(data) - held :] if held else b""
            if held:
                data = data[:-held]
        # Deleting a byte and comparing lengths counts it several times faster than count(),
        # and where every CR is one of a CR LF it has turned those into LF.
        text = data.replace(b"\r", b"")
        lines = data.count(b"\r\n")
        if len(data) - len(text) != lines or len(text) - len(text.replace(b"\n", b"")) != lines:
            raise StrayLineEnd
        if b"\n." in text:
            text = text.replace(b"\n.", b"\n")
        if self._first and text:
            self._first = False
            return text[1:]
        return text


def held_back(data: bytes) -> int:
    """Return how many bytes at the end of data may be the beginning of the end."""
    for size in (4, 3, 2, 1):
        if data.endswith(END[:size]):
            return size
    return 0


class Message:
    """One message on its way from the client; what follows it stays in the talk."""

    __slots__ = ("_decoder", "_talk")

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._decoder = Decoder()

    @property
    def has_ended(self) -> bool:
        """Say whether there is nothing left to be read."""
        return self._decoder.rest is not None

    def part(self) -> Step:
        """Return the next part, perhaps empty.

        Raises:
            StrayLineEnd: see Decoder.
            ConnectionEnded, TimedOut: the end of the message did not come.
        """
        chunk = yield from self._talk.chunk()
        text = self._decoder.feed(chunk)
        if self._decoder.rest is not None:
            self._talk.unread(self._decoder.rest)
        return text


class HopCounter:
    """Count the Received and Delivered-To lines of a header that comes in parts."""

    __slots__ = ("_in_header", "_tail", "hops")

    MARKS = (b"\nreceived", b"\ndelivered")
    LONGEST = 10

    def __init__(self) -> None:
        self._tail = b"\n"  # from the last line end on, while shorter than the longest mark
        self._in_header = True
        self.hops = 0

    def feed(self, text: bytes) -> None:
        """Look at the next part of the message, in Unix lines."""
        if not self._in_header:
            return
        text = self._tail + text
        end = text.find(b"\n\n")
        if end >= 0:
            self._in_header = False
            text = text[: end + 1]
        else:
            last = text.rfind(b"\n")
            if last >= 0 and len(text) - last < self.LONGEST:
                self._tail = text[last:]
                text = text[:last]
            else:
                self._tail = b""
        lowered = text.lower()
        self.hops += sum(lowered.count(mark) for mark in self.MARKS)

    @property
    def looping(self) -> bool:
        """True when the message has been through too many hosts or deliveries."""
        return self.hops >= HOP_LIMIT
