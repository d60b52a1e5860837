"""What a queueing program's exit status means, to a person and to an SMTP client.

The statuses are those of qmail-queue(8); the texts are the ones that netqmail's
programs show. The first letter of a text is the verdict: D, the message is refused for
good; Z, the sender may try again.
"""

from typing import NamedTuple

QUEUED = 0
TOO_LONG = 11
REFUSED = 31
BEYOND_ALLOWANCE = 32  # ours: see pyqmail.queue.allowance
NO_MEMORY = 51
TIMEOUT = 52
WRITE_ERROR = 53
READ_ERROR = 54
NO_CONTROL = 55
NO_NETWORK = 56
NO_HOME = 61
NO_QUEUE = 62
NO_PID = 63
NO_MESS = 64
NO_INTD = 65
NO_TODO = 66
REFUSED_FOR_NOW = 71
CONNECTION_TIMEOUT = 72
CONNECTION_REFUSED = 73
CONNECTION_LOST = 74
ALLOWANCE_USED = 75  # ours
BUG = 81
CUSTOM = 82  # the program wrote its own text, see pyqmail.queue.client
BAD_ENVELOPE = 91
NOT_EXECUTED = 120

CRASHED = 256  # not an exit status: the program died of a signal

TEXTS: dict[int, bytes] = {
    QUEUED: b"",
    TOO_LONG: b"Denvelope address too long for qq (#5.1.3)",
    REFUSED: b"Dmail server permanently rejected message (#5.3.0)",
    BEYOND_ALLOWANCE: b"Dmore recipients than you may send to in an hour (#5.7.1)",
    NO_MEMORY: b"Zqq out of memory (#4.3.0)",
    TIMEOUT: b"Zqq timeout (#4.3.0)",
    WRITE_ERROR: b"Zqq write error or disk full (#4.3.0)",
    READ_ERROR: b"Zqq read error (#4.3.0)",
    NO_CONTROL: b"Zqq unable to read configuration (#4.3.0)",
    NO_NETWORK: b"Zqq trouble making network connection (#4.3.0)",
    NO_HOME: b"Zqq trouble in home directory (#4.3.0)",
    NO_QUEUE: b"Zqq trouble creating files in queue (#4.3.0)",
    NO_PID: b"Zqq trouble creating files in queue (#4.3.0)",
    NO_MESS: b"Zqq trouble creating files in queue (#4.3.0)",
    NO_INTD: b"Zqq trouble creating files in queue (#4.3.0)",
    NO_TODO: b"Zqq trouble creating files in queue (#4.3.0)",
    REFUSED_FOR_NOW: b"Zmail server temporarily rejected message (#4.3.0)",
    CONNECTION_TIMEOUT: b"Zconnection to mail server timed out (#4.4.1)",
    CONNECTION_REFUSED: b"Zconnection to mail server rejected (#4.4.1)",
    CONNECTION_LOST: b"Zcommunication with mail server failed (#4.4.2)",
    ALLOWANCE_USED: b"Zyou have sent as much mail as you may in an hour (#4.7.1)",
    BUG: b"Zqq internal bug (#4.3.0)",
    BAD_ENVELOPE: b"Zqq internal bug (#4.3.0)",
    115: b"Denvelope address too long for qq (#5.1.3)",  # qmail-queue before 1.03
    NOT_EXECUTED: b"Zunable to exec qq (#4.3.0)",
    CRASHED: b"Zqq crashed (#4.3.0)",
}
PERMANENT = b"Dqq permanent problem (#5.3.0)"
TEMPORARY = b"Zqq temporary problem (#4.3.0)"

REPLY_TEXT_LIMIT = 500  # bytes; a reply line has 512 with its code and CR LF (RFC 5321, 4.5.3.1.5)


class Result(NamedTuple):
    """What became of a message handed to the queue."""

    status: int  # 0: queued; else an exit status of qmail-queue
    pid: int  # "qp", the number that names the message in replies and in the log
    message: bytes = b""  # the queueing program's own text, with D or Z, for status 82


def message_for(status: int) -> bytes:
    """Return netqmail's text for a status, with its D or Z; empty for 0, queued."""
    text = TEXTS.get(status)
    if text is None:
        return PERMANENT if 11 <= status <= 40 else TEMPORARY
    return text


def text_for(result: Result) -> bytes:
    """Return the D or Z text of a result: the program's own one for status 82."""
    if result.status == CUSTOM and result.message[:1] in (b"D", b"Z"):
        return result.message
    return message_for(result.status)


def reply_for(result: Result) -> bytes:
    """Return the SMTP reply, without CR LF, to the end of data of a message not queued.

    554 for a permanent refusal, 451 for a temporary one. A custom text is a foreign
    program's and may quote the message: only its first line is used, without control
    or 8-bit characters, so that it cannot forge a reply.

    Raises:
        ValueError: the message was queued.
    """
    text = text_for(result)
    if not text:
        raise ValueError("queued")
    line = text[1:].split(b"\n", 1)[0].rstrip(b"\r")
    clean = bytes(c if 32 <= c < 127 else 63 for c in line[:REPLY_TEXT_LIMIT])
    return (b"554 " if text.startswith(b"D") else b"451 ") + clean
