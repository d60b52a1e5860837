"""A header as what DKIM and DMARC see: its fields, each with all its bytes.

Unlike the reader in pyqmail.header this one loses nothing: a line that is no field stays
where it is, under no name.
"""

from pyqmail.header.fields import Field, field_name

__all__ = ["Field", "split"]


def split(header: bytes) -> list[Field]:
    """Return the fields of a header, in order; together they are the header again."""
    found: list[Field] = []
    lines: list[bytes] = []
    name = b""
    for line in _lines(header):
        if lines and line[:1] in (b" ", b"\t"):
            lines.append(line)
            continue
        if lines:
            found.append(Field(name, b"".join(lines)))
        name, lines = field_name(line) or b"", [line]
    if lines:
        found.append(Field(name, b"".join(lines)))
    return found


def _lines(header: bytes) -> list[bytes]:
    """Return lines that end with LF only; splitlines would end them at a bare CR as well."""
    return [line + b"\n" for line in header.split(b"\n")[:-1]] + (
        [last] if (last := header.rpartition(b"\n")[2]) else []
    )
