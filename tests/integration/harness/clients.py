"""Real mail programs, each wrapped into one function: send a message, or fetch all mail.

Every submitter has the same signature and every fetcher has; so one test runs them all.
A client that fails raises ClientError with everything it printed.
"""

import poplib
import smtplib
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, NamedTuple

from harness.mail import Message

SECONDS = 60
poplib._MAXLINE = 65536  # type: ignore[attr-defined]  # its 2048 is not the protocol's limit


class ClientError(Exception):
    """The client program reported a failure; str() is what it printed."""


class Account(NamedTuple):
    """An account's login (also its address) and password."""

    address: str
    password: str


class Endpoint(NamedTuple):
    """Where an appliance is published: a host and its ports by service name."""

    host: str
    ports: dict[str, int]


def run(argv: list[str], *, data: bytes = b"", seconds: float = SECONDS) -> bytes:
    """Run a client with data on its standard input and return what it printed.

    Raises:
        ClientError: it exited with another status than 0, or took longer than the seconds.
    """
    try:
        done = subprocess.run(argv, input=data, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise ClientError(
            f"{argv[0]}: no end within {seconds} seconds\n{error.output!r}"
        ) from error
    if done.returncode:
        text = (done.stdout + done.stderr).decode("utf-8", "replace")
        raise ClientError(f"{argv[0]}: status {done.returncode}\n{text}")
    return done.stdout


def trusting_context() -> ssl.SSLContext:
    """Return a TLS context that takes a self-signed certificate: the tests' servers have one."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# Submission ---------------------------------------------------------------------------------

Submitter = Callable[[Endpoint, Account, Message, str, Path], None]


def _swaks(service: str, mechanism: str, tls: str) -> Submitter:
    def submit(at: Endpoint, account: Account, message: Message, to: str, scratch: Path) -> None:
        # Without its fix-ups swaks sends the file as it is, so it must be stuffed and ended here.
        stuffed = b"\r\n".join(
            b"." + line if line.startswith(b".") else line for line in message.raw.split(b"\r\n")
        )
        data = scratch / "data"
        data.write_bytes(stuffed + b".\r\n")
        run(
            ["swaks", "--server", at.host, "--port", str(at.ports[service]), tls]
            + ["--auth", mechanism, "--auth-user", account.address]
            + ["--auth-password", account.password, "--from", account.address, "--to", to]
            + ["--no-data-fixup", "--data", f"@{data}", "--timeout", "30"]
        )

    return submit


def _curl(scheme: str, service: str) -> Submitter:
    def submit(at: Endpoint, account: Account, message: Message, to: str, scratch: Path) -> None:
        data = scratch / "data"
        data.write_bytes(message.raw)
        run(
            ["curl", "-sS", "-k", "--ssl-reqd", "-m", "30"]
            + ["--url", f"{scheme}://{at.host}:{at.ports[service]}/client.example"]
            + ["--mail-from", account.address, "--mail-rcpt", to, "-T", str(data)]
            + ["-u", f"{account.address}:{account.password}"]
        )

    return submit


def _msmtp(service: str, starttls: str) -> Submitter:
    def submit(at: Endpoint, account: Account, message: Message, to: str, scratch: Path) -> None:
        configuration = scratch / "msmtprc"
        configuration.write_text(
            f"account default\nhost {at.host}\nport {at.ports[service]}\ntls on\n"
            f"tls_starttls {starttls}\ntls_certcheck off\nauth on\nuser {account.address}\n"
            f"password {account.password}\nfrom {account.address}\n"
        )
        configuration.chmod(0o600)
        # msmtp reads a file of the local kind, with line feeds.
        run(
            ["msmtp", "-C", str(configuration), "--", to],
            data=message.raw.replace(b"\r\n", b"\n"),
        )

    return submit


def _smtplib(service: str) -> Submitter:
    def submit(at: Endpoint, account: Account, message: Message, to: str, scratch: Path) -> None:
        try:
            if service == "submissions":
                client: smtplib.SMTP = smtplib.SMTP_SSL(
                    at.host, at.ports[service], timeout=30, context=trusting_context()
                )
            else:
                client = smtplib.SMTP(at.host, at.ports[service], timeout=30)
                client.starttls(context=trusting_context())
            with client:
                client.login(account.address, account.password)
                client.sendmail(account.address, [to], message.raw, ["BODY=8BITMIME"])
        except smtplib.SMTPException as error:
            raise ClientError(f"smtplib: {error}") from error

    return submit


def _openssl_submit(service: str) -> Submitter:
    def submit(at: Endpoint, account: Account, message: Message, to: str, scratch: Path) -> None:
        import base64

        plain = base64.b64encode(f"\0{account.address}\0{account.password}".encode())
        stuffed = message.raw.replace(b"\r\n.", b"\r\n..")
        with OpenSSL(at, service) as session:
            if service == "submissions":
                session.expect(b"220")
            session.say(b"EHLO client.example", b"250")
            session.say(b"AUTH PLAIN " + plain, b"235")
            session.say(b"MAIL FROM:<" + account.address.encode() + b">", b"250")
            session.say(b"RCPT TO:<" + to.encode() + b">", b"250")
            session.say(b"DATA", b"354")
            session.say(stuffed + b".", b"250")
            session.say(b"QUIT", b"221")

    return submit


class OpenSSL:
    """A dialogue through ``openssl s_client``, as a person at a terminal has it."""

    STARTTLS: ClassVar = {"mx": "smtp", "submission": "smtp", "pop3": "pop3"}

    def __init__(self, at: Endpoint, service: str, *options: str) -> None:
        """Connect; on the STARTTLS services openssl itself negotiates TLS first."""
        argv = [
            "timeout",
            str(SECONDS),
            "openssl",
            "s_client",
            "-quiet",
            "-connect",
            f"{at.host}:{at.ports[service]}",
        ]
        if name := self.STARTTLS.get(service):
            argv += ["-starttls", name]
        self._process = subprocess.Popen(
            argv + list(options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._lines: list[bytes] = []

    def __enter__(self) -> "OpenSSL":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    def say(self, line: bytes, wanted: bytes) -> list[bytes]:
        """Send a line and return the reply's lines, which must start with wanted."""
        assert self._process.stdin
        self._process.stdin.write(line + b"\r\n")
        self._process.stdin.flush()
        return self.expect(wanted)

    def expect(self, wanted: bytes) -> list[bytes]:
        """Return the lines of the next reply.

        Raises:
            ClientError: it is another reply, or the connection ended.
        """
        lines = [self._read_line()]
        while lines[-1][3:4] == b"-" and lines[-1][:3].isdigit():
            lines.append(self._read_line())
        if not lines[-1].startswith(wanted):
            raise ClientError(f"openssl: wanted {wanted!r}, got {lines!r} after {self._lines!r}")
        return lines

    def read_multiline(self) -> bytes:
        """Return a POP3 multi-line response, without its dot line, unstuffed."""
        lines = []
        while (line := self._read_line()) != b".\r\n":
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)

    def _read_line(self) -> bytes:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise ClientError(f"openssl: the connection ended after {self._lines!r}")
        self._lines.append(line)
        return line


