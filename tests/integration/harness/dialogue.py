"""A bare client that sends what the test says, byte for byte, and shows every byte it gets."""

import base64
import socket
import ssl

from harness.clients import Account, Endpoint, trusting_context

SECONDS = 30


class Dialogue:
    """One connection: lines and raw bytes out, replies in."""

    def __init__(self, at: Endpoint, service: str, *, greet: bool = True, tls: bool = True) -> None:
        """Connect (with TLS at once on the implicit ports) and read the greeting."""
        self.pop3 = service.startswith("pop3")
        self.socket = socket.create_connection((at.host, at.ports[service]), timeout=SECONDS)
        self._buffer = b""
        if tls and service in ("submissions", "pop3s"):
            self.start_tls_now()
        self.greeting = self.reply() if greet else []

    def __enter__(self) -> "Dialogue":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def say(self, line: bytes) -> list[bytes]:
        """Send one line and return the lines of its reply."""
        self.send(line + b"\r\n")
        return self.reply()

    def code(self, line: bytes) -> bytes:
        """Send one line and return the code of its reply: ``250``, ``+OK``, ``-ERR``."""
        reply = self.say(line)
        if not reply:
            return b""
        return reply[-1].split(b" ", 1)[0] if self.pop3 else reply[-1][:3]

    def reply(self) -> list[bytes]:
        """Return the lines of the next reply without line ends; [] at the end of the stream."""
        lines: list[bytes] = []
        while (line := self.line()) is not None:
            lines.append(line)
            if self.pop3 or line[3:4] != b"-":
                break
        return lines

    def line(self) -> bytes | None:
        """Return the next line without its line end, None at the end of the stream."""
        while b"\r\n" not in self._buffer:
            chunk = self._receive()
            if not chunk:
                assert not self._buffer, f"cut-off line {self._buffer!r}"
                return None
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def lines(self, count: int) -> list[bytes]:
        """Return the next lines, as many as that: of a flood, quicker than one by one."""
        chunks, missing = [self._buffer], count - self._buffer.count(b"\r\n")
        while missing > 0:
            chunk = self._receive()
            assert chunk, "the end of the stream"
            missing -= chunk.count(b"\n")  # a CR LF may be split
            chunks.append(chunk)
        *found, self._buffer = b"".join(chunks).split(b"\r\n", count)
        return found

    def rest(self) -> bytes:
        """Return everything up to the end of the stream."""
        while chunk := self._receive():
            self._buffer += chunk
        rest, self._buffer = self._buffer, b""
        return rest

    def silent(self, seconds: float = 0.5) -> bool:
        """Say whether nothing arrives for that long."""
        if self._buffer:
            return False
        self.socket.settimeout(seconds)
        try:
            self._buffer += self.socket.recv(65536)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(SECONDS)
        return False

    def start_tls(self) -> None:
        """Say STARTTLS or STLS, which must be accepted, and shake hands."""
        reply = self.say(b"STLS" if self.pop3 else b"STARTTLS")
        assert reply[-1][:3] in (b"220", b"+OK"), reply
        self.start_tls_now()

    def log_in(self, account: Account) -> None:
        """Log in, which must be accepted."""
        if self.pop3:
            self.say(b"USER " + account.address.encode())
            assert self.code(b"PASS " + account.password.encode()) == b"+OK"
        else:
            self.say(b"EHLO client.example")
            secret = f"\0{account.address}\0{account.password}".encode()
            assert self.code(b"AUTH PLAIN " + base64.b64encode(secret)) == b"235"

    def start_tls_now(self, context: ssl.SSLContext | None = None) -> None:
        """Shake hands on the connection as it is."""
        self.socket = (context or trusting_context()).wrap_socket(self.socket)

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(65536)
        except (ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return b""
