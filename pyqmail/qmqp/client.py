"""qmail-qmqpc: queue a message on another host via QMQP (qmail-qmqpc(8)).

It has qmail-queue's interface, message on descriptor 0 and envelope on 1, and can be
named in ``QMAILQUEUE``. The servers in control/qmqpservers are tried in turn until one can
be connected to. No other is asked after it: it may have the message even if its answer is lost.
"""

import os
import socket

from pyqmail.qmqp import netstring
from pyqmail.queue import envelope, errors
from ucspi import control, log

PORT = 628
TIMEOUT_CONNECT = 10  # seconds for each server
TIMEOUT = 60  # seconds for one read or write
RESPONSE_LIMIT = 1000

STATUS = {b"K": errors.QUEUED, b"Z": errors.REFUSED_FOR_NOW, b"D": errors.REFUSED}


class UnreachableError(Exception):
    """No connection to this server; ``status`` is the exit status when there is to none."""

    def __init__(self, status: int) -> None:
        """Name the exit status."""
        super().__init__(status)
        self.status = status


def parse_server(line: bytes) -> tuple[str, int]:
    """Return address and port of a line: ``192.0.2.1``, ``192.0.2.1:628``, ``[2001:db8::1]:628``.

    Raises:
        ValueError: the port is none.
    """
    text = os.fsdecode(line)
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    else:
        address, port = text, ""
    return address, int(port) if port else PORT


def request(message: bytes, pieces: list[bytes]) -> bytes:
    """Return what is sent: one netstring around those of message, sender and recipients.

    Args:
        message: as it came on descriptor 0.
        pieces: the envelope's addresses with their letters, the sender first.
    """
    inner = netstring.encode(message) + b"".join(netstring.encode(p[1:]) for p in pieces)
    return netstring.encode(inner)


def main(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-qmqpc``; returns an exit status of qmail-queue(8)."""
    try:
        control.enter_home(env)
        servers = [parse_server(line) for line in control.read_lines("qmqpservers") or ()]
    except (control.ControlError, ValueError) as error:
        log.event(env, f"qmail-qmqpc: {error}")
        return errors.NO_CONTROL
    try:
        message = _read_all(0)
        pieces = _read_envelope()
    except envelope.EnvelopeError as error:
        return error.status
    except OSError:
        return errors.READ_ERROR
    except MemoryError:
        return errors.NO_MEMORY
    if len(message) > netstring.LENGTH_LIMIT:
        return errors.REFUSED
    data = request(message, pieces)
    status = errors.NO_CONTROL  # control/qmqpservers names no server
    for server in servers:
        try:
            return ask(server, data)
        except UnreachableError as error:
            status = error.status
    return status


def ask(server: tuple[str, int], data: bytes) -> int:
    """Send a request to one server and return the exit status that its answer means.

    Raises:
        UnreachableError: nothing was sent, and another server may be asked.
    """
    try:
        connection = socket.create_connection(server, TIMEOUT_CONNECT)
    except TimeoutError as error:
        raise UnreachableError(errors.CONNECTION_TIMEOUT) from error
    except OSError as error:
        raise UnreachableError(errors.CONNECTION_REFUSED) from error
    with connection:
        connection.settimeout(TIMEOUT)
        try:
            connection.sendall(data)
            answer = netstring.Reader(lambda: _some(connection)).string(RESPONSE_LIMIT)
        except (OSError, netstring.NetstringError):
            return errors.CONNECTION_LOST
    return STATUS.get(answer[:1], errors.CONNECTION_LOST)


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(RESPONSE_LIMIT)
    if not data:
        raise ConnectionResetError
    return data


def _read_all(descriptor: int) -> bytes:
    chunks = []
    while chunk := os.read(descriptor, 65536):
        chunks.append(chunk)
    return b"".join(chunks)


def _read_envelope() -> list[bytes]:
    reader = envelope.EnvelopeReader()
    fields = b""
    while not reader.complete:
        data = os.read(1, 65536)
        if not data:
            raise OSError
        fields += reader.feed(data)
    return fields.split(b"\0")[:-1]
