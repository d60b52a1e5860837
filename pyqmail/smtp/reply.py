"""SMTP replies: the type, and those that qmail-smtpd and ofmipd have in common."""

from typing import NamedTuple


class Reply(NamedTuple):
    """One reply (RFC 5321, 4.2): a three-digit code and its lines."""

    code: int
    lines: tuple[bytes, ...]

    def wire(self) -> bytes:
        """Return the reply as it is sent."""
        last = len(self.lines) - 1
        return b"".join(
            b"%d%s%s\r\n" % (self.code, b"-" if number < last else b" ", line)
            for number, line in enumerate(self.lines)
        )


def reply(code: int, *lines: bytes) -> Reply:
    """Return a reply of one or more lines."""
    return Reply(code, lines)


OK = reply(250, b"ok")
FLUSHED = reply(250, b"flushed")
VRFY = reply(252, b"send some mail, i'll try my best")
GO_AHEAD = reply(354, b"go ahead")

NO_CONTROLS = reply(421, b"unable to read controls (#4.3.0)")
TIMEOUT = reply(451, b"timeout (#4.4.2)")
BROKEN = reply(451, b"internal error (#4.3.0)")
STRAY_LINE_END = reply(451, b"See http://pobox.com/~djb/docs/smtplf.html.")
TOO_MANY_RECIPIENTS = reply(452, b"too many recipients (#4.5.3)")

LINE_TOO_LONG = reply(500, b"line too long (#5.5.2)")
NUL_IN_LINE = reply(500, b"NUL in line (#5.5.2)")
UNIMPLEMENTED = reply(502, b"unimplemented (#5.5.1)")
WANT_MAIL = reply(503, b"MAIL first (#5.5.1)")
WANT_RCPT = reply(503, b"RCPT first (#5.5.1)")
TOO_BIG = reply(552, b"sorry, that message size exceeds my databytes limit (#5.3.4)")
TOO_MANY_HOPS = reply(554, b"too many hops, this message is looping (#5.4.6)")
SYNTAX = reply(555, b"syntax error (#5.5.4)")
