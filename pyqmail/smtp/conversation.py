"""The loop around a session: lines in, replies out, messages handed to the server.

It is a dialogue (see ucspi.dialogue): whoever holds it does the reading and writing.
"""

import time
from collections.abc import Callable, Generator
from typing import TypeAlias

from pyqmail.queue import errors
from pyqmail.smtp import reply
from pyqmail.smtp.data import StrayLineEnd
from pyqmail.smtp.reply import Reply
from pyqmail.smtp.session import Next, Session
from ucspi import control
from ucspi.dialogue import ConnectionEnded, Dialogue, Ending, LineTooLong, Talk, TimedOut, Wait

LINE_LIMIT = 4096  # bytes of a command line with its line end

EXIT_QUIT = 0
EXIT_ENDED = 1  # anything but QUIT, as in netqmail

LOGGED_VERBS = (b"mail", b"rcpt")
LOGGED_REFUSALS = 100  # of one session; who goes on has been noticed
LOGGED_BYTES = 300  # of the refused command

Receiving: TypeAlias = Generator[Wait, bytes, Reply]


def converse(talk: Talk, session: Session, receive: Callable[[], Receiving]) -> Dialogue:
    """Hold one conversation.

    Args:
        talk: the buffers of the dialogue.
        session: the state machine.
        receive: called when DATA is allowed: says 354, reads the message, and returns
            the reply to it. Whatever it raises, it has queued nothing.
    """
    refusals = 0
    try:
        talk.say(session.greeting().wire())
        while True:
            line = yield from talk.line(LINE_LIMIT)
            answer = session.command(line)
            if answer is None:
                answer = yield from receive()
                if answer.code >= 400:
                    session.event(f"refused a message: {summary(answer)}")
                session.reset()
                session.next = Next.COMMAND
            elif answer.code >= 400 and line[:4].lower() in LOGGED_VERBS:
                refusals += 1
                if refusals <= LOGGED_REFUSALS:
                    session.event(f"refused {text(line[:LOGGED_BYTES])}: {summary(answer)}")
            talk.say(answer.wire())
            if session.next is Next.END:
                return Ending(EXIT_QUIT, talk.said())
            if session.next is Next.ABORT:
                session.event(f"protocol error: {summary(answer)}")
                return _cut_short(talk)
            if talk.is_full:
                yield from talk.flush()
    except LineTooLong:
        session.event("command line too long")
        return _cut_short(talk, reply.LINE_TOO_LONG)
    except StrayLineEnd:
        session.event("bare CR or LF in message")
        return _cut_short(talk, reply.STRAY_LINE_END)
    except TimedOut:
        session.event("timeout")
        return _cut_short(talk, reply.TIMEOUT)
    except ConnectionEnded:
        return Ending(EXIT_ENDED, talk.said())
    except control.ControlError as error:
        session.event(str(error))
        return _cut_short(talk, reply.NO_CONTROLS)
    except Exception as error:
        # A mistake of ours: the client hears that it may come again, the log what it was.
        session.event(f"{type(error).__name__}: {error}")
        return _cut_short(talk, reply.BROKEN)


def _cut_short(talk: Talk, last: Reply | None = None) -> Ending:
    """End in the middle of what the client may have to say."""
    if last is not None:
        talk.say(last.wire())
    return Ending(EXIT_ENDED, talk.said(), client_sends_on=True)


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
