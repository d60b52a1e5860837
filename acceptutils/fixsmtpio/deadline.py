"""How long a session may take over what it is doing now.

The server has its own timeout for a silent client (control/timeoutsmtpd), and says so
itself; ours comes a little later, for servers that have none. Two more are absolute, so
that a byte now and then does not keep a connection: one for a command, one for a message.
"""

from acceptutils.fixsmtpio.session import Session

GRACE = 30.0  # seconds that a server gets to time out by itself
COMMAND_SECONDS = 300.0  # for one line; RFC 5321, 4.5.3.2 asks for five minutes
MESSAGE_RATE = 100  # bytes a second that a message has to come with, once time is over
END_SECONDS = 30.0  # for a server to end after its client, or a client to take a last reply


class Deadline:
    """Watches one session; all times are seconds on one monotonic clock."""

    def __init__(self, timeout: float, now: float) -> None:
        self._timeout = timeout
        self._moved = now
        self._line_since: float | None = None
        self._line_number = -1
        self._message_since: float | None = None

    def moved(self, now: float) -> None:
        """Note that a byte was read or written at either end."""
        self._moved = now

    def at(self, session: Session, now: float) -> float:
        """Return when the session's time is over, as things are now."""
        ending = session.hung_up or session.outcome
        idle = END_SECONDS if ending else self._timeout + GRACE
        ends = [self._moved + idle]
        if session.has_partial_line():
            if self._line_since is None or self._line_number != session.completed:
                self._line_since, self._line_number = now, session.completed
            ends.append(self._line_since + min(self._timeout, COMMAND_SECONDS))
        else:
            self._line_since = None
        received = session.message_bytes()
        if received is None:
            self._message_since = None
        else:
            if self._message_since is None:
                self._message_since = now
            ends.append(self._message_since + self._timeout + received / MESSAGE_RATE)
        return min(ends)
