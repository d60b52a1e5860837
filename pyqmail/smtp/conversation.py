"""The loop around a session: lines in, replies out, messages handed to the server."""

import time
from collections.abc import Callable

from pyqmail.channel import Channel, ConnectionEnded, LineTooLong, TimedOut
from pyqmail.queue import errors
from pyqmail.smtp import reply
from pyqmail.smtp.data import StrayLineEnd
from pyqmail.smtp.reply import Reply
from pyqmail.smtp.session import Next, Session
from ucspi import control

LINE_LIMIT = 4096  # bytes of a command line with its line end

EXIT_QUIT = 0
EXIT_ENDED = 1  # anything but QUIT, as in netqmail

LOGGED_VERBS = (b"mail", b"rcpt")
LOGGED_REFUSALS = 100  # of one session; who goes on has been noticed
LOGGED_BYTES = 300  # of the refused command


def converse(channel: Channel, session: Session, receive: Callable[[], Reply]) -> int:
    """Hold one conversation and return the exit status.

    Args:
        channel: the client.
        session: the state machine.
        receive: called when DATA is allowed: sends 354, reads the message, and returns
            the reply to it. Whatever it raises, it has queued nothing.

    Raises:
        ControlError: a file that a check needs cannot be read.
    """
    refusals = 0
    try:
        channel.write(session.greeting().wire())
        while True:
            line = channel.read_line(LINE_LIMIT)
            answer = session.command(line)
            if answer is None:
                answer = receive()
                if answer.code >= 400:
                    session.event(f"refused a message: {summary(answer)}")
                session.reset()
                session.next = Next.COMMAND
            elif answer.code >= 400 and line[:4].lower() in LOGGED_VERBS:
                refusals += 1
                if refusals <= LOGGED_REFUSALS:
                    session.event(f"refused {text(line[:LOGGED_BYTES])}: {summary(answer)}")
            channel.write(answer.wire())
            if session.next is Next.END:
                channel.flush()
                return EXIT_QUIT
            if session.next is Next.ABORT:
                session.event(f"protocol error: {summary(answer)}")
                channel.farewell(b"")
                return EXIT_ENDED
    except LineTooLong:
        session.event("command line too long")
        channel.farewell(reply.LINE_TOO_LONG.wire())
    except StrayLineEnd:
        session.event("bare CR or LF in message")
        channel.farewell(reply.STRAY_LINE_END.wire())
    except TimedOut:
        session.event("timeout")
        channel.farewell(reply.TIMEOUT.wire())
    except ConnectionEnded:
        pass
    except control.ControlError:
        raise
    except Exception as error:
        # A mistake of ours: the client hears that it may come again, the log what it was.
        session.event(f"{type(error).__name__}: {error}")
        channel.farewell(reply.BROKEN.wire())
    return EXIT_ENDED


def databytes(env: dict[str, str]) -> int:
    """Return the size limit of a message in bytes: ``DATABYTES``, else control/databytes.

    Digits at the start of DATABYTES count; without any it is 0, no limit.

    Raises:
        ControlError: control/databytes is no number or cannot be read.
    """
    value = env.get("DATABYTES")
    if value is None:
        return control.read_number("databytes", 0)
    digits = value[: len(value) - len(value.lstrip("0123456789"))]
    return int(digits or "0")


def text(data: bytes) -> str:
    """Return what a client or a program said, for the log."""
    return data.decode("utf-8", "surrogateescape")


def summary(answer: Reply) -> str:
    """Return a reply in one line, for the log."""
    return f"{answer.code} {text(answer.lines[-1])}"


def queue_reply(session: Session, size: int, result: errors.Result) -> Reply:
    """Return the reply to a message of size bytes: ``250 ok TIME qp PID``, or why not."""
    if result.status == errors.QUEUED:
        sender = text(session.sender or b"")
        recipients = len(session.recipients)
        session.event(f"qp {result.pid} from <{sender}> to {recipients}, {size} bytes")
        return reply.reply(250, b"ok %d qp %d" % (time.time(), result.pid))
    code, _, reason = errors.reply_for(result).partition(b" ")
    return reply.reply(int(code), reason)
