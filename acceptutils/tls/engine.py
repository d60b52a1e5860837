"""One connection's TLS engine: wait for the word, shake hands, report, move bytes."""

import _socket
import os
import select
import socket
import ssl
import time
from collections.abc import Callable

from acceptutils.tls import blob, settings
from acceptutils.tls.context import Contexts, reason
from acceptutils.tls.request import Ends
from acceptutils.tls.shuttle import CHUNK, RECEIVE_FLAGS, SEND_FLAGS, Shuttle

# Exit statuses, as s6-tlsd-io's.
ENDED = 0
NOT_CONFIGURED = 96
FAILED = 98
MISUSED = 100
BROKEN = 111

COMMANDS = (b"Y", b"y")  # with and without a report of the variables

Log = Callable[[str], None]


class HandshakeFailure(Exception):
    """There is no TLS; the text says why."""


def await_command(control: int) -> bytes:
    """Return the application's command, ``Y`` or ``y``; empty when it never gave one."""
    return os.read(control, 1)


def serve(
    ends: Ends, contexts: Contexts, options: settings.Settings, command: bytes, log: Log
) -> int:
    """Serve one connection to its end.

    Args:
        ends: this process's descriptors; all are closed at the end.
        contexts: certificates and keys, loaded.
        options: what was asked of the engine.
        command: ``Y`` reports the variables on the control socket, ``y`` does not.
        log: takes one line for the log.

    Returns:
        The exit status of the engine.
    """
    # The bare class: socket.socket turns every number that it meets into an enumeration.
    network = _socket.socket(fileno=ends.network)
    try:
        return _serve(network, ends, contexts, options, command, log)
    finally:
        network.close()


def _serve(
    network: _socket.socket,
    ends: Ends,
    contexts: Contexts,
    options: settings.Settings,
    command: bytes,
    log: Log,
) -> int:
    try:
        # Nagle's algorithm would hold our second flight back until the client's delayed
        # acknowledgement, 40 ms; not every server under which we run turns it off.
        network.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        pass  # not TCP
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = contexts.default.wrap_bio(incoming, outgoing, server_side=True)
    try:
        _shake_hands(connection, incoming, outgoing, network, ends, options.handshake_seconds)
    except HandshakeFailure as failure:
        if options.verbosity:
            log(f"TLS handshake failed: {failure}")
        _leave(network)
        return FAILED
    variables = blob.describe(connection, contexts.server_name)
    if options.verbosity > 1:
        log(f"TLS started: {variables['SSL_PROTOCOL']} {variables.get('SSL_CIPHER', '')}")
    if command == b"Y":
        try:
            os.write(ends.control, blob.encode(variables))
        except OSError:
            pass  # an application that is gone shows on the pipes as well
    os.close(ends.control)
    shuttle = Shuttle(
        connection,
        incoming,
        outgoing,
        network,
        ends.from_application,
        ends.to_application,
        options.closing,
    )
    shuttle.run()
    if shuttle.failure is not None:
        log(f"TLS ended: {reason(shuttle.failure)}")
        return FAILED
    if shuttle.truncated and options.strict_end:
        log("TLS ended: the client closed without close_notify")
        return FAILED
    return ENDED


def _shake_hands(
    connection: ssl.SSLObject,
    incoming: ssl.MemoryBIO,
    outgoing: ssl.MemoryBIO,
    network: _socket.socket,
    ends: Ends,
    seconds: float | None,
) -> None:
    """Do the handshake within seconds, whatever the client does or does not send.

    Raises:
        HandshakeFailure: it did not come about.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    readable, writable = select.poll(), select.poll()
    for poller, event in ((readable, select.POLLIN), (writable, select.POLLOUT)):
        poller.register(network, event)
        poller.register(ends.to_application, 0)  # an application that is gone
    while True:
        done = False
        problem: ssl.SSLError | None = None
        try:
            connection.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            problem = error  # the alert that tells the client is still to be sent
        unsent = memoryview(outgoing.read())
        while unsent:
            try:
                unsent = unsent[network.send(unsent, SEND_FLAGS) :]
            except BlockingIOError:
                _wait(writable, network, deadline)
            except OSError as error:
                raise HandshakeFailure(reason(problem or error)) from error
        if problem is not None:
            raise HandshakeFailure(_explain(problem)) from problem
        if done:
            return
        _wait(readable, network, deadline)
        try:
            chunk = network.recv(CHUNK, RECEIVE_FLAGS)
        except BlockingIOError:
            continue
        except OSError as error:
            raise HandshakeFailure(reason(error)) from error
        if chunk:
            incoming.write(chunk)
        else:
            incoming.write_eof()


def _wait(poller: select.poll, network: _socket.socket, deadline: float | None) -> None:
    left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
    events = poller.poll(left)
    if not events:
        raise HandshakeFailure("timed out")
    if all(descriptor != network.fileno() for descriptor, _ in events):
        raise HandshakeFailure("the application is gone")


def _explain(problem: ssl.SSLError) -> str:
    if isinstance(problem, ssl.SSLEOFError):
        return "the client closed the connection"
    if problem.reason == "CALLBACK_FAILED":  # ours, for the server's name, which it decodes
        return "the server name is not ASCII"
    return reason(problem)


def _leave(network: _socket.socket) -> None:
    """End the connection so that the client still gets to read our alert."""
    try:
        network.shutdown(socket.SHUT_WR)
        network.recv(CHUNK, RECEIVE_FLAGS)
    except OSError:
        pass
