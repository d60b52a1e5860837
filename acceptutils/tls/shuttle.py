"""The tunnel: ciphertext on a socket, plaintext on two pipes, and nothing between.

The socket belongs to others as well (the application may still have it open), so its
file description is never made non-blocking: MSG_DONTWAIT does the same for one call.
The pipe ends are this process's own.

Back pressure: nothing is read from a side while what came from it before waits to be
written to the other; at most some 64 KiB are held each way. Both directions end on
their own:

====================================  ===============================================
the client sends close_notify or FIN  the application reads end of file
the application closes its end        close_notify, then TCP's half close
the connection is reset               the application reads end of file
the application is gone               what it wrote is still sent, then the end
====================================  ===============================================
"""

import _socket
import os
import select
import socket
import ssl

from acceptutils.tls.settings import Closing

CHUNK = 65536  # bytes moved at once: what a pipe holds
RECORD = 16384  # bytes of plaintext in one TLS record at most (RFC 8446, 5.1)
CIPHERTEXT_LIMIT = 2 * CHUNK  # bytes waiting for the network beyond which none are read from it
LINGER_SECONDS = 60.0  # for a client that does not take what a finished application wrote
DISCARDED_CHUNKS = 16  # of what a client still sends when its application is gone

# The bare numbers: the | of socket's own flags is Python code, run for every packet.
RECEIVE_FLAGS = _socket.MSG_DONTWAIT
SEND_FLAGS = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL


