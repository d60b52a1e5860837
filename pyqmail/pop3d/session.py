"""The POP3 conversation after authentication (RFC 1939, 5 and 6; RFC 2449).

No input or output happens here: RETR, TOP and QUIT return what is to be done.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pyqmail.pop3d.maildrop import Message

OK = b"+OK \r\n"
SYNTAX = b"-ERR syntax error\r\n"
UNIMPLEMENTED = b"-ERR unimplemented\r\n"
NO_SUCH_MESSAGE = b"-ERR no such message\r\n"
ALREADY_DELETED = b"-ERR already deleted\r\n"
CANNOT_OPEN = b"-ERR unable to open that message\r\n"
CANNOT_UNLINK = b"-ERR unable to unlink all deleted messages\r\n"
NO_MAILDIR = b"-ERR this user has no $HOME/Maildir\r\n"
CANNOT_SCAN = b"-ERR unable to scan $HOME/Maildir\r\n"
LINE_TOO_LONG = b"-ERR line too long\r\n"
CAPABILITIES = b"+OK capability list follows\r\nTOP\r\nUIDL\r\nPIPELINING\r\n.\r\n"

UIDL_TABLE = bytes(code if 33 <= code <= 126 else ord("?") for code in range(256))
DIGITS = b"0123456789"
NUMBER_DIGITS = 18  # more than any mailbox has messages or any message lines


class Transfer(NamedTuple):
    """The answer is a message: all of it, or its header and so many lines."""

    number: int  # index into the messages
    lines: int | None


class Quit(NamedTuple):
    """The session is over; deleted and read messages are dealt with now."""


Answer = bytes | Transfer | Quit


def scan_number(text: bytes) -> tuple[int | None, bytes]:
    """Return the number that text begins with, None without one, and what follows it."""
    rest = text.lstrip(DIGITS)
    digits = text[: len(text) - len(rest)]
    if not digits:
        return None, rest
    return int(digits) if len(digits) <= NUMBER_DIGITS else 10**NUMBER_DIGITS, rest


class Session:
    """One client's conversation about a list of messages."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self.deleted: set[int] = set()
        self.read: set[int] = set()
        self.last = 0

    def command(self, line: bytes) -> Answer:
        """Return the answer to one command line."""
        verb, _, argument = line.partition(b" ")
        handler = VERBS.get(verb.lower())
        return handler(self, argument.lstrip(b" ")) if handler else UNIMPLEMENTED

    def sent(self, transfer: Transfer) -> None:
        """Take note that a message was sent; the whole of it makes it a read one."""
        if transfer.lines is None:
            self.read.add(transfer.number)
            self.last = max(self.last, transfer.number + 1)

    def stat_command(self, argument: bytes) -> Answer:
        """STAT: how many messages, and their bytes."""
        sizes = [message.size for _, message in self._remaining()]
        return b"+OK %d %d\r\n" % (len(sizes), sum(sizes))

    def list_command(self, argument: bytes) -> Answer:
        """LIST: sizes."""
        return self._listing(argument, lambda message: b"%d" % message.size)

    def uidl_command(self, argument: bytes) -> Answer:
        """UIDL: names that stay the same."""
        return self._listing(argument, uid)

    def retr_command(self, argument: bytes) -> Answer:
        """RETR: a message. As in netqmail, a number of lines makes it TOP."""
        index, rest = self._index(argument)
        if isinstance(index, bytes):
            return index
        lines, _ = scan_number(rest.lstrip(b" "))
        return Transfer(index, lines)

    def dele_command(self, argument: bytes) -> Answer:
        """DELE: mark for deletion."""
        index, _ = self._index(argument)
        if isinstance(index, bytes):
            return index
        self.deleted.add(index)
        self.last = max(self.last, index + 1)
        return OK

    def last_command(self, argument: bytes) -> Answer:
        """LAST: the highest number that was read or deleted (RFC 1460)."""
        return b"+OK %d\r\n" % self.last

    def rset_command(self, argument: bytes) -> Answer:
        """RSET: take back all marks."""
        self.deleted.clear()
        self.last = 0
        return OK

    def noop_command(self, argument: bytes) -> Answer:
        """NOOP: do nothing."""
        return OK

    def capa_command(self, argument: bytes) -> Answer:
        """CAPA: what is offered."""
        return CAPABILITIES

    def quit_command(self, argument: bytes) -> Answer:
        """QUIT: end, and only now delete."""
        return Quit()

    def _remaining(self) -> list[tuple[int, Message]]:
        return [item for item in enumerate(self.messages) if item[0] not in self.deleted]

    def _listing(self, argument: bytes, field: Callable[[Message], bytes]) -> Answer:
        if argument:
            index, _ = self._index(argument)
            if isinstance(index, bytes):
                return index
            return b"+OK %d %s\r\n" % (index + 1, field(self.messages[index]))
        lines = [b"%d %s\r\n" % (i + 1, field(message)) for i, message in self._remaining()]
        return b"".join([OK, *lines, b".\r\n"])

    def _index(self, argument: bytes) -> tuple[int | bytes, bytes]:
        """Return the index of the message an argument names or an error, and what follows."""
        number, rest = scan_number(argument)
        if number is None:
            return SYNTAX, rest
        if not 0 < number <= len(self.messages):
            return NO_SUCH_MESSAGE, rest
        if number - 1 in self.deleted:
            return ALREADY_DELETED, rest
        return number - 1, rest


def uid(message: Message) -> bytes:
    """Return the unique-id of a message: its name up to the colon."""
    return message.unique.encode("utf-8", "surrogateescape").translate(UIDL_TABLE)


VERBS: dict[bytes, Callable[[Session, bytes], Answer]] = {
    b"capa": Session.capa_command,
    b"dele": Session.dele_command,
    b"last": Session.last_command,
    b"list": Session.list_command,
    b"noop": Session.noop_command,
    b"quit": Session.quit_command,
    b"retr": Session.retr_command,
    b"rset": Session.rset_command,
    b"stat": Session.stat_command,
    b"top": Session.retr_command,
    b"uidl": Session.uidl_command,
}
