"""qmail-qmqpd: receive mail via QMQP (qmail-qmqpd(8)).

It takes any message for any recipient: let nobody but your own hosts connect.
"""

import time

from pyqmail.channel import Channel
from pyqmail.qmqp import netstring
from pyqmail.queue import client, errors
from pyqmail.queue.envelope import ADDRESS_LIMIT
from pyqmail.received import Peer, date822, peer, safe
from ucspi import log
from ucspi.dialogue import DialogueError

TIMEOUT = 60  # seconds for one read or write
EXIT_BROKEN = 1  # the client went away
EXIT_MALFORMED = 100
RECIPIENT_LIMIT = 100_000

BAD_ADDRESS = errors.Result(
    errors.CUSTOM, 0, b"Dsorry, I can't accept addresses like that (#5.1.3)"
)


def received_line(client_name: Peer, seconds: float) -> bytes:
    """Return qmail-qmqpd's Received field."""
    info = b"" if client_name.remote_info is None else safe(client_name.remote_info) + b"@"
    return b"Received: from %s (%s%s)\n  by %s with QMQP; %s\n" % (
        safe(client_name.remote_host),
        info,
        safe(client_name.remote_ip),
        safe(client_name.local_host),
        date822(seconds),
    )


def response(result: errors.Result, seconds: float) -> bytes:
    """Return the answer: K, Z or D and a text, without its netstring."""
    if result.status == errors.QUEUED:
        return b"Kok %d qp %d" % (seconds, result.pid)
    return errors.text_for(result)


def main(argv: list[str], env: dict[str, str]) -> int:
    """Take one message from descriptor 0 and answer on descriptor 1; see qmail-qmqpd(8)."""
    channel = Channel(0, 1, TIMEOUT)
    try:
        result = receive(netstring.Reader(channel.read_chunk), env)
        channel.send(netstring.encode(response(result, time.time())))
        return 0
    except netstring.NetstringError as error:
        log.event(env, f"qmail-qmqpd: {error}")
        return EXIT_MALFORMED
    except DialogueError:
        pass  # nothing is queued without an answer, or the client asks again
    return EXIT_BROKEN


def receive(reader: netstring.Reader, env: dict[str, str]) -> errors.Result:
    """Read one message with its envelope and queue it.

    Raises:
        NetstringError, DialogueError: the message is incomplete; nothing is queued.
    """
    whole = reader.length()
    begun = reader.taken
    injection = client.open_queue(env)
    finished = False
    try:
        injection.write(received_line(peer(env), time.time()))
        left = reader.length()
        while left:
            piece = reader.some(min(left, 65536))
            left -= len(piece)
            injection.write(piece)
        reader.comma()
        sender = address(reader)
        recipients: list[bytes | None] = []
        while reader.taken - begun < whole:
            if len(recipients) == RECIPIENT_LIMIT:
                raise netstring.NetstringError("too many recipients")
            recipients.append(address(reader))
        if reader.taken - begun != whole:
            raise netstring.NetstringError("a recipient goes past the end")
        reader.comma()
        taken = [recipient for recipient in recipients if recipient is not None]
        if sender is None or len(taken) < len(recipients):
            return BAD_ADDRESS
        finished = True
        return injection.finish(sender, taken)
    finally:
        if not finished:
            injection.abort()


def address(reader: netstring.Reader) -> bytes | None:
    """Take an address; None for one that the queue cannot hold, whose bytes are dropped.

    Raises:
        NetstringError: it is no netstring.
    """
    left = reader.length()
    fits = left < ADDRESS_LIMIT
    found = b""
    while left:
        piece = reader.some(left)
        left -= len(piece)
        if fits:
            found += piece
    reader.comma()
    return found if fits and b"\0" not in found else None
