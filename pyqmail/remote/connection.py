"""An SMTP connection from the client's side: lines out, replies in, deadlines, TLS."""

import socket
import time

from pyqmail.remote import tls
from pyqmail.remote.addresses import IPAddress
from pyqmail.remote.reply import Reply, ReplyReader

READ_SIZE = 16384
HANDSHAKE_SECONDS = 120.0  # a server that stalls here may still do without TLS


class DiedError(Exception):
    """The server closed the connection, or was silent for too long."""


class Connection:
    """A connection to one server.

    Raises (all methods):
        DiedError: the connection is gone.
    """

    def __init__(self, connection: socket.socket, partner: bytes, timeout: float) -> None:
        """Take a connected socket.

        Args:
            connection: the socket; closed with this object.
            partner: the server's address, for reports.
            timeout: seconds; for one reply, or for one piece that is sent.
        """
        self.partner = partner
        self.security = "no TLS"  # for the log
        self._socket = connection
        self._timeout = timeout
        self._reader = ReplyReader()

    @classmethod
    def open(
        cls, address: IPAddress, port: int, connect_timeout: float, timeout: float
    ) -> "Connection":
        """Connect to a server.

        Raises:
            OSError: it did not answer; TimeoutError if it said nothing at all.
        """
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(connect_timeout)
            connection.connect((str(address), port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            connection.close()
            raise
        return cls(connection, str(address).encode("ascii"), timeout)

    def send(self, data: bytes) -> None:
        """Send all of data."""
        try:
            self._socket.settimeout(self._timeout)
            self._socket.sendall(data)
        except OSError as error:
            raise DiedError(str(error)) from error

    def reply(self, timeout: float | None = None) -> Reply:
        """Return the server's next reply, which has to be complete before the timeout.

        Raises:
            ReplyError: what it sends is no reply.
        """
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        while (reply := self._reader.take()) is None:
            rest = deadline - time.monotonic()
            if rest <= 0:
                raise DiedError("no reply in time")
            try:
                self._socket.settimeout(rest)
                data = self._socket.recv(READ_SIZE)
            except OSError as error:
                raise DiedError(str(error)) from error
            if not data:
                raise DiedError("end of file")
            self._reader.feed(data)
        return reply

    def ask(self, command: bytes) -> Reply:
        """Send a command and return the reply to it."""
        self.send(command + b"\r\n")
        return self.reply()

    def start_tls(self, demand: tls.Demand) -> None:
        """Go on inside TLS; the server has agreed.

        Raises:
            TlsError: it did not work; the connection is of no further use.
        """
        if self._reader.pending:
            # Bytes behind the 220, in the clear, would be taken for an answer that came
            # inside TLS.
            raise tls.TlsError("the server spoke out of turn")
        self._socket.settimeout(min(self._timeout, HANDSHAKE_SECONDS))
        self._socket, self.security = tls.start(self._socket, demand)

    @property
    def in_order(self) -> bool:
        """Whether nothing came from the server that was not asked for."""
        return not self._reader.pending

    def descriptor(self) -> int:
        """Return the socket's descriptor; -1 when it is closed."""
        return self._socket.fileno()

    def quit(self) -> None:
        """Say QUIT without waiting for an answer, and close."""
        try:
            self._socket.settimeout(1.0)
            self._socket.sendall(b"QUIT\r\n")
        except OSError:
            pass
        self.close()

    def close(self) -> None:
        """Close at once."""
        self._socket.close()
