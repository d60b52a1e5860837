"""The event stream: one line for each attempt, to every program that reads along.

    time=2026-11-22T17:00:00Z service=pop3 ip=192.0.2.1 account=alice@example.org outcome=failed

Whatever a client wrote is escaped: outside printable ASCII, and for blanks, quotes, equals
signs and backslashes, stands ``\\xNN``. A reader that does not keep up is dropped.
"""

import select
import socket
import time

from acceptutils.guard.wire import Question

READER_LIMIT = 16

_ESCAPED = frozenset(b" \"'=\\")


def line(question: Question, outcome: str, now: float) -> bytes:
    """Return the line of one event.

    Args:
        question: whose attempt it was.
        outcome: ``passed``, ``failed`` or ``refused``.
        now: seconds since the epoch.
    """
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    service, address, account = map(_word, question)
    return (
        f"time={stamp} service={service} ip={address} account={account} outcome={outcome}\n"
    ).encode("ascii")


def _word(text: bytes) -> str:
    return "".join(
        chr(byte) if 32 < byte < 127 and byte not in _ESCAPED else f"\\x{byte:02x}" for byte in text
    )


class Readers:
    """Who reads the events along."""

    def __init__(self, listener: socket.socket, poll: select.poll) -> None:
        self._listener = listener
        self._poll = poll
        self._readers: dict[int, socket.socket] = {}
        poll.register(listener, select.POLLIN)

    def accept(self) -> None:
        """Take a new reader."""
        try:
            reader, _ = self._listener.accept()
        except OSError:
            return
        if len(self._readers) >= READER_LIMIT:
            reader.close()
            return
        reader.setblocking(False)
        self._readers[reader.fileno()] = reader
        self._poll.register(reader, select.POLLIN)

    def __contains__(self, descriptor: int) -> bool:
        return descriptor in self._readers

    def drop(self, descriptor: int) -> None:
        """Let go of a reader that ended, or spoke, or does not keep up."""
        self._poll.unregister(descriptor)
        self._readers.pop(descriptor).close()

    def send(self, event: bytes) -> None:
        """Send a line to all; who cannot take the whole of it now is dropped."""
        for descriptor, reader in list(self._readers.items()):
            try:
                sent = reader.send(event)
            except OSError:
                sent = 0
            if sent < len(event):
                self.drop(descriptor)
