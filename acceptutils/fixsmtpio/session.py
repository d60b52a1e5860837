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
from typing import NamedTuple

from acceptutils.fixsmtpio import answers, request
from acceptutils.fixsmtpio import reply as replies
from acceptutils.fixsmtpio.answers import Answer, Then
from acceptutils.fixsmtpio.request import Kind, Mode, Taken, verb_of, without_secrets
from acceptutils.fixsmtpio.rules import (
    CLIENTEOF,
    GREETING,
    IN_DATA,
    OCCURRENCES,
    TIMEOUT,
    Selection,
)

PENDING_LIMIT = 1000  # requests without an answer, before no more are taken

# What may be said before TLS when it is required.
BEFORE_TLS = frozenset((b"noop", b"ehlo", b"starttls", b"quit"))

# After these the server decides what the client's next bytes are: see above.
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
        self._withheld = replies.WITHHELD_EXTENSIONS | ({b"AUTH"} if self._tls_missing else set())
        self._requests = request.Reader(context.bare_lf)
        self._replies = replies.Reader()
        self._client_ended = False
        self._last_code = b""
        self._unlogged = b""  # start of a line of a message, when messages are logged
        self._pending: deque[Expected | Answer | HungUp] = deque(
            (Expected(GREETING, silent=context.restarted),)
        )
        self.to_server: list[bytes] = []
        self.to_client: list[bytes] = []
        self.server_input_ended = False  # close the server's input once to_server is written
        self.hung_up = False  # the client's end of file has been dealt with, no rule said exit
        self.client_sends_on = False  # it may: we end in the middle of what it has to say
        self.outcome: Outcome | None = None
        self.notes: list[str] = []  # for the log: what was refused
        self.completed = 0  # lines and messages so far
        self.changes: list[replies.Change] | None = None  # set to a list: what rules did

    # What the loop wants to know

    def wants_client(self) -> bool:
        """Tell whether more of the client's bytes could be taken."""
        return self._requests.has_room() and not self._client_ended

    def has_partial_line(self) -> bool:
        """Tell whether the client has started a command and not finished it."""
        return self._requests.has_partial_line()

    def message_bytes(self) -> int | None:
        """Return how much of a message has come, None when none is being sent."""
        return self._requests.message_bytes()

    # The client's side

    def client(self, data: bytes) -> None:
        """Take bytes read from the client."""
        self._requests.feed(data)
        self._consume()

    def client_end(self) -> None:
        """Take the client's end of file, after everything it sent."""
        self._client_ended = True
        self._consume()

    def _consume(self) -> None:
        """Handle as much of what the client has sent as can be handled now."""
        requests = self._requests
        while len(self._pending) < PENDING_LIMIT and (taken := requests.take()):
            if taken.kind is Kind.LINE:
                self._line(taken.data)
            elif taken.kind is Kind.BAD_LINE:
                self._refuse("line too long, or NUL in it", answers.LINE_TOO_LONG)
            else:
                self._part(taken)
        if self._client_ended and not self.server_input_ended and requests.is_drained():
            self._client_has_ended()

    def _line(self, line: bytes) -> None:
        self.completed += 1
        in_auth = self._requests.in_auth
        verb = b"auth" if in_auth else verb_of(line)
        if self._log:
            self._log_request("1", line, verb)
        if b"\r" in line:
            self._answer(answers.BARE_CR_IN_COMMAND)
        elif in_auth:
            self._send(line, verb, verb)
        elif verb in _OWN_VERBS:
            _OWN_VERBS[verb](self, line)
        elif self._tls_missing and verb not in BEFORE_TLS:
            self._answer(answers.TLS_FIRST)
        else:
            self._forward(line, verb)

    def _forward(self, line: bytes, verb: bytes) -> None:
        event = b"" if verb in OCCURRENCES else verb
        prepend = self._selection.prepends.get(event)
        if prepend:
            line = prepend + line
            verb = verb_of(line)
        self._send(line, event, verb)

    def _send(self, line: bytes, event: bytes, verb: bytes) -> None:
        if self._log:
            self._log_request("2", line, event)
        # A server may take LF alone for a line end, or not: with CR LF it sees our lines.
        self.to_server.append(line + b"\r\n")
        self._pending.append(Expected(event, verb))
        if verb in HOLDING:
            self._requests.mode = Mode.HELD

    def _starttls(self, line: bytes) -> None:
        context = self._context
        if not context.tls_available or context.in_tls:
            self._answer(answers.STARTTLS_REFUSED)
        elif b"starttls" in self._selection.prepends:
            self._forward(line, b"starttls")  # a rule file that switches it off
        elif len(line.split()) > 1:
            self._answer(answers.STARTTLS_ARGUMENT)
        else:
            self._requests.stop()
            self._answer(answers.STARTTLS_READY, Then.START_TLS)

    def _bdat(self, line: bytes) -> None:
        """Refuse BDAT, and keep its octets from being taken for commands (RFC 3030, 2)."""
        words = line.split()
        if len(words) < 2 or not words[1].isdigit() or len(words[1]) > 18:
            self._refuse("BDAT without a size", answers.BDAT_WITHOUT_SIZE)
            return
        self._answer(answers.TLS_FIRST if self._tls_missing else answers.BDAT_REFUSED)
        self._requests.skip(int(words[1]))

    def _part(self, taken: Taken) -> None:
        """Pass on a part of a message, or refuse the message before the server sees an end."""
        if self._log:
            self._log_message(taken.data)
        if taken.data:
            self.to_server.append(taken.data)
        if taken.kind is Kind.PART:
            return
        if taken.kind is Kind.END:
            self.completed += 1
            return
        self._pending.pop()  # the server's reply to the message: it will never get the rest
        if taken.kind is Kind.BARE:
            self._refuse("bare CR or LF in DATA", answers.BARE_NEWLINE)
        else:
            self._refuse("NUL at the start of a line in DATA", answers.NUL_IN_MESSAGE)

    def _refuse(self, note: str, answer: bytes) -> None:
        self.client_sends_on = True
        self.notes.append(note)
        self._requests.stop()
        self._answer(answer, Then.END)

    def _client_has_ended(self) -> None:
        if self._requests.mode is Mode.MESSAGE:
            self._pending.pop()  # the reply to a message that has no end
        partial = self._requests.rest()
        self._requests.stop()
        self.server_input_ended = True
        self._pending.append(HungUp(partial))
        self._settle()

    # The server's side

    def server(self, data: bytes) -> None:
        """Take bytes read from the server."""
        try:
            for reply in self._replies.feed(data):
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
        if reply := self._replies.end():
            self._reply(reply)
        if not self.outcome:
            hung_up = [entry for entry in self._pending if isinstance(entry, HungUp)]
            self._end(self._clienteof(hung_up[0]) if hung_up else None)

    def farewell(self, reported: bool) -> bytes:
        """Return what the client is told when its server ended unasked.

        Args:
            reported: our status will make authup, if it started us, tell the client.
        """
        owed = any(isinstance(entry, Expected) and not entry.silent for entry in self._pending)
        excused = self._last_code == b"221" or self._last_code.startswith(b"4")
        if not owed or excused or (reported and self._context.authenticated):
            return b""
        return answers.SERVER_GONE

    def timeout(self) -> None:
        """End the session because nothing came in time, as if the server had said so."""
        if not self.outcome:
            self.client_sends_on = True
            self.notes.append("timed out")
            self._show([answers.TIMED_OUT], TIMEOUT)
            self._end(None)

    def _reply(self, reply: list[bytes]) -> None:
        if self._log:
            for text in reply:
                self._log("3", text)
        self._last_code = reply[-1][:3]
        if self.hung_up:
            self._show(reply, b"")
            return
        expected = self._pending.popleft() if self._pending else None
        if not isinstance(expected, Expected):
            # Nobody asked: this is how a server says that it waited too long.
            self._show(reply, TIMEOUT)
            return
        if expected.verb in HOLDING or self._last_code == b"354":
            self._held_reply(reply, expected)
        elif expected.event is IN_DATA and self._requests.mode is Mode.MESSAGE:
            # Refused before its end; whatever the client still sends of it is no command.
            self.client_sends_on = True
            self._show(reply, IN_DATA)
            self._end(None)
        elif expected.silent:
            self._last_code = b""  # the client has seen nothing of it
            self._emit(self._changed(reply, expected.event)._replace(lines=[]))
        else:
            self._show(reply, expected.event)
        self._settle()

    def _held_reply(self, reply: list[bytes], expected: Expected) -> None:
        goes_on = self._last_code == b"354"
        if expected.verb == b"data":
            self._data_reply(reply, expected, goes_on)
        elif goes_on:
            self._server_is_malformed("354 without DATA")
        else:
            self._requests.in_auth = self._last_code == b"334"
            self._requests.mode = Mode.COMMANDS
            self._show(reply, expected.event)

    def _data_reply(self, reply: list[bytes], expected: Expected, goes_on: bool) -> None:
        shown = self._changed(reply, expected.event)
        says_go_on = bool(shown.lines) and shown.lines[-1].text.startswith(b"354")
        if says_go_on and not goes_on:
            self.notes.append("a rule turns a refusal of DATA into 354")
            self._write(answers.RULES_CONTRADICT)
            self._end(shown.exitcode)
            return
        if goes_on and says_go_on:
            self._requests.start_message()
            self._pending.append(Expected(IN_DATA))
        else:
            self._requests.mode = Mode.COMMANDS
        self._emit(shown)
        if goes_on and not says_go_on:
            # The client was told no, the server waits for a message: no way to go on.
            self.client_sends_on = True
            self.notes.append("a rule refuses DATA after the server's 354")
            self._end(None)

    def _server_is_malformed(self, why: str) -> None:
        self.client_sends_on = True
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

    def _show(self, reply: list[bytes], event: bytes) -> None:
        self._emit(self._changed(reply, event))

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
                self.hung_up = exitcode is None
                if exitcode is not None:
                    self._end(exitcode)
            elif isinstance(entry, Answer):
                self._write(entry.text)
                if entry.then is Then.START_TLS:
                    self.outcome = Outcome(start_tls=True)
                elif entry.then is Then.END:
                    self._end(None)

    def _clienteof(self, entry: HungUp) -> int | None:
        return replies.change(
            [entry.partial_line], CLIENTEOF, self._selection, self._fixups, self.changes
        ).exitcode

    def _end(self, exitcode: int | None) -> None:
        """End the session, unless it has ended already."""
        if not self.outcome:
            self._requests.stop()
            self.server_input_ended = True
            self.outcome = Outcome(exitcode=exitcode)

    # The log

    def _log_request(self, mark: str, line: bytes, event: bytes) -> None:
        assert self._log
        if self._requests.in_auth:
            line = b"(AUTH exchange)"
        elif event == b"auth":
            line = without_secrets(line)
        self._log(mark, line)

    def _log_message(self, passed: bytes) -> None:
        assert self._log
        *lines, self._unlogged = (self._unlogged + passed).split(b"\r\n")
        if len(self._unlogged) > request.COMMAND_LIMIT:
            lines.append(self._unlogged)
            self._unlogged = b""
        for line in lines:
            self._log("D", line)


# Every other verb is the server's.
_OWN_VERBS: dict[bytes, Callable[[Session, bytes], None]] = {
    b"starttls": Session._starttls,
    b"bdat": Session._bdat,
}
