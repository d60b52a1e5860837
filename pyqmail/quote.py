"""Quote the mailbox of an address as RFC 5321 and RFC 5322 want it, no more than needed.

Inside a mail system of this kind addresses are kept unquoted (addresses(5)); quotes are
put on where an address leaves it: in a header field, on an SMTP connection.
"""

import re

# Dot-atom: what needs no quotes (RFC 5322, 3.2.3).
_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_PLAIN = re.compile(_ATOM + rb"(?:\." + _ATOM + rb")*")
_ESCAPED = re.compile(rb'[\r\n"\\]')


def quote_box(box: bytes) -> bytes:
    """Return the part of an address before its last ``@``, in quotes if it needs them."""
    if _PLAIN.fullmatch(box):
        return box
    return b'"' + _ESCAPED.sub(rb"\\\g<0>", box) + b'"'


def quote(address: bytes) -> bytes:
    """Return a whole address with its box quoted if need be; the empty one stays empty."""
    if not address:
        return b""
    box, at, host = address.rpartition(b"@")
    return quote_box(box) + b"@" + host if at else quote_box(address)