SUBMITTERS: dict[str, Submitter] = {
    "swaks-starttls-plain": _swaks("submission", "PLAIN", "--tls"),
    "swaks-starttls-login": _swaks("submission", "LOGIN", "--tls"),
    "swaks-implicit-plain": _swaks("submissions", "PLAIN", "--tlsc"),
    "swaks-implicit-login": _swaks("submissions", "LOGIN", "--tlsc"),
    "curl-smtp": _curl("smtp", "submission"),
    "curl-smtps": _curl("smtps", "submissions"),
    "msmtp-starttls": _msmtp("submission", "on"),
    "msmtp-implicit": _msmtp("submissions", "off"),
    "smtplib-starttls": _smtplib("submission"),
    "smtplib-implicit": _smtplib("submissions"),
    "openssl-starttls": _openssl_submit("submission"),
    "openssl-implicit": _openssl_submit("submissions"),
}


# POP3 ---------------------------------------------------------------------------------------

Fetcher = Callable[[Endpoint, Account, Path], list[bytes]]


def _curl_fetch(scheme: str, service: str) -> Fetcher:
    def fetch(at: Endpoint, account: Account, scratch: Path) -> list[bytes]:
        base = ["curl", "-sS", "-k", "--ssl-reqd", "-m", "30"]
        base += ["-u", f"{account.address}:{account.password}"]
        url = f"{scheme}://{at.host}:{at.ports[service]}/"
        listing = run([*base, url])
        numbers = [line.split()[0].decode() for line in listing.splitlines() if line.split()]
        return [run([*base, url + number]) for number in numbers]

    return fetch


