"""What qmail-send and the spawners (qmail-lspawn, qmail-rspawn) say to each other.

Two pipes per spawner: qmail-send writes requests to the spawner's descriptor 0 and
reads from its descriptor 1 (qmail-lspawn(8), qmail-rspawn(8)). Either end may be one
of netqmail's C programs.

    spawner -> qmail-send   one byte at start: how many deliveries it can run at once
    qmail-send -> spawner   D  MESS \\0  SENDER \\0  RECIPIENT \\0
    spawner -> qmail-send   D  TEXT \\0

D, the delivery number, is one byte below the announced limit; it may well be zero, so
no reader may look for the end of a frame in its first byte. MESS names the message
relative to queue/mess: ``SPLIT/ID``. TEXT begins with the verdict, K, Z or D, and goes
on with lines for people. Delivery numbers are qmail-send's: it uses one again only
after the report on it. End of file on its descriptor 0 tells the spawner to finish what
is running, report it, and exit; end of file on its descriptor 1 tells qmail-send that
the spawner is dead.

Pure functions and two incremental readers; nothing here does I/O.
"""

from enum import Enum
from typing import NamedTuple

SPAWN_LIMIT = 120  # deliveries at once, announced by our spawners (netqmail's conf-spawn)
REPORT_LIMIT = 10_000  # bytes of a report that qmail-send keeps
LOCAL_REPORT_LIMIT = 3_000  # bytes that qmail-lspawn passes on; a C qmail-rspawn: no limit
MESSAGE_NAME_LIMIT = 100  # bytes of MESS that a spawner takes
REQUEST_LIMIT = 16_384  # bytes of a request a reader keeps; qmail-send's are below 3,200
TOO_LONG = b"\nError report too long, sorry.\n"


class Verdict(Enum):
    """The first byte of a report's text, as qmail-send acts upon it."""

    SUCCESS = b"K"
    DEFERRAL = b"Z"
    FAILURE = b"D"
    MANGLED = b""


class Request(NamedTuple):
    """One delivery that qmail-send asks for."""

    delivery: int
    message: bytes  # "SPLIT/ID", relative to queue/mess
    sender: bytes
    recipient: bytes


class Report(NamedTuple):
    """What became of one delivery."""

    delivery: int
    text: bytes  # with the verdict's letter in front

    @property
    def verdict(self) -> Verdict:
        """The verdict; MANGLED (defer) when the text starts with no known letter."""
        try:
            return Verdict(self.text[:1])
        except ValueError:
            return Verdict.MANGLED

    @property
    def explanation(self) -> bytes:
        """The text without the verdict's letter."""
        return self.text[1:]


def encode_limit(limit: int) -> bytes:
    """Return the spawner's first byte: it can run limit deliveries (1 to 255) at once."""
    return bytes([limit])


def encode_request(request: Request) -> bytes:
    """Return the bytes of a request; a NUL inside a field ends it there, as in C."""
    fields = (field.split(b"\0", 1)[0] for field in request[1:])
    return bytes([request.delivery]) + b"".join(field + b"\0" for field in fields)


def encode_report(report: Report, limit: int = 0) -> bytes:
    """Return the bytes of a report.

    Args:
        report: the report; NULs in its text are dropped, they would end it.
        limit: when above 100, a longer text is cut to that many bytes and says so
            (LOCAL_REPORT_LIMIT for qmail-lspawn, as netqmail's).
    """
    text = report.text.replace(b"\0", b"")
    if limit > 100 and len(text) > limit:
        text = text[: limit - len(TOO_LONG) - 3] + TOO_LONG
    return bytes([report.delivery]) + text + b"\0"


def refusal(request: Request) -> bytes | None:
    """Return the report text for a request that must not be run, None for a sound one.

    The order and the texts are those of netqmail's spawners. That the delivery number is
    below the limit and free, only the spawner can check (first): see DELIVERY_TOO_BIG and
    DELIVERY_IN_USE.
    """
    message = request.message
    if message.startswith(b"/") or message.translate(None, b"0123456789/"):
        return MESSAGE_NOT_NUMERIC
    if len(message) > MESSAGE_NAME_LIMIT:
        return MESSAGE_TOO_LONG
    if not message:
        return MESSAGE_TOO_SHORT
    if b"@" not in request.recipient:
        return NO_HOST
    return None


# Report texts of netqmail's spawners, for what a request can have wrong ...
MESSAGE_NOT_NUMERIC = b"DInternal error: messid has nonnumerics. (#5.3.5)\n"
MESSAGE_TOO_LONG = b"DInternal error: messid too long. (#5.3.5)\n"
MESSAGE_TOO_SHORT = b"DInternal error: messid too short. (#5.3.5)\n"
NO_HOST = b"DSorry, address must include host name. (#5.1.3)\n"

# ... and for what only the spawner can see.
DELIVERY_TOO_BIG = b"ZInternal error: delnum too big. (#4.3.5)\n"
DELIVERY_IN_USE = b"ZInternal error: delnum in use. (#4.3.5)\n"
OUT_OF_MEMORY = b"Zqmail-spawn out of memory. (#4.3.0)\n"
CANNOT_OPEN = b"Zqmail-spawn unable to open message. (#4.3.0)\n"
CANNOT_STAT = b"Zqmail-spawn unable to fstat message. (#4.3.0)\n"
WRONG_TYPE = b"ZSorry, message has wrong type. (#4.3.5)\n"
WRONG_OWNER = b"ZSorry, message has wrong owner. (#4.3.5)\n"
CANNOT_PIPE = b"Zqmail-spawn unable to create pipe. (#4.3.0)\n"
CANNOT_FORK = b"Zqmail-spawn unable to fork. (#4.3.0)\n"


class RequestReader:
    """Turns the bytes a spawner reads, split anyhow, into requests."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        """Begin at the start of a request."""
        self._buffer = b""

    def feed(self, data: bytes) -> list[Request]:
        """Take bytes and return the requests they complete.

        Raises:
            ValueError: a request grows beyond REQUEST_LIMIT; the peer is not qmail-send.
        """
        buffer = self._buffer + data
        requests: list[Request] = []
        while buffer:
            fields = buffer[1:].split(b"\0", 3)
            if len(fields) < 4:
                break
            requests.append(Request(buffer[0], fields[0], fields[1], fields[2]))
            buffer = fields[3]
        if len(buffer) > REQUEST_LIMIT:
            raise ValueError("request too long")
        self._buffer = buffer
        return requests


class ReportReader:
    """Turns the bytes qmail-send reads from one spawner into its limit and its reports."""

    __slots__ = ("_buffer", "limit")

    def __init__(self) -> None:
        """Begin before the announcement."""
        self._buffer = b""
        self.limit: int | None = None  # None until the spawner has announced it

    def feed(self, data: bytes) -> list[Report]:
        """Take bytes and return the reports they complete.

        A report longer than REPORT_LIMIT is cut there, whatever its length: a spawner
        gone wild costs no memory.
        """
        if self.limit is None and data:
            self.limit = data[0]
            data = data[1:]
        buffer = self._buffer + data
        reports: list[Report] = []
        while len(buffer) > 1:
            end = buffer.find(b"\0", 1)
            if end < 0:
                break
            reports.append(Report(buffer[0], buffer[1 : min(end, REPORT_LIMIT)]))
            buffer = buffer[end + 1 :]
        self._buffer = buffer[:REPORT_LIMIT]
        return reports
