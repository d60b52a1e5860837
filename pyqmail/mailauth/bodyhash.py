"""The hash of a message's body as DKIM wants it (RFC 6376, 3.4.3 and 3.4.4).

In parts, so that a message of any size needs little memory, and with nothing that takes
longer for a body of blanks than for another.
"""

import hashlib

LINE_ENDS = 65536  # CR LF pairs that are hashed at once


class BodyHash:
    """The SHA-256 of a canonical body, fed in parts; lines end with LF or CR LF.

    Args:
        relaxed: the canonicalization; else ``simple``.
        limit: bytes of the canonical body that are hashed (``l=``), None for all.
    """

    def __init__(self, relaxed: bool, limit: int | None = None) -> None:
        self._relaxed = relaxed
        self._limit = limit
        self._hash = hashlib.sha256()
        self._line_ends = 0  # seen, and only hashed when something follows
        self._held = b""  # at the end of a part: what the next one decides about
        self.size = 0  # bytes of the canonical body

    def feed(self, data: bytes) -> None:
        """Add a part of the body."""
        data = self._held + data
        self._held = b""
        if data.endswith(b"\r"):
            data, self._held = data[:-1], b"\r"
        data = data.replace(b"\r\n", b"\n")
        if self._relaxed:
            data = single_blanks(data)
            if data.endswith(b" "):
                data, self._held = data[:-1], b" " + self._held
            data = data.replace(b" \n", b"\n")
        text = data.rstrip(b"\n")
        if text:
            self._put_line_ends()
            self._put(text.replace(b"\n", b"\r\n"))
        self._line_ends += len(data) - len(text)

    def digest(self) -> bytes:
        """End the body and return its hash."""
        held = self._held.rstrip(b" ") if self._relaxed else self._held
        self._held = b""
        if held:
            self._put_line_ends()
            self._put(held)
        if self.size or not self._relaxed:  # an empty body stays empty only when relaxed
            self._put(b"\r\n")
        return self._hash.digest()

    def _put_line_ends(self) -> None:
        while self._line_ends:
            count = min(self._line_ends, LINE_ENDS)
            self._put(b"\r\n" * count)
            self._line_ends -= count

    def _put(self, data: bytes) -> None:
        if self._limit is None:
            self._hash.update(data)
        elif self.size < self._limit:
            self._hash.update(data[: self._limit - self.size])
        self.size += len(data)


def single_blanks(data: bytes) -> bytes:
    """Return data with each run of blanks and tabs as one blank, in time linear in its size."""
    data = data.replace(b"\t", b" ")
    while b"  " in data:
        data = data.replace(b"  ", b" ")
    return data
