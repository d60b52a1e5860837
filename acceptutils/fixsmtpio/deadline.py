"""How long a session may take over what it is doing now.

The server has its own timeout for a silent client (control/timeoutsmtpd), and says so
itself; ours comes a little later, for servers that have none. The others are absolute, so
that a byte now and then does not keep a connection: one each for a command, for a
message, for taking replies, and for the end.
"""

from acceptutils.fixsmtpio.session import Session

GRACE = 30.0  # seconds that a server gets to time out by itself
COMMAND_SECONDS = 300.0  # for one line; RFC 5321, 4.5.3.2 asks for five minutes
MESSAGE_RATE = 100  # bytes a second that a message has to come with, once time is over
SILENT_END_SECONDS = 30.0  # for a server to end after its client, or a client to take the rest
END_SECONDS = 120.0  # the same, however little it moves at a time


class _Since:
    """Since when something holds; forgotten when it does not."""

    __slots__ = ("_start", "_what")

    def __init__(self) -> None:
        self._start = 0.0
        self._what: object = None

    def of(self, what: object, now: float) -> float | None:
        """Return since when it has been the same thing, None if there is none."""
        if what != self._what:
            self._what, self._start = what, now
        return None if what is None else self._start


class Deadline:
    """Watches one session; all times are seconds on one monotonic clock."""

    def __init__(self, timeout: float, now: float) -> None:
        self._timeout = timeout
        self._moved = now
        self._line = _Since()
        self._message = _Since()
        self._backlog = _Since()
        self._end = _Since()

    def moved(self, now: float) -> None:
        """Note that a byte was read or written at either end."""
        self._moved = now

    def at(self, session: Session, now: float, *, backlog: bool = False) -> float:
        """Return when the session's time is over, as things are now.

        Args:
            session: whose.
            now: the time.
            backlog: the client has not taken all its replies.
        """
        ending = bool(session.hung_up or session.outcome)
        ends = [self._moved + (SILENT_END_SECONDS if ending else self._timeout + GRACE)]
        if (since := self._end.of(ending or None, now)) is not None:
            ends.append(since + END_SECONDS)
        if (since := self._backlog.of(backlog or None, now)) is not None:
            ends.append(since + self._timeout + GRACE)
        line = session.completed if session.has_partial_line() else None
        if (since := self._line.of(line, now)) is not None:
            ends.append(since + min(self._timeout, COMMAND_SECONDS))
        received = session.message_bytes()
        message = None if received is None else session.completed
        if (since := self._message.of(message, now)) is not None:
            ends.append(since + self._timeout + (received or 0) / MESSAGE_RATE)
        return min(ends)
