"""A few connections with ourselves, before the first engine is forked.

An engine is a fresh copy of the zygote. What OpenSSL puts off until it is needed, and what
the interpreter learns about the code that it runs (PEP 659: it writes that into the code),
every engine would have to find out anew, and copy the pages that it is written to. So the
zygote is an engine a few times itself; a child plays the client and the application. No byte
of anybody else's comes into it.
"""

import os
import socket
import ssl

from acceptutils import ucspitls
from acceptutils.tls import engine, request
from acceptutils.tls.context import Contexts
from acceptutils.tls.settings import Settings

# The interpreter looks at most code twice before it adapts it, and some adapts once more.
ROUNDS = (ssl.TLSVersion.TLSv1_2, *(ssl.TLSVersion.TLSv1_3,) * 4)
WORDS = 4  # said by each side in a round


def rehearse(contexts: Contexts, settings: Settings) -> None:
    """Serve connections of our own; one that fails has done its work as well.

    Args:
        contexts: certificates and keys, loaded.
        settings: as for the engines to come.
    """
    try:
        for version in ROUNDS:
            _rehearse(contexts, settings, version)
    except OSError:
        pass  # without a rehearsal the engines only cost more
    contexts.server_name = None


def _rehearse(contexts: Contexts, settings: Settings, version: ssl.TLSVersion) -> None:
    client, network = socket.socketpair()
    application, ends = request.make_ends()
    ends = ends._replace(network=network.detach())
    if os.fork() == 0:
        try:
            for descriptor in ends:
                os.close(descriptor)
            _play(client, application, version)
        finally:
            os._exit(0)
    client.close()
    for descriptor in application:
        os.close(descriptor)
    command = engine.await_command(ends.control)
    engine.serve(ends, contexts, settings, command, lambda _: None)
    for descriptor in ends:
        try:
            os.close(descriptor)
        except OSError:
            pass  # the engine has done it, unless the handshake failed


def _play(
    client: socket.socket, application: ucspitls.Descriptors, version: ssl.TLSVersion
) -> None:
    """Be the client and the application of one connection."""
    os.write(application.control, b"Y")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version
    secured = context.wrap_socket(client, server_hostname="rehearsal.invalid")
    for _ in range(WORDS):
        os.write(application.write, b"word")
        secured.recv(4)
        secured.send(b"word")
        os.read(application.read, 4)
    os.close(application.write)
    secured.recv(1)  # the end: close_notify
    secured.close()
