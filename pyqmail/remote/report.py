"""What qmail-remote prints (qmail-remote(8)): a report per recipient, then one on the message.

A report is a letter, text for people, and a NUL. Recipients: ``r`` accepted, ``h``
refused, ``s`` refused for now. The message: ``K`` the server has it, ``Z`` try again, ``D``
bounce. The texts are netqmail's.
"""

from pyqmail.remote.reply import Reply

ACCEPTED = b"r\0"


class Outcome(Exception):
    """The delivery is over; ``report`` is the report on the message."""

    def __init__(self, report: bytes) -> None:
        self.report = report
        super().__init__(report)


class NextHost(Exception):
    """This server is of no use, another may be; ``report`` counts if it was the last."""

    def __init__(self, report: bytes) -> None:
        self.report = report
        super().__init__(report)


def outcome(text: bytes) -> Outcome:
    """Return the end of a delivery with text, which begins with its letter."""
    return Outcome(text + b"\n\0")


OUT_OF_MEMORY = b"ZOut of memory. (#4.3.0)"
NO_CONNECTION = b"ZSorry, I wasn't able to establish an SMTP connection. (#4.4.1)"
UNREADABLE = b"ZUnable to read message. (#4.3.0)"
DNS_TROUBLE = b"ZSorry, I couldn't find any host by that name. (#4.1.2)"
NO_HOME = b"ZUnable to switch to home directory. (#4.3.0)"
NO_CONTROLS = b"ZUnable to read control files. (#4.3.0)"
USAGE = b"DI (qmail-remote) was invoked improperly. (#5.3.5)"
BAD_ADDRESS = b"DSorry, that address has characters that no mail server takes. (#5.1.3)"
NO_EXCHANGER = b"DSorry, I couldn't find a mail exchanger or IP address. (#5.4.4)"
NULL_MX = b"DSorry, that domain says that it accepts no mail. (#5.1.10)"
NO_TLSA = b"ZSorry, I couldn't look up what its TLS certificate has to be. (#4.7.0)"
NOT_IN_POLICY = (
    b"ZSorry, the MTA-STS policy of that domain does not list its mail exchanger. (#4.7.0)"
)
LOOPING = (
    b"DSorry. Although I'm listed as a best-preference MX or A for that host,\n"
    b"it isn't in my control/locals file, so I don't treat it as local. (#5.4.6)"
)


def no_host(host: bytes) -> bytes:
    """Return the text for a domain that does not exist."""
    shown = bytes(c if 33 <= c <= 126 else 63 for c in host)
    return b"DSorry, I couldn't find any host named " + shown + b". (#5.1.2)"


def died(partner: bytes, *, critical: bool) -> bytes:
    """Return the text for a connection that ended by itself.

    Args:
        partner: the server's IP address.
        critical: the end of the message was sent, the answer to it was not received.
    """
    duplicate = b"Possible duplicate! " if critical else b""
    return b"ZConnected to " + partner + b" but connection died. " + duplicate + b"(#4.4.2)"


def refused(letter: bytes, partner: bytes, reply: Reply) -> bytes:
    """Return the report on a refused recipient (letter ``h`` or ``s``)."""
    return letter + partner + b" does not like recipient.\n" + remote_said(reply) + b"\0"


def remote_said(reply: Reply | None) -> bytes:
    """Return the server's words as they follow in a report."""
    return b"Remote host said: " + reply.text if reply is not None else b""