def _poplib(service: str) -> Fetcher:
    def fetch(at: Endpoint, account: Account, scratch: Path) -> list[bytes]:
        try:
            if service == "pop3s":
                client: poplib.POP3 = poplib.POP3_SSL(
                    at.host, at.ports[service], timeout=30, context=trusting_context()
                )
            else:
                client = poplib.POP3(at.host, at.ports[service], timeout=30)
                client.stls(trusting_context())
            client.user(account.address)
            client.pass_(account.password)
            count = len(client.list()[1])
            messages = [
                b"".join(line + b"\r\n" for line in client.retr(number)[1])
                for number in range(1, count + 1)
            ]
            client.quit()
        except poplib.error_proto as error:
            raise ClientError(f"poplib: {error}") from error
        return messages

    return fetch


def _mpop(service: str, starttls: str) -> Fetcher:
    def fetch(at: Endpoint, account: Account, scratch: Path) -> list[bytes]:
        box = scratch / "mpop-mail"
        for part in ("tmp", "new", "cur"):
            (box / part).mkdir(parents=True, exist_ok=True)
        configuration = scratch / "mpoprc"
        configuration.write_text(
            f"account default\nhost {at.host}\nport {at.ports[service]}\ntls on\n"
            f"tls_starttls {starttls}\ntls_certcheck off\nuser {account.address}\n"
            f"password {account.password}\nkeep on\ndelivery maildir {box}\n"
            f"received_header off\nuidls_file {scratch}/uidls\n"
        )
        configuration.chmod(0o600)
        run(["mpop", "-q", "-C", str(configuration)])
        found = [path.read_bytes() for path in sorted((box / "new").iterdir())]
        return [raw.replace(b"\n", b"\r\n") for raw in found]

    return fetch


def _openssl_fetch(service: str) -> Fetcher:
    def fetch(at: Endpoint, account: Account, scratch: Path) -> list[bytes]:
        with OpenSSL(at, service) as session:
            if service == "pop3s":
                session.expect(b"+OK")
            session.say(b"USER " + account.address.encode(), b"+OK")
            session.say(b"PASS " + account.password.encode(), b"+OK")
            session.say(b"LIST", b"+OK")
            count = len(session.read_multiline().splitlines())
            messages = []
            for number in range(1, count + 1):
                session.say(b"RETR %d" % number, b"+OK")
                messages.append(session.read_multiline())
            session.say(b"QUIT", b"+OK")
        return messages

    return fetch


FETCHERS: dict[str, Fetcher] = {
    "curl-pop3": _curl_fetch("pop3", "pop3"),
    "curl-pop3s": _curl_fetch("pop3s", "pop3s"),
    "poplib-stls": _poplib("pop3"),
    "poplib-implicit": _poplib("pop3s"),
    "mpop-stls": _mpop("pop3", "on"),
    "mpop-implicit": _mpop("pop3s", "off"),
    "openssl-stls": _openssl_fetch("pop3"),
    "openssl-implicit": _openssl_fetch("pop3s"),
}
