"""authup's side of authguardd: ask before an attempt, say afterwards what became of it.

A guard that is not there, or does not answer, never keeps anybody out: the attempt is made,
and the log says that it was not guarded.
"""

import socket

from acceptutils.guard import wire
from acceptutils.guard.wire import Answer, Outcome, Question, WireError
from ucspi import log

ANSWER_SECONDS = 2

UNGUARDED = Answer(False, 0)


class Ticket:
    """One attempt: the guard's answer, and the way to tell it the outcome."""

    def __init__(self, answer: Answer, connection: socket.socket | None) -> None:
        self.answer = answer
        self._connection = connection

    def tell(self, outcome: Outcome | None) -> None:
        """Say what became of the attempt, once; None: no password was judged."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            if outcome is not None:
                connection.send(outcome.value, socket.MSG_DONTWAIT)
        except OSError:
            pass  # it has ended meanwhile
        finally:
            connection.close()

    def passed(self) -> None:
        """Say that the password was right."""
        self.tell(Outcome.PASSED)


def ask(env: dict[str, str], account: bytes, avoid: int) -> Ticket:
    """Return what the guard at AUTHGUARD_SOCKET says of an attempt.

    Args:
        env: also TCPREMOTEIP and CHECKPASSWORD_SERVICE are read.
        account: the user name, as the client gave it.
        avoid: a descriptor that the connection must not be.
    """
    path = env.get("AUTHGUARD_SOCKET")
    if not path:
        return Ticket(UNGUARDED, None)
    service = env.get("CHECKPASSWORD_SERVICE", "")
    question = Question(
        service.encode("utf-8", "surrogateescape"),
        env.get("TCPREMOTEIP", "").encode("utf-8", "surrogateescape"),
        account,
    )
    connection = _connection(avoid)
    try:
        connection.connect(path)
        connection.send(wire.pack_question(question))
        return Ticket(wire.parse_answer(connection.recv(wire.ANSWER_LIMIT)), connection)
    except (OSError, WireError) as error:
        connection.close()
        reason = error.strerror if isinstance(error, OSError) else error
        log.event(env, f"authup: this attempt is not guarded: {path}: {reason}")
        return Ticket(UNGUARDED, None)


def _connection(avoid: int) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if connection.fileno() == avoid:
        taken, connection = connection, connection.dup()
        taken.close()
    # Not settimeout: that makes the socket non-blocking, and connect then fails at once
    # where others are waiting for the guard to accept them.
    limit = ANSWER_SECONDS.to_bytes(8, "little") + bytes(8)  # struct timeval
    for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, limit)
    return connection
