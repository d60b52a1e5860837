"""``postern health``: ask every service whether it works, in the way its clients do.

Each service directory says in data/check how: lines of a kind and its arguments.

    smtp HOST PORT plain|starttls|implicit      greeting, EHLO, TLS, NOOP, QUIT
    pop3 HOST PORT plain|starttls|implicit      greeting, CAPA, TLS, QUIT
    http HOST PORT                              a page at /
    stream PATH, seqpacket PATH                 a socket that takes connections
    fifo PATH                                   a FIFO that somebody reads
"""

import errno
import os
import socket
import sys
import time
from collections.abc import Callable

from appliance.layout import QMAILQ, Layout

DEADLINE = 5.0  # seconds for everything
LINE_LIMIT = 4096
REPLY_LINES = 64

EXIT_FAILED = 1
EXIT_USAGE = 100

USAGE = "usage: postern health [--service NAME]\n"


class Failure(Exception):
    """A service does not do what it should; the text says what it did."""


class Conversation:
    """Lines to and from a service, each step within the common deadline."""

    def __init__(self, host: str, port: int, implicit_tls: bool, until: float) -> None:
        self._until = until
        self._buffer = b""
        self._socket = socket.create_connection((host, port), timeout=self._left())
        if implicit_tls:
            self.start_tls()

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _left(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("no time left")
        return left

    def start_tls(self) -> None:
        """Shake hands. Whose certificate it is does not matter to the service's health."""
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._socket.settimeout(self._left())
        self._socket = context.wrap_socket(self._socket)

    @property
    def certificate(self) -> bytes:
        """The other side's certificate, in DER; empty without TLS."""
        shown = getattr(self._socket, "getpeercert", None)
        return (shown(binary_form=True) or b"") if shown else b""

    def send(self, line: str) -> None:
        """Send one line."""
        self._socket.settimeout(self._left())
        self._socket.sendall(line.encode("ascii") + b"\r\n")

    def line(self) -> str:
        """Return the next line, without its end."""
        while b"\n" not in self._buffer:
            self._socket.settimeout(self._left())
            received = self._socket.recv(4096)
            if not received:
                raise Failure("closed the connection")
            self._buffer += received
            if len(self._buffer) > LINE_LIMIT:
                raise Failure("sent a line without end")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.rstrip(b"\r").decode("ascii", "replace")


def smtp(host: str, port: str, tls: str, until: float) -> bytes:
    """Go through an SMTP session that sends no mail; return the certificate that was shown."""
    with Conversation(host, int(port), tls == "implicit", until) as talk:
        _smtp_reply(talk, "220")
        talk.send("EHLO localhost")
        offers = _smtp_reply(talk, "250")
        if tls == "starttls":
            if not any(offer[4:].upper() == "STARTTLS" for offer in offers):
                raise Failure("does not offer STARTTLS")
            talk.send("STARTTLS")
            _smtp_reply(talk, "220")
            talk.start_tls()
            talk.send("EHLO localhost")
            _smtp_reply(talk, "250")
        talk.send("NOOP")
        _smtp_reply(talk, "250")
        talk.send("QUIT")
        _smtp_reply(talk, "221")
        return talk.certificate


def _smtp_reply(talk: Conversation, code: str) -> list[str]:
    lines: list[str] = []
    while len(lines) < REPLY_LINES:
        line = talk.line()
        lines.append(line)
        if not line.startswith(code):
            raise Failure(f"said {line[:200]!r} instead of {code}")
        if line[3:4] != "-":
            return lines
    raise Failure("sent a reply without end")


def pop3(host: str, port: str, tls: str, until: float) -> bytes:
    """Go through a POP3 session without logging in; return the certificate that was shown."""
    with Conversation(host, int(port), tls == "implicit", until) as talk:
        _pop3_ok(talk)
        talk.send("CAPA")
        _pop3_ok(talk)
        offers: list[str] = []
        while len(offers) < REPLY_LINES and (line := talk.line()) != ".":
            offers.append(line.upper())
        if tls == "starttls":
            if "STLS" not in offers:
                raise Failure("does not offer STLS")
            talk.send("STLS")
            _pop3_ok(talk)
            talk.start_tls()
        talk.send("QUIT")
        _pop3_ok(talk)
        return talk.certificate


def _pop3_ok(talk: Conversation) -> None:
    line = talk.line()
    if not line.startswith("+OK"):
        raise Failure(f"said {line[:200]!r} instead of +OK")


def http(host: str, port: str, until: float) -> None:
    """Ask an HTTP server for its first page."""
    with Conversation(host, int(port), False, until) as talk:
        talk.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")
        answer = talk.line()
        if answer.split()[1:2] != ["200"]:
            raise Failure(f"said {answer[:200]!r} instead of 200")


def stream(path: str, until: float) -> None:
    """Connect to a stream socket."""
    _connect(path, socket.SOCK_STREAM, until)


def seqpacket(path: str, until: float) -> None:
    """Connect to a packet socket."""
    _connect(path, socket.SOCK_SEQPACKET, until)


def _connect(path: str, kind: int, until: float) -> None:
    with socket.socket(socket.AF_UNIX, kind) as client:
        client.settimeout(max(until - time.monotonic(), 0.01))
        client.connect(path)


def fifo(path: str, until: float) -> None:
    """Open a FIFO for writing, which fails when nobody reads it; nothing is written."""
    try:
        _open_fifo(path)
    except PermissionError:
        _open_fifo_as_qmailq(path)


def _open_fifo(path: str) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise Failure(f"nobody reads {path}") from None
        raise


def _open_fifo_as_qmailq(path: str) -> None:
    """Open it as who pulls the trigger: root without CAP_DAC_OVERRIDE may not go there."""
    pid = os.fork()
    if pid:
        if error := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            what = f"nobody reads {path}" if error == errno.ENXIO else os.strerror(abs(error))
            raise Failure(what)
        return
    code = errno.EPERM
    try:
        os.setgroups([])
        os.setresgid(QMAILQ.gid, QMAILQ.gid, QMAILQ.gid)
        os.setresuid(QMAILQ.uid, QMAILQ.uid, QMAILQ.uid)
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        code = 0
    except OSError as error:
        code = error.errno or errno.EPERM
    finally:
        os._exit(code)


WITH_TLS: dict[str, Callable[..., bytes]] = {"smtp": smtp, "pop3": pop3}
CHECKS: dict[str, Callable[..., object]] = {
    **WITH_TLS,
    "http": http,
    "stream": stream,
    "seqpacket": seqpacket,
    "fifo": fifo,
}


def main(argv: list[str], env: dict[str, str], places: Layout | None = None) -> int:
    """Check every service, or the one that is named.

    Returns:
        0 when all is well; 1 when not, with a line for each service that fails; 100 for
        wrong usage.
    """
    places = places or Layout()
    match argv[1:]:
        case []:
            names = service_names(places)
        case ["--service", name] if name and "/" not in name:
            names = [name]
        case _:
            sys.stderr.write(USAGE)
            return EXIT_USAGE
    until = time.monotonic() + DEADLINE
    failures = [f"{name}: {what}" for name in names if (what := check(places, name, until))]
    if not names:
        failures = ["no services: not started yet"]
    for line in failures:
        sys.stdout.write(f"{line}\n")
    return EXIT_FAILED if failures else 0


def service_names(places: Layout) -> list[str]:
    """Return the services of the running container."""
    try:
        return sorted(n for n in os.listdir(places.services) if not n.startswith("."))
    except FileNotFoundError:
        return []


def check(places: Layout, name: str, until: float) -> str:
    """Return what is wrong with a service, "" when nothing is."""
    try:
        with open(f"{places.services}/{name}/data/check") as file:
            checks = [line.split() for line in file]
    except FileNotFoundError:
        return "no such service"
    try:
        for kind, *arguments in checks:
            CHECKS[kind](*arguments, until)
    except TimeoutError:
        return "no answer in time"
    except Failure as failure:
        return str(failure)
    except OSError as error:  # ssl.SSLError is one
        return error.strerror or str(error)
    return ""
