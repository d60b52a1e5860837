"""A message on its way to a POP3 client: CR LF line ends, dots doubled (RFC 1939, 3)."""

END = b".\r\n"


class Encoder:
    """Turn Unix lines into POP3's; whatever the chunks, the outputs together are the same."""

    __slots__ = ("_at_line_start",)

    def __init__(self) -> None:
        self._at_line_start = True

    def feed(self, chunk: bytes) -> bytes:
        """Return the next part of the message as it is sent."""
        if not chunk:
            return b""
        first = b"." if self._at_line_start and chunk.startswith(b".") else b""
        self._at_line_start = chunk.endswith(b"\n")
        if b"\n." in chunk:
            chunk = chunk.replace(b"\n.", b"\n..")
        return first + chunk.replace(b"\n", b"\r\n")

    def finish(self) -> bytes:
        """Return the end of the reply, after a line end if the message has none."""
        return END if self._at_line_start else b"\r\n" + END


class Top:
    """Cut a message after its header, the empty line, and a number of body lines."""

    __slots__ = ("_in_header", "_last", "_lines", "done")

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._in_header = True
        self._last = b"\n"  # the byte before the next chunk
        self.done = False

    def feed(self, chunk: bytes) -> bytes:
        """Return the part of chunk that belongs to the answer; sets done at its end."""
        start = 0
        if self._in_header:
            end = (self._last + chunk).find(b"\n\n")
            self._last = chunk[-1:] or self._last
            if end < 0:
                return chunk
            self._in_header = False
            start = end + 1
        body = chunk[start:]
        if body.count(b"\n") < self._lines:
            self._lines -= body.count(b"\n")
            return chunk
        self.done = True
        rest = body.split(b"\n", self._lines)[self._lines]
        return chunk[: len(chunk) - len(rest)]
