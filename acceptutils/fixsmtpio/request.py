"""What the client sends, cut into requests and messages, however its bytes are split.

What the next bytes are depends on what was said before: `Mode`. The session sets it; the
reader only takes away what can be taken in that mode, and keeps the rest, within bounds.
"""

from enum import Enum, auto
from typing import NamedTuple

from acceptutils.fixsmtpio.message import Scanner, Verdict

# RFC 5321, 4.5.3.1.4 asks for 512 bytes, RFC 4954, 4 for 12,288 with AUTH.
COMMAND_LIMIT = 4096
AUTH_LIMIT = 16384

INPUT_LIMIT = 65536  # bytes read ahead of what can be handled now


class Mode(Enum):
    """What the client's next bytes are."""

    COMMANDS = auto()
    HELD = auto()  # not known before the server has answered
    MESSAGE = auto()
    OCTETS = auto()  # of a BDAT that was refused
    STOPPED = auto()  # of no interest


class Kind(Enum):
    """What was taken from the client's bytes."""

    LINE = auto()  # a command, without its line end
    BAD_LINE = auto()  # too long, or a NUL in it
    PART = auto()  # of a message
    END = auto()  # of a message: its last part
    BARE = auto()  # of a message: what came before a bare CR or LF
    NUL = auto()  # of a message: what came before a line that starts with a NUL


class Taken(NamedTuple):
    """One of the kinds, and its bytes."""

    kind: Kind
    data: bytes


_BY_VERDICT = {
    Verdict.MORE: Kind.PART,
    Verdict.END: Kind.END,
    Verdict.BARE: Kind.BARE,
    Verdict.NUL: Kind.NUL,
}
_BAD_LINE = Taken(Kind.BAD_LINE, b"")


class Reader:
    """Keeps what the client has sent and nobody has taken."""

    __slots__ = ("_at", "_bare_lf", "_input", "_octets", "_scanner", "in_auth", "mode")

    def __init__(self, bare_lf: bool) -> None:
        self._bare_lf = bare_lf
        self._input = b""
        self._at = 0  # of _input: where the rest starts
        self._octets = 0
        self._scanner = Scanner(bare_lf)
        self.mode = Mode.COMMANDS
        self.in_auth = False  # the next line belongs to an AUTH exchange

    def feed(self, data: bytes) -> None:
        """Take bytes read from the client."""
        if self.mode is not Mode.STOPPED:
            rest = self._input[self._at :]
            self._input = rest + data if rest else data
            self._at = 0

    def has_room(self) -> bool:
        """Tell whether more bytes could be kept."""
        return self.mode is not Mode.STOPPED and len(self._input) - self._at < INPUT_LIMIT

    def rest(self) -> bytes:
        """Return what has come and was not taken."""
        return self._input[self._at :]

    def has_partial_line(self) -> bool:
        """Tell whether a command has been started and not finished."""
        return (
            self.mode is Mode.COMMANDS
            and self._at < len(self._input)
            and self._input.find(b"\n", self._at) < 0
        )

    def is_drained(self) -> bool:
        """Tell whether nothing more will be taken unless more bytes come."""
        if self.mode is Mode.COMMANDS:
            return self._input.find(b"\n", self._at) < 0
        return self.mode is Mode.MESSAGE or self.mode is Mode.OCTETS

    def message_bytes(self) -> int | None:
        """Return how much of a message has come, None when none is being sent."""
        return self._scanner.received if self.mode is Mode.MESSAGE else None

    def start_message(self) -> None:
        """Let what follows be a message."""
        self._scanner = Scanner(self._bare_lf)
        self.mode = Mode.MESSAGE

    def skip(self, octets: int) -> None:
        """Drop so many bytes before the next command."""
        self._octets = octets
        self.mode = Mode.OCTETS

    def stop(self) -> None:
        """Forget everything that came and that still comes."""
        self.mode = Mode.STOPPED
        self._input, self._at = b"", 0

    def take(self) -> Taken | None:
        """Return the next request or part of a message, None while there is none."""
        mode = self.mode
        if mode is Mode.OCTETS:
            self._skip()
            mode = self.mode
        if self._at == len(self._input):
            return None
        if mode is Mode.COMMANDS:
            return self._line()
        if mode is Mode.MESSAGE:
            return self._part()
        return None

    def _line(self) -> Taken | None:
        start = self._at
        end = self._input.find(b"\n", start)
        if end < 0:
            if len(self._input) - start > self._limit(start) + len(b"\r"):
                return _BAD_LINE
            return None
        self._at = end + 1
        if self._input.endswith(b"\r", start, end):
            end -= 1
        if end - start > COMMAND_LIMIT and end - start > self._limit(start):
            return _BAD_LINE
        line = self._input[start:end]
        return _BAD_LINE if b"\0" in line else Taken(Kind.LINE, line)

    def _limit(self, start: int) -> int:
        is_auth = self.in_auth or verb_of(self._input[start : start + 8]) == b"auth"
        return AUTH_LIMIT if is_auth else COMMAND_LIMIT

    def _part(self) -> Taken:
        passed, verdict, self._input = self._scanner.feed(self.rest())
        self._at = 0
        if verdict is Verdict.END:
            self.mode = Mode.COMMANDS
        return Taken(_BY_VERDICT[verdict], passed)

    def _skip(self) -> None:
        skipped = min(self._octets, len(self._input) - self._at)
        self._at += skipped
        self._octets -= skipped
        if not self._octets:
            self.mode = Mode.COMMANDS


def verb_of(line: bytes) -> bytes:
    """Return the verb of a command line, in lower case.

    Blanks in front and a tab behind are what some servers skip: they must not hide a
    verb from the rules, or DATA from the proxy.
    """
    words = line.split(None, 1)
    return words[0].lower() if words else b""


def without_secrets(line: bytes) -> bytes:
    """Return an AUTH command for the log, without what may be a password."""
    words = line.split()
    shown = next((at for at, word in enumerate(words) if word.lower() == b"auth"), 0) + 2
    return b" ".join(words[:shown] + [b"..."] * (len(words) > shown))
