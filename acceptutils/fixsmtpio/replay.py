"""Replay a dialogue against a rule file, and show what each rule changed.

A dialogue is text, one event a line; blank lines and lines that start with ``#`` are
skipped:

    E: NAME=VALUE   an environment variable is set
    T: available    STARTTLS can be had (or: required)
    S: TEXT         the server sends a line
    C: TEXT         the client sends a line
    S!              the server ends
    C!              the client hangs up
    T!              nothing comes for too long

E and T stand before everything else. When STARTTLS has succeeded, what follows is said
inside TLS, by a second server from its greeting on.

The transcript numbers lines as FIXSMTPIODEBUG does: 1 from the client, 2 to the server,
3 from the server, 4 to the client, D a message.
"""

from collections.abc import Iterator
from typing import NamedTuple

from acceptutils.fixsmtpio.reply import Change
from acceptutils.fixsmtpio.rules import Rules
from acceptutils.fixsmtpio.session import Context, Session

_MX = """
T: available
S: 220 server.invalid ESMTP
C: EHLO client.example
S: 250-server.invalid
S: 250-PIPELINING
S: 250-STARTTLS
S: 250-AUTH LOGIN PLAIN
S: 250 8BITMIME
C: HELP
S: 214 server's own help
C: STARTTLS
S: 220 server.invalid ESMTP
C: EHLO client.example
S: 250-server.invalid
S: 250 8BITMIME
C: QUIT
S: 221 server.invalid
S!
"""

_AUTHENTICATED = """
E: AUTHUP_USER=alice@example.org
S: 220 server.invalid ESMTP
C: EHLO client.example
S: 250-server.invalid
S: 250-STARTTLS
S: 250-AUTH LOGIN PLAIN
S: 250 8BITMIME
C: AUTH PLAIN AGEAYg==
S: 250 ok
C: MAIL FROM:<alice@example.org>
S: 250 ok
C: RCPT TO:<bob@example.net>
S: 250 ok
C: DATA
S: 354 go ahead
C: Subject: hello
C: .
S: 250 ok 1700000000 qp 1
"""

# What `try` shows when no dialogue is given.
EXAMPLES = {
    "a client from outside, STARTTLS available": _MX,
    "an authenticated client that hangs up": _AUTHENTICATED + "C!\n",
    "an authenticated client that is too slow": _AUTHENTICATED + "S: 451 timeout (#4.4.2)\nS!\n",
    "an authenticated client, a server that cannot serve": (
        "E: AUTHUP_USER=alice@example.org\nS: 421 out of memory (#4.3.0)\nS!\n"
    ),
}


class DialogueError(Exception):
    """A line of a dialogue that is none of the forms above."""


class Event(NamedTuple):
    """One line of a dialogue: who (E, T, S, C, or S!, C!, T!) and what."""

    line: int
    who: str
    text: str


def parse(dialogue: str) -> list[Event]:
    """Return the events of a dialogue.

    Raises:
        DialogueError: a line has none of the forms.
    """
    events = []
    for number, raw in enumerate(dialogue.splitlines(), 1):
        line = raw.rstrip()
        if not line or line.startswith("#"):
            continue
        if line in ("S!", "C!", "T!"):
            events.append(Event(number, line, ""))
        elif line[:2] in ("E:", "T:", "S:", "C:"):
            events.append(Event(number, line[0], line[2:].removeprefix(" ")))
        else:
            raise DialogueError(f"line {number}: neither E:, T:, S:, C: nor S!, C!, T!")
    return events


class Replay:
    """One dialogue, played to the session that the programs use."""

    def __init__(self, rules: Rules, greeting: bytes, env: dict[str, str], tls: str) -> None:
        self._rules = rules
        self._env = dict(env)
        self._context = Context(
            greeting=greeting,
            tls_available=tls in ("available", "required"),
            tls_required=tls == "required",
            authenticated="AUTHUP_USER" in env,
            bare_lf="FIXSMTPIO_BARELF" in env,
        )
        self.transcript: list[str] = []
        self._changes: list[Change] = []
        self._heard = self._shown = False  # a reply, by us and by the client, in this event
        self._start()

    def _start(self) -> None:
        self._session = Session(self._rules.select(self._env), self._context, self._log)
        self._session.changes = self._changes

    def play(self, event: Event) -> None:
        """Let one event happen; one behind the end of the session is shown as unheard."""
        session = self._session
        if session.outcome:
            if event.text:
                self.transcript.append(f"-: {event.who}: {event.text} (not heard)")
            return
        data = event.text.encode("utf-8", "surrogateescape") + b"\r\n"
        self._heard = self._shown = False
        match event.who:
            case "C":
                session.client(data)
            case "S":
                session.server(data)
            case "C!":
                session.client_end()
            case "S!":
                session.server_end()
            case "T!":
                session.timeout()
        self._show_changes()
        if self._heard and not self._shown and not event.text.startswith("-", 3):
            self.transcript.append("   nothing is shown to the client")
        self.transcript.extend(f"!: {note}" for note in session.notes)
        session.notes.clear()
        if session.outcome:
            self._show_outcome(session)

    def _show_outcome(self, session: Session) -> None:
        if session.outcome and session.outcome.start_tls:
            self.transcript.append("!: TLS starts, a new server too")
            self._env["FIXSMTPIOTLS"] = "1"
            self._context = self._context._replace(in_tls=True, restarted=True)
            self._start()
        elif session.outcome and session.outcome.exitcode is not None:
            self.transcript.append(f"!: exit {session.outcome.exitcode}")
        else:
            self.transcript.append("!: exit as the server does")

    def _log(self, mark: str, line: bytes) -> None:
        self._show_changes()
        self._heard = self._heard or mark == "3"
        self._shown = self._shown or mark == "4"
        self.transcript.append(f"{mark}: {_readable(line)}")

    def _show_changes(self) -> None:
        for change in self._changes:
            self.transcript.extend(_explain(change))
        self._changes.clear()


def replay(rules: Rules, dialogue: str, greeting: bytes = b"mail.example.org") -> list[str]:
    """Return the transcript of a dialogue.

    Raises:
        DialogueError: a line of the dialogue has none of the forms.
    """
    env: dict[str, str] = {}
    tls = ""
    events = parse(dialogue)
    while events and events[0].who in ("E", "T"):
        event = events.pop(0)
        if event.who == "T":
            tls = event.text
        else:
            name, _, value = event.text.partition("=")
            env[name] = value
    player = Replay(rules, greeting, env, tls)
    for event in events:
        if event.who in ("E", "T"):
            raise DialogueError(f"line {event.line}: E: and T: stand before everything else")
        player.play(event)
    return player.transcript


def _explain(change: Change) -> Iterator[str]:
    rule = change.rule
    where = f"   rule in line {rule.line} ({_readable(rule.event)}, {_readable(rule.glob.pattern)})"
    if change.before == change.after:
        yield f"{where}: no change"
    for text in change.before:
        if text not in change.after:
            yield f"{where}: - {_readable(text)}"
    for text in change.after:
        if text not in change.before:
            yield f"{where}: + {_readable(text)}"
    if rule.exitcode is not None:
        yield f"{where}: exit code {rule.exitcode}"


def _readable(text: bytes) -> str:
    return text.decode("ascii", "backslashreplace")
