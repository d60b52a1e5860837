"""qmail-queue: hand a message on descriptor 0 and an envelope on 1 to the queue server."""

import os
import signal

from pyqmail.queue import client, envelope, errors, wire

READ = 65536  # bytes of one read


class _ReadError(Exception):
    """The message or the envelope cannot be read to its end."""


def main(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-queue``; its interface is qmail-queue(8).

    Args:
        argv: no arguments are looked at.
        env: ``QMAIL_QUEUE_SOCKET``, when the server is not at its usual place.

    Returns:
        0 when the message is queued, or one of pyqmail.queue.errors.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    path = env.get("QMAIL_QUEUE_SOCKET", client.SOCKET)
    injection = client.ServerInjection(path, wire.KIND_PROGRAM)
    try:
        while data := _read(0):
            injection.write(data)
        return injection.finish_raw(_envelope()).status
    except _ReadError:
        status = errors.READ_ERROR
    except envelope.EnvelopeError as error:
        status = error.status
    except MemoryError:
        status = errors.NO_MEMORY
    except Exception:
        status = errors.BUG
    injection.abort()
    return status


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, READ)
    except OSError as error:
        raise _ReadError from error


def _envelope() -> list[bytes]:
    """Return the envelope up to its last NUL; the caller need not close the descriptor.

    Raises:
        _ReadError, EnvelopeError
    """
    reader = envelope.EnvelopeReader()
    pieces = []
    while not reader.complete:
        data = _read(1)
        if not data:
            raise _ReadError
        pieces.append(reader.feed(data))
    pieces.append(b"\0")
    return pieces
