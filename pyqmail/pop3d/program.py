"""qmail-pop3d: distribute mail via POP3 (qmail-pop3d(8))."""

import os

from pyqmail.channel import CHUNK, Channel, ConnectionEnded, LineTooLong, TimedOut
from pyqmail.pop3d import maildrop
from pyqmail.pop3d import session as conversation
from pyqmail.pop3d.maildrop import Maildrop, MaildropError
from pyqmail.pop3d.session import Quit, Session, Transfer
from pyqmail.pop3d.transfer import Encoder, Top
from ucspi import log

TIMEOUT = 1200  # seconds
LINE_LIMIT = 4096  # bytes of a command line with its line end

EXIT_DONE = 0  # always, as in netqmail: who got here was authenticated


def main(argv: list[str], env: dict[str, str]) -> int:
    """Serve the client on descriptors 0 and 1 from the Maildir argv[1]; return 0."""
    channel = Channel(0, 1, TIMEOUT)
    try:
        if len(argv) < 2:
            raise MaildropError("usage: qmail-pop3d maildir")
        maildrop.enter(argv[1])
    except MaildropError as error:
        log.event(env, f"qmail-pop3d: {error}")
        channel.farewell(conversation.NO_MAILDIR)
        return EXIT_DONE
    maildrop.clean_tmp()
    try:
        drop = Maildrop()
    except MaildropError as error:
        log.event(env, f"qmail-pop3d: {error}")
        channel.farewell(conversation.CANNOT_SCAN)
        return EXIT_DONE
    serve(channel, drop, env)
    return EXIT_DONE


def serve(channel: Channel, drop: Maildrop, env: dict[str, str]) -> None:
    """Hold the conversation; nothing is deleted unless the client says QUIT."""
    session = Session(drop.messages)
    try:
        channel.write(conversation.OK)
        while True:
            line = channel.read_line(LINE_LIMIT)
            if b"\0" in line:
                raise LineTooLong
            answer = session.command(line)
            if isinstance(answer, Transfer):
                transfer(channel, drop, session, answer)
            elif isinstance(answer, Quit):
                channel.write(update(drop, session, env))
                channel.flush()
                return
            else:
                channel.write(answer)
    except LineTooLong:
        channel.farewell(conversation.LINE_TOO_LONG)
    except (ConnectionEnded, TimedOut):
        pass  # no word on a timeout (RFC 1939, 3)


def transfer(channel: Channel, drop: Maildrop, session: Session, wanted: Transfer) -> None:
    """Send one message, or the error; see Channel.flush for what it raises."""
    try:
        fd = drop.open(drop.messages[wanted.number])
    except OSError:
        channel.write(conversation.CANNOT_OPEN)
        return
    encoder = Encoder()
    top = None if wanted.lines is None else Top(wanted.lines)
    try:
        channel.write(conversation.OK)
        while chunk := os.read(fd, CHUNK):
            if top is not None:
                chunk = top.feed(chunk)
            channel.write(encoder.feed(chunk))
            if top is not None and top.done:
                break
    except OSError as error:
        # Half a message is out: its end must not be said, or the client would keep it.
        raise ConnectionEnded(error.strerror) from error
    finally:
        os.close(fd)
    channel.write(encoder.finish())
    session.sent(wanted)


def update(drop: Maildrop, session: Session, env: dict[str, str]) -> bytes:
    """Delete and mark what the session says, and return the reply to QUIT."""
    failures = drop.remove(drop.messages[index] for index in sorted(session.deleted))
    for index in session.read - session.deleted:
        drop.mark_read(drop.messages[index])
    if not failures:
        return conversation.OK
    log.event(env, f"qmail-pop3d: {len(failures)} messages not deleted: {failures[0].strerror}")
    return conversation.CANNOT_UNLINK
