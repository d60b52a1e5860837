"""How a delivery fails: an exit status and one line for a person."""

PERMANENT = 100  # bounce
TEMPORARY = 111  # try again later


class Failure(Exception):
    """A program for deliveries stops here.

    Attributes:
        status: the exit status, PERMANENT or TEMPORARY.
        text: what to say, one line without its end; it goes into the bounce message.
    """

    def __init__(self, status: int, text: str | bytes) -> None:
        self.status = status
        self.text = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
        super().__init__(status, self.text)


def permanent(text: str | bytes) -> Failure:
    """Return the failure that bounces the message."""
    return Failure(PERMANENT, text)


def temporary(text: str | bytes) -> Failure:
    """Return the failure after which the delivery is tried again."""
    return Failure(TEMPORARY, text)


def because(before: bytes, name: bytes, error: OSError, after: str) -> bytes:
    """Return ``BEFORE NAME: what the system said. AFTER``, as qmail words such failures."""
    reason = (error.strerror or str(error)).encode("utf-8", "replace")
    return before + name + b": " + reason + b". " + after.encode("ascii")
