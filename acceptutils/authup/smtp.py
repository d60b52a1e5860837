"""Just enough SMTP to learn a user name and a password (RFC 5321, 3207, 4954)."""

from collections.abc import Callable
from typing import ClassVar

from acceptutils.authup import lines, replies
from acceptutils.authup.credentials import (
    Credentials,
    Malformed,
    Secret,
    decode_plain,
    decode_word,
)
from acceptutils.authup.dialogue import Dialogue, Effect, Handler, Settings, Turn, split_command
from acceptutils.authup.replies import Failure

ASK_USER = b"334 VXNlcm5hbWU6\r\n"  # "Username:"
ASK_PASSWORD = b"334 UGFzc3dvcmQ6\r\n"  # "Password:"
ASK_PLAIN = b"334 \r\n"
READY = b"220 Ready to start TLS (#5.7.0)\r\n"
UNIMPLEMENTED = b"502 unimplemented (#5.5.1)\r\n"
REQUIRED = b"530 authup authentication required (#5.7.1)\r\n"
HOME_PAGE = b"214 authup home page: https://schmonz.com/qmail/acceptutils\r\n"
OK = b"250 ok\r\n"


def multiline(code: bytes, texts: list[bytes]) -> bytes:
    """Return one reply of several lines (RFC 5321, 4.2.1)."""
    first = b"".join(b"%b-%b\r\n" % (code, text) for text in texts[:-1])
    return first + b"%b %b\r\n" % (code, texts[-1])


class Smtp(Dialogue):
    """The SMTP side of authup."""

    name = "smtp"
    default_tries = 5
    too_long = b"500 line too long (#5.5.2)\r\n"

    def __init__(self, settings: Settings, stamp: bytes) -> None:
        super().__init__(settings, stamp)
        self._user = b""
        # Set in an AUTH exchange: what takes the client's next line.
        self._awaits: Callable[[bytes], Turn] | None = None

    def greet(self) -> bytes:
        return b"220 %b ESMTP\r\n" % self.settings.greeting

    def answer(self, line: bytes) -> Turn:
        if self._awaits is None:
            verb, rest = split_command(line)
            return self.COMMANDS.get(verb, Smtp.other)(self, rest.lstrip(b" "))
        take, self._awaits = self._awaits, None
        if line == b"*":
            self.forget()
            return Turn(self.failure(replies.CANCELLED))
        return self._exchange(take, line)

    def forget(self) -> None:
        self._user = b""
        self._awaits = None

    @staticmethod
    def failure(failure: Failure) -> bytes:
        return failure.smtp()

    def line_limit(self, prefix: bytes) -> int:
        if self._awaits is not None or prefix.upper() == b"AUTH ":
            return lines.AUTH_LIMIT
        return lines.COMMAND_LIMIT

    # Commands

    def ehlo(self, _: bytes) -> Turn:
        texts = [self.settings.greeting]
        if self.may_start_tls:
            texts.append(b"STARTTLS")
        if not self.must_start_tls:
            texts.append(b"AUTH LOGIN PLAIN")
            if self.settings.broken_clients:
                texts.append(b"AUTH=LOGIN PLAIN")
        texts.extend(self.settings.capabilities)
        return Turn(multiline(b"250", texts))

    def helo(self, _: bytes) -> Turn:
        return Turn(b"250 %b\r\n" % self.settings.greeting)

    def starttls(self, _: bytes) -> Turn:
        if not self.may_start_tls:
            return Turn(UNIMPLEMENTED)
        return Turn(READY, Effect.START_TLS)

    def auth(self, argument: bytes) -> Turn:
        if self.must_start_tls:
            return Turn(self.failure(replies.NEED_TLS))
        mechanism, initial = split_command(argument)
        mechanisms = {b"LOGIN": (ASK_USER, self._login_user), b"PLAIN": (ASK_PLAIN, self._plain)}
        if mechanism not in mechanisms:
            return Turn(self.failure(replies.NO_AUTH))
        question, take = mechanisms[mechanism]
        if initial := initial.lstrip(b" "):
            return self._exchange(take, initial)
        self._awaits = take
        return Turn(question)

    def help(self, _: bytes) -> Turn:
        return Turn(HOME_PAGE)

    def noop(self, _: bytes) -> Turn:
        return Turn(OK)

    def quit(self, _: bytes) -> Turn:
        return Turn(b"221 %b\r\n" % self.settings.greeting, Effect.QUIT)

    def other(self, _: bytes) -> Turn:
        return Turn(REQUIRED)

    COMMANDS: ClassVar[dict[bytes, Handler["Smtp"]]] = {
        b"EHLO": ehlo,
        b"HELO": helo,
        b"STARTTLS": starttls,
        b"AUTH": auth,
        b"HELP": help,
        b"NOOP": noop,
        b"QUIT": quit,
    }

    # The AUTH exchange: each method takes one line of base64

    def _exchange(self, take: Callable[[bytes], Turn], line: bytes) -> Turn:
        try:
            return take(line)
        except Malformed:
            self.forget()
            return Turn(self.failure(replies.INPUT))

    def _login_user(self, line: bytes) -> Turn:
        self._user = decode_word(line)
        self._awaits = self._login_password
        return Turn(ASK_PASSWORD)

    def _login_password(self, line: bytes) -> Turn:
        found = Credentials(self._user, Secret(decode_word(line)), b"")
        self.forget()
        return Turn(effect=Effect.ATTEMPT, credentials=found)

    def _plain(self, line: bytes) -> Turn:
        return Turn(effect=Effect.ATTEMPT, credentials=decode_plain(line))
