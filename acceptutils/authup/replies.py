"""What authup says when something is wrong, in both protocols."""

from typing import NamedTuple


class Failure(NamedTuple):
    """One failure: its SMTP code and enhanced status code (RFC 3463), and its words."""

    code: bytes
    enhanced: bytes
    words: bytes

    def smtp(self) -> bytes:
        """Return the SMTP reply line."""
        return b"%b authup %b (#%b)\r\n" % (self.code, self.words, self.enhanced)

    def pop3(self) -> bytes:
        """Return the POP3 reply line."""
        return b"-ERR authup %b\r\n" % self.words


# Fatal: the reply is the last one, the exit status is 1.
CONTROL = Failure(b"421", b"4.3.0", b"unable to read controls")
NO_MEMORY = Failure(b"451", b"4.3.0", b"out of memory")
TIMEOUT = Failure(b"451", b"4.4.2", b"timeout")
PIPE = Failure(b"454", b"4.3.0", b"unable to open pipe")
READ = Failure(b"454", b"4.3.0", b"unable to read pipe")
WRITE = Failure(b"454", b"4.3.0", b"unable to write pipe")
FORK = Failure(b"454", b"4.3.0", b"unable to fork")
WAIT = Failure(b"454", b"4.3.0", b"unable to wait for child")
CRASH = Failure(b"454", b"4.3.0", b"aack, child crashed")
PROTOCOL = Failure(b"501", b"5.0.0", b"protocol exchange ended")
STARTTLS = Failure(b"454", b"5.7.3", b"TLS temporarily not available")

# The client may try again.
BAD_AUTH = Failure(b"535", b"5.7.0", b"authorization failed")
NO_AUTH = Failure(b"504", b"5.5.1", b"auth type unimplemented")
INPUT = Failure(b"501", b"5.5.4", b"malformed auth input")
CANCELLED = Failure(b"501", b"5.0.0", b"auth exchange cancelled")
NEED_TLS = Failure(b"530", b"5.7.0", b"Must start TLS first")


class Fatal(Exception):
    """Ends the connection with a last reply and exit status 1."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.words.decode("ascii"))
        self.failure = failure
