"""An SMTP server that takes no mail: every recipient is refused, with the reason.

It says nothing new before RCPT, so that the reason reaches the sender's bounce or log.
"""

from acceptutils.rblsmtpd.lists import Refusal

NAME = b"rblsmtpd.local"
LINE_LIMIT = 4096
TEXT_LIMIT = 500  # bytes; a reply line has room for 512 (RFC 5321, 4.5.3.1.5)

GREETING = b"220 " + NAME + b"\r\n"
OK = b"250 " + NAME + b"\r\n"
BYE = b"221 " + NAME + b"\r\n"
TOO_LONG = b"500 line too long (#5.5.2)\r\n"

# What a client may say without being refused.
HARMLESS = frozenset((b"helo", b"ehlo", b"mail", b"rset", b"noop"))


def refusal_line(refusal: Refusal) -> bytes:
    """Return the reply, in one line of printable ASCII."""
    text = "".join(c if " " <= c <= "~" else "?" for c in refusal.text)
    return f"{refusal.code} {text}"[:TEXT_LIMIT].encode("ascii")


class Conversation:
    """What is said to a client that is refused."""

    def __init__(self, refusal: Refusal) -> None:
        self._refused = refusal_line(refusal) + b"\r\n"
        self._line = b""
        self.over = False

    def feed(self, data: bytes) -> bytes:
        """Return the replies to the lines that data ends; sets `over` with the last one."""
        lines = (self._line + data).split(b"\n")
        self._line = lines.pop()
        replies = []
        for line in lines:
            replies.append(self._reply(line))
            if self.over:
                return b"".join(replies)
        if len(self._line) > LINE_LIMIT:
            self.over = True
            replies.append(TOO_LONG)
        return b"".join(replies)

    def _reply(self, line: bytes) -> bytes:
        if len(line) > LINE_LIMIT:
            self.over = True
            return TOO_LONG
        verb = line[:10].split(b" ", 1)[0].strip().lower()
        if verb == b"quit":
            self.over = True
            return BYE
        return OK if verb in HARMLESS else self._refused
