"""The SMTP conversation up to DATA, as qmail-smtpd and ofmipd both hold it.

No input or output happens here, except in the checks that a server plugs in.
"""

import enum
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from pyqmail.smtp import reply
from pyqmail.smtp.address import Path, parse_path
from pyqmail.smtp.reply import Reply

RECIPIENT_LIMIT = 10_000  # of one message; each is at most 900 bytes, so 9 MB


class Next(enum.Enum):
    """What the reader of commands does after the reply."""

    COMMAND = enum.auto()
    MESSAGE = enum.auto()  # the reply to DATA is yet to be made
    END = enum.auto()
    ABORT = enum.auto()  # end, and what the client still sends is not for us


class Command(NamedTuple):
    """One command line."""

    verb: bytes
    argument: bytes


def split_command(line: bytes) -> Command:
    """Return the verb in lower case, and its argument without leading spaces."""
    verb, _, argument = line.partition(b" ")
    return Command(verb.lower(), argument.lstrip(b" "))


class Session:
    """One client's conversation with a server.

    Args:
        name: what the server calls itself in its replies.
        size_limit: bytes that a message may have; 0 when there is no limit.
        event: takes one line for the log.
        parameters: the keywords of MAIL that are accepted, beside SIZE and BODY.
    """

    HELP: ClassVar[bytes]

    def __init__(
        self,
        name: bytes,
        size_limit: int,
        event: Callable[[str], None],
        parameters: frozenset[bytes] = frozenset(),
    ) -> None:
        self.name = name
        self.size_limit = size_limit
        self.event = event
        self.accepted_parameters = parameters
        self.helo: bytes | None = None
        self.sender: bytes | None = None  # None: no transaction
        self.recipients: list[bytes] = []
        self.next = Next.COMMAND

    # What a server decides for itself.

    def check_sender(self, address: bytes) -> bytes | Reply:
        """Return the envelope sender for the MAIL address, or the refusal."""
        return address

    def check_recipient(self, address: bytes) -> bytes | Reply:
        """Return the envelope recipient for the RCPT address, or the refusal."""
        return address

    # The conversation.

    def greeting(self) -> Reply:
        """Return the banner."""
        return reply.reply(220, self.name + b" ESMTP")

    def command(self, line: bytes) -> Reply | None:
        """Return the reply to one command line; None for a DATA that is allowed."""
        if b"\0" in line:
            self.next = Next.ABORT
            return reply.NUL_IN_LINE
        verb, argument = split_command(line)
        handler = VERBS.get(verb)
        return handler(self, argument) if handler else reply.UNIMPLEMENTED

    def reset(self) -> None:
        """Forget the transaction."""
        self.sender = None
        self.recipients = []

    def helo_command(self, argument: bytes) -> Reply:
        """HELO: introduce oneself."""
        self.reset()
        self.helo = argument
        return reply.reply(250, self.name)

    def ehlo_command(self, argument: bytes) -> Reply:
        """EHLO: introduce oneself and ask what is offered."""
        self.reset()
        self.helo = argument
        size = b"SIZE %d" % self.size_limit if self.size_limit else b"SIZE"
        return reply.reply(250, self.name, b"PIPELINING", b"8BITMIME", size)

    def mail_command(self, argument: bytes) -> Reply:
        """MAIL: begin a transaction."""
        path = parse_path(argument)
        if path is None:
            return reply.SYNTAX
        if refusal := self.refuse_parameters(path):
            return refusal
        sender = self.check_sender(path.address)
        if isinstance(sender, Reply):
            return sender
        self.reset()
        self.sender = sender
        return reply.OK

    def refuse_parameters(self, path: Path) -> Reply | None:
        """Return the reply to parameters of MAIL that are unknown or promise too much."""
        for parameter in path.parameters:
            keyword, _, value = parameter.partition(b"=")
            keyword = keyword.upper()
            if keyword == b"SIZE" and value.isdigit() and len(value) <= 20:
                if 0 < self.size_limit < int(value):
                    return reply.TOO_BIG
            elif keyword == b"BODY" and value.upper() in (b"7BIT", b"8BITMIME"):
                pass
            elif keyword not in self.accepted_parameters:
                return reply.SYNTAX
        return None

    def rcpt_command(self, argument: bytes) -> Reply:
        """RCPT: name one recipient."""
        if self.sender is None:
            return reply.WANT_MAIL
        path = parse_path(argument)
        if path is None or path.parameters:
            return reply.SYNTAX
        if len(self.recipients) >= RECIPIENT_LIMIT:
            return reply.TOO_MANY_RECIPIENTS
        recipient = self.check_recipient(path.address)
        if isinstance(recipient, Reply):
            return recipient
        self.recipients.append(recipient)
        return reply.OK

    def data_command(self, argument: bytes) -> Reply | None:
        """DATA: allowed once there are a sender and a recipient."""
        if self.sender is None:
            return reply.WANT_MAIL
        if not self.recipients:
            return reply.WANT_RCPT
        self.next = Next.MESSAGE
        return None

    def rset_command(self, argument: bytes) -> Reply:
        """RSET: forget the transaction."""
        self.reset()
        return reply.FLUSHED

    def help_command(self, argument: bytes) -> Reply:
        """HELP: say where help is."""
        return reply.reply(214, self.HELP)

    def noop_command(self, argument: bytes) -> Reply:
        """NOOP: do nothing."""
        return reply.OK

    def vrfy_command(self, argument: bytes) -> Reply:
        """VRFY: promise nothing."""
        return reply.VRFY

    def quit_command(self, argument: bytes) -> Reply:
        """QUIT: end."""
        self.next = Next.END
        return reply.reply(221, self.name)

    def bdat_command(self, argument: bytes) -> Reply:
        """BDAT: not offered. What follows is data, and must never be read as commands."""
        self.next = Next.ABORT
        return reply.UNIMPLEMENTED


VERBS: dict[bytes, Callable[[Session, bytes], Reply | None]] = {
    b"bdat": Session.bdat_command,
    b"data": Session.data_command,
    b"ehlo": Session.ehlo_command,
    b"helo": Session.helo_command,
    b"help": Session.help_command,
    b"mail": Session.mail_command,
    b"noop": Session.noop_command,
    b"quit": Session.quit_command,
    b"rcpt": Session.rcpt_command,
    b"rset": Session.rset_command,
    b"vrfy": Session.vrfy_command,
}
