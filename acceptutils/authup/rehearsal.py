"""A rehearsal of authup's two processes, in one that is neither (see ucspi.rehearsal).

One process plays both: P's conversation with a client up to the attempt, whose answer lies
in the channel already; then what the broker does with what P has asked it.
"""

import os
import socket

from acceptutils.authup import broker, record
from acceptutils.authup.attempt import Broker
from acceptutils.authup.client import Client
from acceptutils.authup.program import Connection, Options, read_settings
from acceptutils.authup.record import Ended, Started
from acceptutils.ucspitls import Availability
from ucspi import control
from ucspi.rehearsal import Stage

WORDS = {
    "smtp": b"EHLO localhost\r\nAUTH PLAIN AHJlaGVhcnNhbAByZWhlYXJzYWw=\r\n",
    "pop3": b"CAPA\r\nUSER rehearsal\r\nPASS rehearsal\r\n",
}


def rehearse(options: Options, env: dict[str, str]) -> None:
    """Have a client log in that is none."""
    name = options.protocol.name
    with Stage(WORDS[name]):
        control.enter_home(env)
        settings, limits = read_settings(name, env)
        # The words are for a client inside TLS.
        settings = settings._replace(availability=Availability.UNAVAILABLE)
        to_broker, to_parser = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with to_broker, to_parser:
            for message in (Started(os.getpid()), Ended(0, True)):
                to_parser.send(record.pack_reply(message))
            dialogue = options.protocol(settings, b"%d.%d" % (os.getpid(), 0))
            parser = Connection(dialogue, Client(limits), env, options.tries)
            parser.converse(Broker(to_broker, os.getpid(), os.getuid()))
            broker.rehearse(to_parser, env)