class Shuttle:
    """Moves bytes both ways until nothing is left to move."""

    def __init__(
        self,
        connection: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        network: _socket.socket,
        from_application: int,
        to_application: int,
        closing: Closing = Closing.NOTIFY,
    ) -> None:
        """Take over a connection whose handshake is done, and the application's pipes."""
        self._connection = connection
        self._incoming = incoming
        self._outgoing = outgoing
        self._network = network
        self._network_number = network.fileno()
        self._from_application = from_application  # -1 once closed
        self._to_application = to_application  # -1 once closed
        self._closing = closing
        self._plaintext = memoryview(b"")  # waits for the application
        self._ciphertext = memoryview(b"")  # waits for the network
        self._client_speaks = True  # neither close_notify nor end of file so far
        self._network_works = True
        self._said_goodbye = False  # the application's end of file has been passed on
        self._half_closed = False
        self._poller = select.poll()
        self._registered: dict[int, int] = {}
        self.truncated = False  # the client's end of file came without close_notify
        self.failure: ssl.SSLError | None = None  # what the client sent was not TLS
        os.set_blocking(to_application, False)

    def run(self) -> None:
        """Move bytes until both sides have ended, then end the connection."""
        self._decrypt()  # the client's last flight may have brought data with it
        while not self._is_over():
            self._register()
            lingering = self._from_application < 0 and self._ciphertext
            events = self._poller.poll(LINGER_SECONDS * 1000 if lingering else None)
            if not events:
                break
            for descriptor, event in events:
                self._serve(descriptor, event)
        self._end()

    def _is_over(self) -> bool:
        if not self._network_works:
            return not self._plaintext
        if self._said_goodbye and not self._ciphertext:
            return self._closing is Closing.NOTIFY_AND_END or self._to_application < 0
        return False

    def _register(self) -> None:
        """Poll for what can make progress, and for nothing else: idle costs nothing."""
        wanted: dict[int, int] = {}
        if self._network_works:
            event = select.POLLOUT if self._ciphertext else 0
            if (
                self._client_speaks
                and not self._plaintext
                and len(self._ciphertext) < CIPHERTEXT_LIMIT
            ):
                event |= select.POLLIN
            # Asked for nothing, poll would still report a hang-up, again and again.
            if event:
                wanted[self._network_number] = event
            if self._from_application >= 0 and not self._ciphertext:
                wanted[self._from_application] = select.POLLIN
        if self._to_application >= 0:
            # Without data the question is only whether anybody reads still.
            wanted[self._to_application] = select.POLLOUT if self._plaintext else 0
        if wanted != self._registered:
            for descriptor in self._registered.keys() - wanted.keys():
                self._poller.unregister(descriptor)
            for descriptor, event in wanted.items():
                if self._registered.get(descriptor) != event:
                    self._poller.register(descriptor, event)
            self._registered = wanted

    def _serve(self, descriptor: int, event: int) -> None:
        if descriptor == self._network_number:
            if event & select.POLLOUT or not event & select.POLLIN:
                self._send()
            if event & ~select.POLLOUT and self._network_works:
                self._receive()
        elif descriptor == self._from_application:
            self._encrypt()
        elif descriptor == self._to_application:
            if self._plaintext:
                self._deliver()
                self._decrypt()
            else:
                self._lose_reader()

    # From the network to the application.

    def _receive(self) -> None:
        if not self._client_speaks or self._plaintext:
            return
        try:
            chunk = self._network.recv(CHUNK, RECEIVE_FLAGS)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._lose_network()
            return
        if chunk:
            self._incoming.write(chunk)
        else:
            # OpenSSL is not told: it would take an end without close_notify for an attack,
            # and refuse to encrypt the answer. Everything before it is decrypted already.
            self._client_speaks = False
            self.truncated = True
        self._decrypt()

    def _decrypt(self) -> None:
        """Turn what has arrived into plaintext for the application, as much as it takes."""
        while self._client_speaks and not self._plaintext:
            plaintext = self._read_records()
            if plaintext:
                self._plaintext = memoryview(plaintext)
                self._deliver()
            elif self._client_speaks:
                break
        # Reading may have made something to say: a key update, an alert.
        self._collect()
        if not self._client_speaks and not self._plaintext:
            self._close_to_application()

    def _read_records(self) -> bytes:
        records = []
        length = 0
        try:
            while length < CHUNK:
                record = self._connection.read(RECORD)
                if not record:
                    self._client_speaks = False
                    break
                records.append(record)
                length += len(record)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._client_speaks = False  # close_notify, in answer to ours
        except ssl.SSLError as error:
            self._client_speaks = False
            self.failure = error
            self._said_goodbye = True  # nothing can be encrypted any more but the alert
            self._close_from_application()
        return records[0] if len(records) == 1 else b"".join(records)

    def _deliver(self) -> None:
        try:
            written = os.write(self._to_application, self._plaintext)
        except BlockingIOError:
            return
        except OSError:
            self._lose_reader()
            return
        self._plaintext = self._plaintext[written:]

    # From the application to the network.

    def _encrypt(self) -> None:
        data = os.read(self._from_application, CHUNK)
        if data:
            rest = memoryview(data)
            while rest:
                rest = rest[self._connection.write(rest) :]
            self._collect()
            return
        self._close_from_application()
        if self._closing is not Closing.HALF_CLOSE:
            try:
                self._connection.unwrap()
            except (ssl.SSLError, OSError):
                pass  # it has been said; the answer is not waited for
        self._said_goodbye = True
        self._collect()
        self._half_close()

    def _collect(self) -> None:
        if self._outgoing.pending:
            fresh = self._outgoing.read()
            self._ciphertext = memoryview(bytes(self._ciphertext) + fresh)
            self._send()

    def _send(self) -> None:
        if not self._network_works:
            return
        try:
            sent = self._network.send(self._ciphertext, SEND_FLAGS)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._lose_network()
            return
        self._ciphertext = self._ciphertext[sent:]
        self._half_close()

    # Ends.

    def _half_close(self) -> None:
        """Tell the network, once everything is sent, that nothing more will be."""
        if self._said_goodbye and not self._ciphertext and not self._half_closed:
            self._half_closed = True
            try:
                self._network.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the client has ended both ways; what it sent before is still read

    def _lose_network(self) -> None:
        """The connection is reset: what arrived before is still the application's."""
        self._network_works = self._client_speaks = False
        self._ciphertext = memoryview(b"")
        self._close_from_application()
        if not self._plaintext:
            self._close_to_application()

    def _lose_reader(self) -> None:
        """Nobody reads the client's words any more; what is written to it is still sent."""
        self._client_speaks = False
        self._plaintext = memoryview(b"")
        self._close_to_application()

    def _close_to_application(self) -> None:
        if self._to_application >= 0:
            self._forget(self._to_application)
            self._to_application = -1

    def _close_from_application(self) -> None:
        if self._from_application >= 0:
            self._forget(self._from_application)
            self._from_application = -1

    def _forget(self, descriptor: int) -> None:
        if self._registered.pop(descriptor, None) is not None:
            self._poller.unregister(descriptor)
        os.close(descriptor)

    def _end(self) -> None:
        """Close everything; whoever else holds the socket cannot keep it open."""
        self._close_to_application()
        self._close_from_application()
        try:
            # What the client sent last (a close_notify, as a rule) is taken off the socket:
            # closed with unread data it would be reset, and our last bytes with it.
            for _ in range(DISCARDED_CHUNKS):
                if not self._network.recv(CHUNK, RECEIVE_FLAGS):
                    break
        except OSError:
            pass
        try:
            self._network.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
