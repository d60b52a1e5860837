"""qmail-smtpd: receive mail via SMTP (qmail-smtpd(8))."""

import os
import time

from pyqmail.channel import Channel
from pyqmail.queue import client
from pyqmail.rcptcheck import checks
from pyqmail.received import Peer, peer, smtp_line
from pyqmail.smtp import reply
from pyqmail.smtp.conversation import EXIT_ENDED, Receiving, converse, databytes, queue_reply
from pyqmail.smtp.data import HopCounter, Message
from pyqmail.smtp.localaddress import is_local
from pyqmail.smtp.reply import Reply
from pyqmail.smtpd.policy import AddressList, RecipientHosts
from pyqmail.smtpd.session import Policy, SmtpdSession
from ucspi import control, log
from ucspi.dialogue import Dialogue, Ending, Talk

TIMEOUT = 1200  # seconds, timeoutsmtpd


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
        policy = read_policy(env)
        talk = Talk(max(1, control.read_number("timeoutsmtpd", TIMEOUT)))
        return (yield from serve(talk, policy, env))
    except control.ControlError as error:
        log.event(env, f"qmail-smtpd: {error}")
        return Ending(EXIT_ENDED, reply.NO_CONTROLS.wire(), client_sends_on=True)


def read_policy(env: dict[str, str]) -> Policy:
    """Read the control files below the qmail home, which becomes the working directory.

    Raises:
        ControlError: one cannot be read, or there is neither smtpgreeting nor me.
    """
    control.enter_home(env)
    greeting = control.read_line("smtpgreeting", or_me=True)
    if greeting is None:
        raise control.ControlError("neither control/smtpgreeting nor control/me exists")
    relay = env.get("RELAYCLIENT")
    return Policy(
        greeting=greeting,
        databytes=databytes(env),
        bad_senders=AddressList(control.read_lines("badmailfrom") or ()),
        recipient_hosts=RecipientHosts(control.read_lines("rcpthosts")),
        relay_suffix=None if relay is None else os.fsencode(relay),
        local_ip_host=control.read_line("localiphost", or_me=True),
        is_local_ip=is_local,
        check_recipient=checks.checks_for(env),
    )


def serve(talk: Talk, policy: Policy, env: dict[str, str]) -> Dialogue:
    """Hold the conversation; see converse."""

    def event(text: str) -> None:
        log.event(env, f"qmail-smtpd {os.getpid()} {text}")

    session = SmtpdSession(policy, event)
    client_name = peer(env)
    return converse(talk, session, lambda: receive_message(talk, session, client_name, env))


def receive_message(
    talk: Talk, session: SmtpdSession, client_name: Peer, env: dict[str, str]
) -> Receiving:
    """Read one message into the queue and return the reply to it.

    Raises:
        DialogueError, StrayLineEnd: the message did not end as it must; nothing is queued.
    """
    injection = client.open_queue(env)
    hops = HopCounter()
    size = 0
    refusal: Reply | None = None
    open_still = True
    try:
        talk.say(reply.GO_AHEAD.wire())
        helo = told_name(session, client_name)
        injection.write(smtp_line(client_name, helo, b"SMTP", time.time()))
        message = Message(talk)
        while not message.has_ended:
            text = yield from message.part()
            hops.feed(text)
            size += len(text)
            if hops.looping:
                refusal = reply.TOO_MANY_HOPS
            elif 0 < session.size_limit < size:
                refusal = refusal or reply.TOO_BIG
            if refusal is None:
                injection.write(text)
            elif open_still:  # what still comes is read and dropped
                open_still = False
                injection.abort()
        if refusal is not None:
            return refusal
        open_still = False
        result = injection.finish(session.sender or b"", session.recipients)
    finally:
        if open_still:
            injection.abort()
    return queue_reply(session, size, result)


def told_name(session: SmtpdSession, client_name: Peer) -> bytes | None:
    """Return the HELO name when it differs from the name that the connection server knows."""
    if session.helo is None or session.helo.lower() == client_name.remote_host.lower():
        return None
    return session.helo
