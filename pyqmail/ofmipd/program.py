"""ofmipd: accept outgoing mail from a user (ofmipd(8) of mess822)."""

import os
import time

from pyqmail.channel import Channel
from pyqmail.header import rewriting
from pyqmail.header.addresslist import ListError
from pyqmail.header.fields import HeaderReader, join
from pyqmail.ofmipd.message import completed, rewritten, speakers, without_authors
from pyqmail.ofmipd.senders import CANNOT_READ, NOT_YOURS, Names, Ownership
from pyqmail.ofmipd.session import OfmipdSession
from pyqmail.queue import client
from pyqmail.received import Peer, date822, ofmip_line, peer
from pyqmail.smtp import reply
from pyqmail.smtp.conversation import EXIT_ENDED, Receiving, converse, databytes, queue_reply
from pyqmail.smtp.data import Message
from pyqmail.smtp.reply import Reply
from ucspi import control, log
from ucspi.dialogue import Dialogue, Ending, Talk

TIMEOUT = 1200  # seconds
HEADER_LIMIT = 1 << 20  # bytes; a header is held in memory until it is whole

NO_CONFIGURATION = reply.reply(451, b"unable to read configuration (#4.3.0)")
HEADER_TOO_BIG = reply.reply(552, b"sorry, that message header is too big (#5.3.4)")

OWN_RULES = ".ofmipd/rules.cdb"


def preload(argv: list[str], env: dict[str, str]) -> None:
    """Load what queues messages before processes are forked for connections."""
    client.preload(env)


def main(argv: list[str], env: dict[str, str]) -> int:
    """Serve the client on descriptors 0 and 1; return 0 after QUIT, else 1."""
    channel = Channel(0, 1, TIMEOUT)
    try:
        return channel.hold(dialogue(argv, env))
    finally:
        channel.release()


def dialogue(argv: list[str], env: dict[str, str]) -> Dialogue:
    """Return the conversation, for whoever holds it; see ucspi.dialogue."""
    try:
        session, id_host = prepare(argv, env)
    except (control.ControlError, OSError) as error:
        log.event(env, f"ofmipd: {error}")
        return Ending(EXIT_ENDED, NO_CONFIGURATION.wire(), client_sends_on=True)
    talk = Talk(TIMEOUT)
    submission = Submission(talk, session, env, id_host)
    return (yield from converse(talk, session, submission.receive))


def prepare(argv: list[str], env: dict[str, str]) -> tuple[OfmipdSession, bytes]:
    """Return the session and the host name for Message-IDs; enters the qmail home.

    Raises:
        ControlError, OSError: a file that must be read cannot be.
    """
    given = None
    if len(argv) > 1 and argv[1]:
        given = os.path.abspath(argv[1])  # against the user's home, from where we start
        os.close(os.open(given, os.O_RDONLY | os.O_CLOEXEC))
    home = env.get("HOME")
    own = os.path.join(home, OWN_RULES) if home else None
    control.enter_home(env)
    rewriter = rewriting.read(env)
    login = rewriter.address(os.fsencode(env.get("AUTHUP_USER", "")))
    ownership = Ownership(login, env.get("OFMIP_SENDERS"))

    def event(text: str) -> None:
        log.event(env, f"ofmipd {os.getpid()} {text}")

    session = OfmipdSession(databytes(env), rewriter, Names(own, given), ownership, event)
    return session, rewriting.setting("idhost", env)


class Submission:
    """Reads the messages of one session into the queue."""

    def __init__(
        self, talk: Talk, session: OfmipdSession, env: dict[str, str], id_host: bytes
    ) -> None:
        self._talk = talk
        self._session = session
        self._env = env
        self._id_host = id_host
        self._peer: Peer = peer(env)
        self._messages = 0

    def receive(self) -> Receiving:
        """Read one message into the queue and return the reply to it.

        Raises:
            DialogueError, StrayLineEnd: the message did not end as it must; nothing is queued.
        """
        self._messages += 1
        now = time.time()
        injection: client.Injection | None = None
        refusal: Reply | None = None
        header = HeaderReader()
        size = 0
        try:
            self._talk.say(reply.GO_AHEAD.wire())
            message = Message(self._talk)
            while not message.has_ended:
                text = yield from message.part()
                size += len(text)
                if 0 < self._session.size_limit < size:
                    refusal = refusal or reply.TOO_BIG
                if refusal is not None:
                    continue  # what still comes is read and dropped
                body = header.feed(text)
                if header.size > HEADER_LIMIT:
                    refusal = HEADER_TOO_BIG
                elif header.whole:
                    if injection is None:
                        refusal, injection = self._begin(header, now)
                    if injection is not None:
                        injection.write(body)
            if refusal is None and injection is None:
                rest = header.finish()
                refusal, injection = self._begin(header, now)
                if injection is not None:
                    injection.write(rest)
            if refusal is not None or injection is None:
                return refusal or reply.BROKEN
            finishing, injection = injection, None
            session = self._session
            result = finishing.finish(session.sender or b"", session.recipients)
        finally:
            if injection is not None:
                injection.abort()
        return queue_reply(session, size, result)

    def _begin(
        self, header: HeaderReader, now: float
    ) -> tuple[Reply | None, client.Injection | None]:
        """Judge a whole header and write what becomes of it; return a refusal or the message."""
        session = self._session
        fields = list(rewritten(header.fields, session.rewriter))
        identity = session.identity
        if identity is not None:
            fields = without_authors(fields)  # the one from the name database comes in their place
        sender = session.sender or b""
        if session.ownership.required:
            sender = sender or session.ownership.login  # no message without an author
            try:
                if not all(session.ownership.holds(one) for one in speakers(fields)):
                    return NOT_YOURS, None
            except ListError:
                return NOT_YOURS, None
            except control.ControlError as error:
                session.event(str(error))
                return CANNOT_READ, None
        injection = client.open_queue(self._env)
        injection.write(ofmip_line(self._peer, now))
        fields = completed(
            fields,
            date=date822(now),
            message_id=self._message_id(now),
            sender=sender,
            name=b"" if identity is None else identity.name,
        )
        injection.write(join(fields))
        return None, injection

    def _message_id(self, now: float) -> bytes:
        stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(now)).encode("ascii")
        return b"<%s.%d.%d.qmail@%s>" % (stamp, self._messages, os.getpid(), self._id_host)
