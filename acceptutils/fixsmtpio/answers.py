"""What fixsmtpio itself says to a client, and what it does then. One table of replies."""

from enum import Enum, auto
from typing import NamedTuple

STARTTLS_READY = b"220 Ready to start TLS (#5.7.0)\r\n"
STARTTLS_REFUSED = b"502 unimplemented (#5.5.1)\r\n"
STARTTLS_ARGUMENT = b"501 STARTTLS takes no argument (#5.5.4)\r\n"
TLS_FIRST = b"530 Must start TLS first (#5.7.0)\r\n"

LINE_TOO_LONG = b"500 line too long (#5.5.2)\r\n"  # also for a NUL in a line
BARE_CR_IN_COMMAND = b"500 bare carriage return in a command (#5.5.2)\r\n"
BDAT_REFUSED = b"502 unimplemented (#5.5.1)\r\n"
BDAT_WITHOUT_SIZE = b"501 BDAT without a size (#5.5.4)\r\n"
BARE_NEWLINE = b"451 See http://pobox.com/~djb/docs/smtplf.html.\r\n"
NUL_IN_MESSAGE = b"554 NUL at the start of a line in DATA (#5.6.0)\r\n"

TIMED_OUT = b"451 timeout (#4.4.2)"  # a reply of the server's, as far as rules can tell
SERVER_MALFORMED = b"421 malformed reply from the server (#4.3.0)\r\n"
SERVER_GONE = b"421 server closed the connection (#4.3.0)\r\n"
RULES_CONTRADICT = b"421 a rule turned a refusal of DATA into 354 (#4.3.0)\r\n"
CONTROLS_UNREADABLE = b"421 unable to read controls (#4.3.0)\r\n"


class Then(Enum):
    """What follows an answer."""

    GO_ON = auto()
    START_TLS = auto()
    END = auto()


class Answer(NamedTuple):
    """A reply that the proxy gives, once everything before it has been answered."""

    text: bytes
    then: Then = Then.GO_ON
