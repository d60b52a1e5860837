"""The rule file control/fixsmtpio: six fields a line, only the last may hold a colon.

    [env]:event:[request-prepend]:response-line-glob:[exitcode]:[response]

`parse` turns the file into `Rules`; `Rules.select` leaves those that hold in a given
environment, sorted by event, as `Selection`; that is what a session asks.
"""

from collections.abc import Mapping
from typing import NamedTuple

from acceptutils.fixsmtpio.glob import Glob

FIELDS = ("env", "event", "request-prepend", "response-line-glob", "exitcode", "response")

# Events that no client can cause by sending a verb of that name.
GREETING = b"greeting"
TIMEOUT = b"timeout"
CLIENTEOF = b"clienteof"
IN_DATA = b"in_data"  # the reply to a message: what the C program calls it
OCCURRENCES = frozenset((GREETING, TIMEOUT, CLIENTEOF, IN_DATA))

FIXUP = b"&fixsmtpio_fixup"
NOOP = b"&fixsmtpio_noop"
RESERVED = b"&fixsmtpio"
FIXABLE = frozenset((GREETING, b"helo", b"ehlo", b"help", b"quit"))

EXIT_HIGHEST = 255


class RuleError(Exception):
    """A line that is no rule: where (from 1, in bytes) and why."""

    def __init__(self, line: int, column: int, reason: str) -> None:
        super().__init__(f"line {line}, column {column}: {reason}")
        self.line = line
        self.column = column
        self.reason = reason


class Rule(NamedTuple):
    """One line of the file; event in lower case, exitcode None where the field is empty."""

    line: int
    env: str
    event: bytes
    prepend: bytes
    glob: Glob
    exitcode: int | None
    response: bytes

    def holds(self, env: Mapping[str, str]) -> bool:
        """Tell whether the rule's variable, if it names one, is set."""
        return not self.env or self.env in env


class Selection(NamedTuple):
    """The rules that hold in one environment, by event."""

    replies: dict[bytes, tuple[Rule, ...]]
    prepends: dict[bytes, bytes]

    def prepend(self, event: bytes) -> bytes:
        """Return what goes in front of a request; a later rule's text before an earlier's."""
        return self.prepends.get(event, b"")


class Rules(NamedTuple):
    """A whole rule file, in its order."""

    rules: tuple[Rule, ...] = ()

    def select(self, env: Mapping[str, str]) -> Selection:
        """Return the rules that hold in env."""
        replies: dict[bytes, tuple[Rule, ...]] = {}
        prepends: dict[bytes, bytes] = {}
        for rule in self.rules:
            if rule.holds(env):
                replies[rule.event] = (*replies.get(rule.event, ()), rule)
                if rule.prepend:
                    prepends[rule.event] = rule.prepend + prepends.get(rule.event, b"")
        return Selection(replies, prepends)

    def need_greeting(self) -> bool:
        """Tell whether any rule puts our host name into a reply."""
        return any(rule.response == FIXUP and rule.event != b"help" for rule in self.rules)


def parse(content: bytes) -> Rules:
    """Return the rules in a rule file.

    Trailing blanks and tabs (and the CR of a file with CR LF line ends) are stripped; blank
    lines and lines that start with ``#`` are skipped.

    Raises:
        RuleError: at the first line that is no rule.
    """
    rules = []
    for number, raw in enumerate(content.split(b"\n"), 1):
        line = raw.rstrip(b" \t\r")
        if line and not line.startswith(b"#"):
            rules.append(parse_line(line, number))
    return Rules(tuple(rules))


def parse_line(line: bytes, number: int = 1) -> Rule:
    """Return the rule in one line.

    Raises:
        RuleError: it is none.
    """
    fields = line.split(b":", len(FIELDS) - 1)
    starts = [1]
    for field in fields:
        starts.append(starts[-1] + len(field) + 1)

    def refuse(index: int, reason: str, offset: int = 0) -> RuleError:
        return RuleError(number, starts[index] + offset, reason)

    if len(fields) < len(FIELDS):
        missing = ", ".join(FIELDS[len(fields) :])
        return_at = len(line) + 1
        raise RuleError(number, return_at, f"{len(fields)} of 6 fields; missing: {missing}")
    for index, field in enumerate(fields):
        for byte, name in ((b"\0", "NUL"), (b"\r", "carriage return")):
            if (offset := field.find(byte)) >= 0:
                raise refuse(index, f"{name} in {FIELDS[index]}", offset)
    env, event, prepend, glob, exitcode, response = fields
    event = event.lower()
    if not event:
        raise refuse(1, "no event")
    if not glob:
        raise refuse(3, "no response-line-glob; * is any line")
    code = _exitcode(exitcode)
    if code is None and exitcode:
        raise refuse(4, f"exitcode is not a number from 0 to {EXIT_HIGHEST}")
    if response and event == CLIENTEOF:
        raise refuse(5, "a response on clienteof: nobody is left to read it")
    if response == FIXUP and event not in FIXABLE:
        known = ", ".join(sorted(name.decode() for name in FIXABLE))
        raise refuse(5, f"no fixup for this event; there is one for {known}")
    if response.startswith(RESERVED) and response not in (FIXUP, NOOP):
        raise refuse(5, "unknown &fixsmtpio response; there are &fixsmtpio_fixup and _noop")
    name = env.decode("utf-8", "surrogateescape")
    return Rule(number, name, event, prepend, Glob(glob), code, response)


def _exitcode(field: bytes) -> int | None:
    digits = field.lstrip(b"0") or field[-1:]
    if not field.isdigit() or len(digits) > 3:
        return None
    code = int(digits)
    return code if code <= EXIT_HIGHEST else None
