"""What the first Received field of a message tells: it is our own SMTP server's."""

import re

# qmail-smtpd: Received: from HOST (HELO NAME) (INFO@ADDRESS)
FIRST = re.compile(rb"Received: from ([^ \n]+)(?: \(HELO ([^ )\n]*)\))? \(", re.IGNORECASE)


def helo(header: bytes) -> bytes:
    """Return the name that the client gave in HELO; empty where it gave none.

    qmail-smtpd leaves it out where it is the name that the address has in the DNS.
    """
    found = FIRST.match(header)
    if not found:
        return b""
    name = found[2] if found[2] is not None else found[1]
    return b"" if name == b"unknown" else name
