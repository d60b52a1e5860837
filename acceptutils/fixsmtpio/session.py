"""What fixsmtpio decides: a state machine between the client's bytes and the server's.

It does no input or output. The loop in `proxy` gives it what was read and takes from
`to_server` and `to_client` what is to be written, until there is an `outcome`.

Every request of the client gets one entry in a queue, whether the server answers it or
the proxy does, so replies leave in the order of the requests. Three verbs stop the
reading of requests until they are answered: DATA (what follows is a message only if the
server says 354), AUTH (what follows is a command only if it does not say 334) and
STARTTLS (what follows was sent in the clear and is dropped).
"""

from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from acceptutils.fixsmtpio import answers
from acceptutils.fixsmtpio import reply as replies
from acceptutils.fixsmtpio.answers import Answer, Then
from acceptutils.fixsmtpio.message import Scanner, Verdict
from acceptutils.fixsmtpio.rules import (
    CLIENTEOF,
    GREETING,
    IN_DATA,
    OCCURRENCES,
    TIMEOUT,
    Selection,
)

# RFC 5321, 4.5.3.1.4 asks for 512 bytes, RFC 4954, 4 for 12,288 with AUTH.
COMMAND_LIMIT = 4096
AUTH_LIMIT = 16384

INPUT_LIMIT = 65536  # bytes read ahead of what can be handled now
PENDING_LIMIT = 1000  # requests without an answer, before no more are read

# What may be said before TLS when it is required.
BEFORE_TLS = frozenset((b"noop", b"ehlo", b"starttls", b"quit"))

# After these the next line is a request only if the server does not say so: see above.
HOLDING = frozenset((b"data", b"auth"))


class Context(NamedTuple):
    """What a session knows of its surroundings; another one after each STARTTLS."""

    greeting: bytes = b"localhost"
    tls_available: bool = False
    tls_required: bool = False
    in_tls: bool = False
    restarted: bool = False  # the server is a second one: its greeting is swallowed
    authenticated: bool = False
    bare_lf: bool = False


class Mode(Enum):
    """What the client's next bytes are."""

    COMMANDS = auto()
    HELD = auto()  # not known before the server has answered
    MESSAGE = auto()
    OCTETS = auto()  # of a refused BDAT
    STOPPED = auto()  # of no interest


class Expected(NamedTuple):
    """A reply that the server owes: the event of its rules, and the verb it was sent."""

    event: bytes
    verb: bytes = b""
    silent: bool = False


class HungUp(NamedTuple):
    """The client's end of file, behind everything it asked for."""

    partial_line: bytes


class Outcome(NamedTuple):
    """How the session ends: for TLS to start, or with a rule's exit code (None: child's)."""

    start_tls: bool = False
    exitcode: int | None = None


Log = Callable[[str, bytes], None]


