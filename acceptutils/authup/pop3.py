"""Just enough POP3 to learn a user name and a password (RFC 1939, 2449, 2595, 5034).

SASL is there for clients that read the greeting's timestamp as an offer of APOP, which
needs passwords in plaintext on the server: curl and mpop try that unless there is SASL.
"""

from typing import ClassVar

from acceptutils.authup import lines, replies
from acceptutils.authup.credentials import Credentials, Malformed, Secret, decode_plain
from acceptutils.authup.dialogue import Dialogue, Effect, Handler, Settings, Turn, split_command
from acceptutils.authup.replies import Failure

OK = b"+OK \r\n"
ASK_PLAIN = b"+ \r\n"
STARTING = b"+OK starting TLS negotiation\r\n"
NO_STLS = b"-ERR STLS not available\r\n"
SYNTAX = b"-ERR authup syntax error\r\n"
USER_FIRST = b"-ERR authup USER first\r\n"
AUTHORIZATION_FIRST = b"-ERR authup authorization first\r\n"


class Pop3(Dialogue):
    """The POP3 side of authup."""

    name = "pop3"
    default_tries = 1
    too_long = b"-ERR line too long\r\n"

    def __init__(self, settings: Settings, stamp: bytes) -> None:
        super().__init__(settings, stamp)
        self._user = b""
        self._in_exchange = False  # the client's next line is the response of AUTH PLAIN
        self._timestamp = b"<%b@%b>" % (stamp, settings.greeting)

    def greet(self) -> bytes:
        return b"+OK %b\r\n" % self._timestamp

    def answer(self, line: bytes) -> Turn:
        if self._in_exchange:
            return self._response(line)
        verb, rest = split_command(line)
        return self.COMMANDS.get(verb, Pop3.other)(self, rest)

    def forget(self) -> None:
        self._user = b""
        self._in_exchange = False

    @staticmethod
    def failure(failure: Failure) -> bytes:
        return failure.pop3()

    def line_limit(self, prefix: bytes) -> int:
        if self._in_exchange or prefix.upper() == b"AUTH ":
            return lines.AUTH_LIMIT
        return lines.COMMAND_LIMIT

    def capa(self, _: bytes) -> Turn:
        offered = [b"+OK capability list follows"]
        if self.may_start_tls:
            offered.append(b"STLS")
        if not self.must_start_tls:
            offered += [b"USER", b"SASL PLAIN"]
        return Turn(b"\r\n".join([*offered, *self.settings.capabilities, b".", b""]))

    def stls(self, _: bytes) -> Turn:
        if not self.may_start_tls:
            return Turn(NO_STLS)
        return Turn(STARTING, Effect.START_TLS)

    def user(self, rest: bytes) -> Turn:
        if self.must_start_tls:
            return Turn(self.failure(replies.NEED_TLS))
        if not (name := rest.lstrip(b" ")):
            return Turn(SYNTAX)
        self._user = name
        return Turn(OK)

    def password(self, rest: bytes) -> Turn:
        # All behind the one space is the password (RFC 1939, 7): it may begin with one.
        if self.must_start_tls:
            return Turn(self.failure(replies.NEED_TLS))
        if not self._user:
            return Turn(USER_FIRST)
        if not rest:
            return Turn(SYNTAX)
        found = Credentials(self._user, Secret(rest), self._timestamp)
        self.forget()
        return Turn(effect=Effect.ATTEMPT, credentials=found)

    def auth(self, rest: bytes) -> Turn:
        if self.must_start_tls:
            return Turn(self.failure(replies.NEED_TLS))
        mechanism, initial = split_command(rest.lstrip(b" "))
        if mechanism != b"PLAIN":
            return Turn(self.failure(replies.NO_AUTH))
        if initial := initial.lstrip(b" "):
            return self._response(initial)
        self._in_exchange = True
        return Turn(ASK_PLAIN)

    def _response(self, line: bytes) -> Turn:
        self.forget()
        if line == b"*":
            return Turn(self.failure(replies.CANCELLED))
        try:
            found = decode_plain(line)
        except Malformed:
            return Turn(self.failure(replies.INPUT))
        return Turn(effect=Effect.ATTEMPT, credentials=found._replace(timestamp=self._timestamp))

    def noop(self, _: bytes) -> Turn:
        return Turn(OK)

    def quit(self, _: bytes) -> Turn:
        return Turn(OK, Effect.QUIT)

    def other(self, _: bytes) -> Turn:
        return Turn(AUTHORIZATION_FIRST)

    COMMANDS: ClassVar[dict[bytes, Handler["Pop3"]]] = {
        b"CAPA": capa,
        b"STLS": stls,
        b"USER": user,
        b"PASS": password,
        b"AUTH": auth,
        b"NOOP": noop,
        b"QUIT": quit,
    }
