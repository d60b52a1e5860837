"""qmail-pop3d: distribute mail via POP3 (qmail-pop3d(8))."""

import os
from collections.abc import Generator

from pyqmail.channel import CHUNK, Channel
from pyqmail.pop3d import maildrop
from pyqmail.pop3d import session as conversation
from pyqmail.pop3d.maildrop import Maildrop, MaildropError
from pyqmail.pop3d.session import Quit, Session, Transfer
from pyqmail.pop3d.transfer import Encoder, Top
from ucspi import log
from ucspi.dialogue import ConnectionEnded, Dialogue, Ending, LineTooLong, Talk, TimedOut, Wait
from ucspi.rehearsal import Stage

TIMEOUT = 1200  # seconds
LINE_LIMIT = 4096  # bytes of a command line with its line end

WORDS = b"STAT\r\nLIST\r\nUIDL\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n"

EXIT_DONE = 0  # always, as in netqmail: who got here was authenticated


def rehearse(argv: list[str], env: dict[str, str]) -> None:
    """Serve a client that is none from a Maildir that is for this only; see ucspi.rehearsal."""
    maildir = os.path.join(env.get("TMPDIR", "/tmp"), f"rehearsal.{os.getpid()}")
    message = f"{maildir}/new/1.rehearsal"
    made = [maildir, *(f"{maildir}/{part}" for part in ("new", "cur", "tmp"))]
    try:
        for directory in made:
            os.mkdir(directory, 0o700)
        os.close(os.open(message, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with Stage(WORDS):
            main([argv[0], maildir], env)
    finally:
        for remove, path in ((os.unlink, message), *((os.rmdir, path) for path in reversed(made))):
            try:
                remove(path)
            except FileNotFoundError:
                pass


def main(argv: list[str], env: dict[str, str]) -> int:
    """Serve the client on descriptors 0 and 1 from the Maildir argv[1]; return 0."""
    return Channel(0, 1, TIMEOUT).hold(dialogue(argv, env))


def dialogue(argv: list[str], env: dict[str, str]) -> Dialogue:
    """Return the conversation, for whoever holds it; see ucspi.dialogue."""
    try:
        if len(argv) < 2:
            raise MaildropError("usage: qmail-pop3d maildir")
        maildrop.enter(argv[1])
    except MaildropError as error:
        log.event(env, f"qmail-pop3d: {error}")
        return Ending(EXIT_DONE, conversation.NO_MAILDIR, client_sends_on=True)
    maildrop.clean_tmp()
    try:
        drop = Maildrop()
    except MaildropError as error:
        log.event(env, f"qmail-pop3d: {error}")
        return Ending(EXIT_DONE, conversation.CANNOT_SCAN, client_sends_on=True)
    return (yield from serve(Talk(TIMEOUT), drop, env))


def serve(talk: Talk, drop: Maildrop, env: dict[str, str]) -> Dialogue:
    """Hold the conversation; nothing is deleted unless the client says QUIT."""
    session = Session(drop.messages)
    try:
        talk.say(conversation.OK)
        while True:
            line = yield from talk.line(LINE_LIMIT)
            if b"\0" in line:
                raise LineTooLong
            answer = session.command(line)
            if isinstance(answer, Transfer):
                yield from transfer(talk, drop, session, answer)
            elif isinstance(answer, Quit):
                reply = update(drop, session, env)
                return Ending(EXIT_DONE, talk.said() + reply)
            else:
                talk.say(answer)
            if talk.is_full:
                yield from talk.flush()
    except LineTooLong:
        return Ending(EXIT_DONE, talk.said() + conversation.LINE_TOO_LONG, client_sends_on=True)
    except (ConnectionEnded, TimedOut):
        return Ending(EXIT_DONE)  # no word on a timeout (RFC 1939, 3)


def transfer(
    talk: Talk, drop: Maildrop, session: Session, wanted: Transfer
) -> Generator[Wait, bytes, None]:
    """Send one message, or the error.

    Raises:
        ConnectionEnded, TimedOut: the client is gone, or does not read.
    """
    try:
        fd = drop.open(drop.messages[wanted.number])
    except OSError:
        talk.say(conversation.CANNOT_OPEN)
        return
    encoder = Encoder()
    top = None if wanted.lines is None else Top(wanted.lines)
    try:
        talk.say(conversation.OK)
        while chunk := _read(fd):
            if top is not None:
                chunk = top.feed(chunk)
            talk.say(encoder.feed(chunk))
            if talk.is_full:
                yield from talk.flush()
            if top is not None and top.done:
                break
    finally:
        os.close(fd)
    talk.say(encoder.finish())
    session.sent(wanted)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, CHUNK)
    except OSError as error:
        # Half a message is out: its end must not be said, or the client would keep it.
        raise ConnectionEnded(error.strerror) from error


def update(drop: Maildrop, session: Session, env: dict[str, str]) -> bytes:
    """Delete and mark what the session says, and return the reply to QUIT."""
    failures = drop.remove(drop.messages[index] for index in sorted(session.deleted))
    for index in session.read - session.deleted:
        drop.mark_read(drop.messages[index])
    if not failures:
        return conversation.OK
    log.event(env, f"qmail-pop3d: {len(failures)} messages not deleted: {failures[0].strerror}")
    return conversation.CANNOT_UNLINK
