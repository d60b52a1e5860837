"""A message behind a descriptor: its header, its body in parts, and who its authors are.

The descriptor's owner may change the file at any time: each byte is read once.
"""

import os
from collections.abc import Iterator

from pyqmail.header.addresslist import ListError, every_address
from pyqmail.mailauth.bodyhash import BodyHash
from pyqmail.mailauth.fields import Field, split
from pyqmail.ofmipd.message import authors
from pyqmail.qfilter.prepending import END_OF_HEADER

CHUNK = 1 << 18
HEADER_LIMIT = 1 << 18  # bytes; what is longer is neither signed nor verified
FIELDS_LIMIT = 1000
FROM_LIMIT = 8192  # bytes of one that is read
SIZE_LIMIT = 1 << 30  # bytes; a sparse file may have any number, and each is read


class MessageError(Exception):
    """A message that cannot be signed or verified; the text says why."""


class Message:
    """A message as far as it has been read."""

    def __init__(self, descriptor: int) -> None:
        """Read the header.

        Raises:
            MessageError: it is too long.
            OSError: the message cannot be read.
        """
        self._descriptor = descriptor
        data = b""
        while True:
            part = os.pread(descriptor, CHUNK, len(data))
            data += part
            if found := END_OF_HEADER.search(data):
                header, self._body = data[: found.start()], data[found.end() :]
                break
            if not part:
                header, self._body = data, b""
                break
            if len(data) > HEADER_LIMIT:
                raise MessageError("the header is too long")
        self._next = len(data)
        self.fields = split(header)
        if len(header) > HEADER_LIMIT or len(self.fields) > FIELDS_LIMIT:
            raise MessageError("the header is too long")

    def hash_body(self, *hashes: BodyHash) -> None:
        """Read the body once, for all of hashes; not at all for none.

        Raises:
            MessageError: the message is too long.
            OSError: it cannot be read.
        """
        for part in self._parts() if hashes else ():
            for one in hashes:
                one.feed(part)

    def _parts(self) -> Iterator[bytes]:
        yield self._body
        while part := os.pread(self._descriptor, CHUNK, self._next):
            self._next += len(part)
            if self._next > SIZE_LIMIT:
                raise MessageError("the message is too long")
            yield part

    def named(self, name: bytes) -> list[Field]:
        """Return the fields of a name, in lower case."""
        return [field for field in self.fields if field.name == name]

    def authors(self) -> list[bytes]:
        """Return the addresses in From, at least one.

        Raises:
            MessageError: there is not exactly one From, or it cannot be read.
        """
        found = self.named(b"from")
        if len(found) != 1:
            raise MessageError("no From" if not found else "more than one From")
        if len(found[0].raw) > FROM_LIMIT:
            raise MessageError("a From that is too long")
        try:
            addresses = authors(found)
        except ListError as error:
            raise MessageError("a From that cannot be read") from error
        if not addresses or not all(b"@" in address for address in addresses):
            raise MessageError("a From without an address")
        return addresses

    def claims(self) -> list[bytes]:
        """Return every address that a reader of From might take for the author's.

        Raises:
            MessageError: see authors.
        """
        self.authors()
        try:
            return every_address(self.named(b"from")[0].value)
        except ListError as error:
            raise MessageError("a From that cannot be read") from error
