"""The loop around a session: lines in, replies out, messages handed to the server."""

from collections.abc import Callable

from pyqmail.channel import Channel, ConnectionEnded, LineTooLong, TimedOut
from pyqmail.queue import errors
from pyqmail.smtp import reply
from pyqmail.smtp.data import StrayLineEnd
from pyqmail.smtp.reply import Reply
from pyqmail.smtp.session import Next, Session
from ucspi import log

LINE_LIMIT = 4096  # bytes of a command line with its line end

EXIT_QUIT = 0
EXIT_ENDED = 1  # anything but QUIT, as in netqmail

Log = Callable[[str], None]


def converse(channel: Channel, session: Session, receive: Callable[[], Reply], event: Log) -> int:
    """Hold one conversation and return the exit status.

    Args:
        channel: the client.
        session: the state machine.
        receive: called when DATA is allowed: sends 354, reads the message, and returns
            the reply to it. Whatever it raises, it has queued nothing.
        event: takes one line for the log.
    """
    try:
        channel.write(session.greeting().wire())
        while True:
            answer = session.command(channel.read_line(LINE_LIMIT))
            if answer is None:
                answer = receive()
                session.reset()
                session.next = Next.COMMAND
            channel.write(answer.wire())
            if session.next is Next.END:
                channel.flush()
                return EXIT_QUIT
            if session.next is Next.ABORT:
                event("protocol error: " + log.printable(answer.lines[0]))
                channel.farewell(b"")
                return EXIT_ENDED
    except LineTooLong:
        event("command line too long")
        channel.farewell(reply.LINE_TOO_LONG.wire())
    except StrayLineEnd:
        event("bare CR or LF in message")
        channel.farewell(reply.STRAY_LINE_END.wire())
    except TimedOut:
        event("timeout")
        channel.farewell(reply.TIMEOUT.wire())
    except ConnectionEnded:
        pass
    return EXIT_ENDED


def queue_reply(result: errors.Result, now: float) -> Reply:
    """Return the reply to the end of a message: ``250 ok TIME qp PID``, or why not."""
    if result.status == errors.QUEUED:
        return reply.reply(250, b"ok %d qp %d" % (now, result.pid))
    code, _, text = errors.reply_for(result).partition(b" ")
    return reply.reply(int(code), text)