class Session:
    """One server child and the client, from the greeting to the end or to STARTTLS."""

    def __init__(self, selection: Selection, context: Context, log: Log | None = None) -> None:
        self._selection = selection
        self._context = context
        self._log = log
        offer = context.tls_available and not context.in_tls and not context.authenticated
        self._fixups = replies.Fixups(context.greeting, offer)
        self._tls_missing = context.tls_required and not context.in_tls
        withheld = replies.WITHHELD_EXTENSIONS
        self._withheld = withheld | {b"AUTH"} if self._tls_missing else withheld
        self._reader = replies.Reader()
        self._scanner = Scanner(context.bare_lf)
        self._mode = Mode.COMMANDS
        self._input = b""
        self._octets = 0  # of a refused BDAT, still to come
        self._unlogged = b""  # start of a line of a message, when messages are logged
        self._in_auth = False  # the next line belongs to an AUTH exchange
        self._client_ended = False
        self._last_code = b""
        self._pending: deque[Expected | Answer | HungUp] = deque(
            [Expected(GREETING, silent=context.restarted)]
        )
        self.to_server: list[bytes] = []
        self.to_client: list[bytes] = []
        self.server_input_ended = False  # close the server's input once to_server is written
        self.hung_up = False  # the client's end of file has been dealt with, no rule said exit
        self.outcome: Outcome | None = None
        self.refused = False  # the client has broken the rules and may still be sending
        self.notes: list[str] = []  # for the log: what was refused
        self.requests = 0  # lines and messages completed so far
        self.changes: list[replies.Change] | None = None  # set to a list: what rules did

    # What the loop wants to know

    def wants_client(self) -> bool:
        """Tell whether more of the client's bytes could be taken."""
        return (
            self._mode is not Mode.STOPPED
            and not self._client_ended
            and len(self._input) < INPUT_LIMIT
        )

    def partial_line(self) -> bool:
        """Tell whether the client has started a command and not finished it."""
        return self._mode is Mode.COMMANDS and bool(self._input) and b"\n" not in self._input

    def message_bytes(self) -> int | None:
        """Return how much of a message has come, None when none is being sent."""
        if self._mode is Mode.MESSAGE:
            return self._scanner.received
        return None

    def waits_for_server(self) -> bool:
        """Tell whether the server owes a reply."""
        return any(isinstance(entry, Expected) for entry in self._pending)

    # The client's side

    def client(self, data: bytes) -> None:
        """Take bytes read from the client."""
        if self._mode is Mode.STOPPED:
            return
        self._input = self._input + data if self._input else data
        self._consume()

    def client_end(self) -> None:
        """Take the client's end of file, after everything it sent."""
        self._client_ended = True
        self._consume()

    def _consume(self) -> None:
        """Handle as much of the input as can be handled now."""
        while self._mode in _CONSUMERS and self._input and _CONSUMERS[self._mode](self):
            pass
        if (
            self._client_ended
            and self._mode in _CONSUMERS
            and not self.server_input_ended
            and (self._mode is not Mode.COMMANDS or b"\n" not in self._input)
        ):
            self._client_has_ended()

    def _commands(self) -> bool:
        """Handle complete lines; False when there is none or no room for its answer."""
        data, at = self._input, 0
        while self._mode is Mode.COMMANDS and len(self._pending) < PENDING_LIMIT:
            end = data.find(b"\n", at)
            if end < 0:
                if len(data) - at > self._line_limit(data[at : at + 8]) + len(b"\r"):
                    self._refuse_line()
                break
            line = data[at:end]
            at = end + 1
            self._line(line[:-1] if line.endswith(b"\r") else line)
        if self._mode is Mode.STOPPED:
            return False
        self._input = data[at:]
        return self._mode is not Mode.COMMANDS

    def _line_limit(self, start: bytes) -> int:
        return AUTH_LIMIT if self._in_auth or verb_of(start) == b"auth" else COMMAND_LIMIT

    def _line(self, line: bytes) -> None:
        self.requests += 1
        if (len(line) > COMMAND_LIMIT and len(line) > self._line_limit(line[:8])) or b"\0" in line:
            self._refuse_line()
            return
        verb = b"auth" if self._in_auth else verb_of(line)
        if self._log:
            self._log("1", _without_secrets(line, verb, self._in_auth))
        if b"\r" in line:
            self._answer(answers.BARE_CR_IN_COMMAND)
        elif self._in_auth:
            self._send(line, verb, verb)
        elif handler := _OWN_VERBS.get(verb):
            handler(self, line)
        elif self._tls_missing and verb not in BEFORE_TLS:
            self._answer(answers.TLS_FIRST)
        else:
            self._forward(line, verb)

    def _forward(self, line: bytes, verb: bytes) -> None:
        event = b"" if verb in OCCURRENCES else verb
        prepend = self._selection.prepend(event)
        if prepend:
            line = prepend + line
            verb = verb_of(line)
        self._send(line, event, verb)

    def _send(self, line: bytes, event: bytes, verb: bytes) -> None:
        if self._log:
            self._log("2", _without_secrets(line, event, self._in_auth))
        # A server may take LF alone for a line end, or not: with CR LF it sees our lines.
        self.to_server.append(line + b"\r\n")
        self._pending.append(Expected(event, verb))
        if verb in HOLDING:
            self._mode = Mode.HELD

    def _starttls(self, line: bytes) -> None:
        context = self._context
        if not context.tls_available or context.in_tls:
            self._answer(answers.STARTTLS_REFUSED)
        elif self._selection.prepend(b"starttls"):
            self._forward(line, b"starttls")  # a rule file that switches it off
        elif len(line.split()) > 1:
            self._answer(answers.STARTTLS_ARGUMENT)
        else:
            self._stop_reading()
            self._answer(answers.STARTTLS_READY, Then.START_TLS)

    def _bdat(self, line: bytes) -> None:
        """Refuse BDAT, and keep its octets from being taken for commands (RFC 3030, 2)."""
        words = line.split()
        if len(words) < 2 or not words[1].isdigit() or len(words[1]) > 18:
            self._refuse("BDAT without a size", answers.BDAT_WITHOUT_SIZE)
            return
        self._answer(answers.TLS_FIRST if self._tls_missing else answers.BDAT_REFUSED)
        self._octets = int(words[1])
        self._mode = Mode.OCTETS

    def _skip_octets(self) -> bool:
        skipped = min(self._octets, len(self._input))
        self._octets -= skipped
        self._input = self._input[skipped:]
        if self._octets:
            return False
        self._mode = Mode.COMMANDS
        return True

    def _message(self) -> bool:
        data, self._input = self._input, b""
        passed, verdict, rest = self._scanner.feed(data)
        if self._log:
            self._log_message(passed)
        if passed:
            self.to_server.append(passed)
        if verdict is Verdict.MORE:
            return False
        if verdict is Verdict.END:
            self.requests += 1
            self._mode = Mode.COMMANDS
            self._input = rest
            return True
        self._refuse_message(verdict)
        return False

    def _log_message(self, passed: bytes) -> None:
        assert self._log
        *lines, self._unlogged = (self._unlogged + passed).split(b"\r\n")
        if len(self._unlogged) > COMMAND_LIMIT:
            lines.append(self._unlogged)
            self._unlogged = b""
        for line in lines:
            self._log("D", line)

    def _refuse_message(self, verdict: Verdict) -> None:
        """End the session before the server has seen an end of this message."""
        self._pending.pop()  # the server's reply to the message: it will never get the rest
        if verdict is Verdict.BARE:
            self._refuse("bare CR or LF in DATA", answers.BARE_NEWLINE)
        else:
            self._refuse("NUL at the start of a line in DATA", answers.NUL_IN_MESSAGE)

    def _refuse_line(self) -> None:
        self._refuse("line too long, or NUL in it", answers.LINE_TOO_LONG)

    def _refuse(self, note: str, answer: bytes) -> None:
        self.refused = True
        self.notes.append(note)
        self._stop_reading()
        self._answer(answer, Then.END)

    def _stop_reading(self) -> None:
        self._mode = Mode.STOPPED
        self._input = b""

    def _client_has_ended(self) -> None:
        if self._mode is Mode.MESSAGE and self._pending:
            self._pending.pop()  # the reply to a message that has no end
        partial, self._input = self._input, b""
        self._mode = Mode.STOPPED
        self.server_input_ended = True
        self._pending.append(HungUp(partial))
        self._settle()

    # The server's side

    def server(self, data: bytes) -> None:
        """Take bytes read from the server."""
        try:
            for reply in self._reader.feed(data):
                if self.outcome:
                    return
                self._reply(reply)
        except replies.MalformedReply as error:
            self._server_is_malformed(str(error))
        self._consume()

    def server_end(self) -> None:
        """Take the server's end of file."""
        if self.outcome:
            return
        if reply := self._reader.end():
            self._reply(reply)
        exitcode = None
        for entry in self._pending:
            if isinstance(entry, HungUp):
                exitcode = self._clienteof(entry)
        if not self.outcome:
            self._end(exitcode)

    def farewell(self, crashed: bool) -> bytes:
        """Return what the client is told when its server ended unasked.

        Args:
            crashed: the server was killed by a signal. For an authenticated client authup
                tells it so, from our status.
        """
        owed = any(isinstance(entry, Expected) and not entry.silent for entry in self._pending)
        excused = self._last_code == b"221" or self._last_code.startswith(b"4")
        if not owed or excused or (crashed and self._context.authenticated):
            return b""
        return answers.SERVER_GONE

    def timeout(self) -> None:
        """End the session because nothing came in time, as if the server had said so."""
        if self.outcome:
            return
        self._show([answers.TIMED_OUT], TIMEOUT)
        if not self.outcome:
            self._end(None)

    def _reply(self, reply: list[bytes]) -> None:
        if self._log:
            for text in reply:
                self._log("3", text)
        self._last_code = reply[-1][:3]
        if self.hung_up:
            self._show(reply, b"")
            return
        if not self._pending or isinstance(self._pending[0], HungUp):
            # Nobody asked: this is how a server says that it waited too long.
            self._show(reply, TIMEOUT)
            return
        expected = self._pending.popleft()
        assert isinstance(expected, Expected)
        if expected.verb in HOLDING or self._last_code == b"354":
            self._held_reply(reply, expected)
        elif expected.event == IN_DATA and self._mode is Mode.MESSAGE:
            # Refused before its end; whatever the client still sends of it is no command.
            self._show(reply, IN_DATA)
            self._end_quietly()
        else:
            self._show(reply, expected.event, silent=expected.silent)
        self._settle()

    def _held_reply(self, reply: list[bytes], expected: Expected) -> None:
        goes_on = self._last_code == b"354"
        if expected.verb != b"data":
            if goes_on:
                self._server_is_malformed("354 without DATA")
                return
            self._in_auth = self._last_code == b"334"
            self._mode = Mode.COMMANDS
            self._show(reply, expected.event)
            return
        shown = self._changed(reply, expected.event)
        said = shown.lines[-1].text[:3] == b"354" if shown.lines else False
        if said and not goes_on:
            self.notes.append("a rule turns a refusal of DATA into 354")
            self._write(answers.RULES_CONTRADICT)
            self._end(shown.exitcode)
            return
        self._mode = Mode.MESSAGE if said else Mode.COMMANDS
        if said:
            self._scanner = Scanner(self._context.bare_lf)
            self._pending.append(Expected(IN_DATA))
        self._emit(shown)
        if goes_on and not said:
            # The client was told no, the server waits for a message: no way to go on.
            self.notes.append("a rule refuses DATA after the server's 354")
            self._end_quietly()

    def _server_is_malformed(self, why: str) -> None:
        self.notes.append(f"malformed reply from the server: {why}")
        self._write(answers.SERVER_MALFORMED)
        self._end(None)

    # Replies to the client

    def _changed(self, reply: list[bytes], event: bytes) -> replies.Changed:
        changed = replies.change(reply, event, self._selection, self._fixups, self.changes)
        if event == b"ehlo":
            return changed._replace(lines=replies.withhold(changed.lines, self._withheld))
        if event == b"starttls" and changed.lines and changed.lines[-1].text.startswith(b"2"):
            # A neutralised STARTTLS (sent as NOOP, say) must not look as if TLS started.
            return changed._replace(lines=[replies.Line(0, answers.STARTTLS_REFUSED[:-2])])
        return changed

    def _show(self, reply: list[bytes], event: bytes, silent: bool = False) -> None:
        changed = self._changed(reply, event)
        self._emit(changed._replace(lines=[]) if silent else changed)

    def _emit(self, changed: replies.Changed) -> None:
        if changed.lines:
            self._write(replies.render(changed.lines))
        if changed.exitcode is not None:
            self._end(changed.exitcode)

    def _write(self, text: bytes) -> None:
        if self._log:
            for line in text.splitlines():
                self._log("4", line)
        self.to_client.append(text)

    def _answer(self, text: bytes, then: Then = Then.GO_ON) -> None:
        self._pending.append(Answer(text, then))
        self._settle()

    def _settle(self) -> None:
        """Give the answers of our own that are next in order."""
        pending = self._pending
        while pending and not self.outcome and not isinstance(pending[0], Expected):
            entry = pending.popleft()
            if isinstance(entry, HungUp):
                exitcode = self._clienteof(entry)
                if exitcode is None:
                    self.hung_up = True
                else:
                    self._end(exitcode)
            elif isinstance(entry, Answer):
                self._write(entry.text)
                if entry.then is Then.START_TLS:
                    self._stop_reading()
                    self.outcome = Outcome(start_tls=True)
                elif entry.then is Then.END:
                    self._end(None)

    def _clienteof(self, entry: HungUp) -> int | None:
        return replies.change(
            [entry.partial_line], CLIENTEOF, self._selection, self._fixups, self.changes
        ).exitcode

    def _end_quietly(self) -> None:
        if not self.outcome:
            self._end(None)

    def _end(self, exitcode: int | None) -> None:
        self._stop_reading()
        self.server_input_ended = True
        self.outcome = Outcome(exitcode=exitcode)


_CONSUMERS: dict[Mode, Callable[[Session], bool]] = {
    Mode.COMMANDS: Session._commands,
    Mode.MESSAGE: Session._message,
    Mode.OCTETS: Session._skip_octets,
}

# Every other verb is the server's.
_OWN_VERBS: dict[bytes, Callable[[Session, bytes], None]] = {
    b"starttls": Session._starttls,
    b"bdat": Session._bdat,
}


def verb_of(line: bytes) -> bytes:
    """Return the verb of a command line, in lower case.

    Blanks in front and a tab behind are what some servers skip: they must not hide a
    verb from the rules, or DATA from the proxy.
    """
    words = line[:COMMAND_LIMIT].split(None, 1)
    return words[0].lower() if words else b""


def _without_secrets(line: bytes, verb: bytes, in_auth: bool) -> bytes:
    """Return a request for the log: what AUTH carries is a password."""
    if in_auth:
        return b"(AUTH exchange)"
    if verb != b"auth":
        return line
    words = line.split()
    shown = next((at for at, word in enumerate(words) if word.lower() == b"auth"), 0) + 2
    return b" ".join(words[:shown] + [b"..."] * (len(words) > shown))
