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
EXIT_BROKEN = 1  # the client went away or did not speak QMQP
RECIPIENT_LIMIT = 100_000


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
        sender = reader.string(ADDRESS_LIMIT)
        recipients: list[bytes] = []
        while reader.taken - begun < whole:
            if len(recipients) == RECIPIENT_LIMIT:
                raise netstring.NetstringError("too many recipients")
            recipients.append(reader.string(ADDRESS_LIMIT))
        if reader.taken - begun != whole:
            raise netstring.NetstringError("a recipient goes past the end")
        reader.comma()
        finished = True
        return injection.finish(sender, recipients)
    finally:
        if not finished:
            injection.abort()
