"""The SMTP conversation of one delivery (RFC 5321), as qmail-remote holds it."""

import binascii
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pyqmail.quote import quote
from pyqmail.remote import policy, report, wire
from pyqmail.remote.connection import Connection, DiedError
from pyqmail.remote.policy import Level, Policy
from pyqmail.remote.reply import Reply, ReplyError
from pyqmail.remote.routes import Credentials
from pyqmail.remote.tls import TlsError

WINDOW = 100  # RCPTs sent before their replies are read (RFC 2920)
LAST_WORDS_SECONDS = 5.0  # for the reply of a server that stopped reading our message


class NextHost(Exception):
    """This server is of no use, another may be; ``report`` counts if it was the last."""

    def __init__(self, text: bytes) -> None:
        self.report = text
        super().__init__(text)


class NoTlsError(Exception):
    """The handshake failed; without TLS the same server may do."""


class Mail(NamedTuple):
    """What is to be sent."""

    sender: bytes
    recipients: list[bytes]
    chunks: Callable[[], Iterable[bytes]]  # the message, from its start


class Terms(NamedTuple):
    """How a server is to be spoken to."""

    helo: bytes
    domain: bytes  # whose mail it is; the relay, for mail that has a route
    host: bytes  # the server's name
    policy: Policy
    credentials: Credentials | None = None


class Session:
    """A conversation with one server.

    Everything that goes into the report but the last part is handed to ``tell``.
    """

    def __init__(self, connection: Connection, terms: Terms, tell: Callable[[bytes], None]) -> None:
        """Nothing is said yet."""
        self._connection = connection
        self._terms = terms
        self._tell = tell
        self._extensions: dict[bytes, bytes] = {}
        self._secure = False
        self._critical = False

    def deliver(self, mail: Mail) -> None:
        """Hold the conversation.

        Raises:
            Outcome: always, at its end, if nothing else is raised.
            NextHost, NoTlsError: nothing was sent of the mail.
        """
        try:
            try:
                self._greet()
                self._start_tls()
                self._authenticate()
            except DiedError as error:
                raise NextHost(self._died()) from error
            except ReplyError as error:
                raise NextHost(self._nonsense(error)) from error
            self._send(mail)
        except DiedError as error:
            raise report.Outcome(self._died()) from error
        except ReplyError as error:
            raise report.Outcome(self._nonsense(error)) from error
        finally:
            self._connection.close()

    # --- before the mail ---------------------------------------------------------

    def _greet(self) -> None:
        reply = self._connection.reply()
        if reply.code != 220:
            raise self._next_host(b" but greeting failed", reply)
        self._hello()

    def _hello(self) -> None:
        reply = self._connection.ask(b"EHLO " + self._terms.helo)
        if reply.code == 250:
            self._extensions = extensions(reply)
            return
        if reply.code >= 500:
            self._extensions = {}
            reply = self._connection.ask(b"HELO " + self._terms.helo)
        if reply.code != 250:
            raise self._next_host(b" but my name was rejected", reply)

    def _start_tls(self) -> None:
        wanted = self._terms.policy
        if wanted.level is Level.NONE:
            return
        if b"STARTTLS" not in self._extensions:
            if wanted.mandatory:
                raise self._next_host(b" but TLS is required here and not offered (#4.7.0)", None)
            return
        reply = self._connection.ask(b"STARTTLS")
        if reply.code != 220:
            if wanted.mandatory:
                raise self._next_host(b" but STARTTLS was rejected (#4.7.0)", reply)
            return
        names = policy.expected_names(wanted, self._terms.domain, self._terms.host)
        try:
            self._connection.start_tls(wanted, self._terms.host, names)
        except TlsError as error:
            if not wanted.mandatory:
                raise NoTlsError from error
            why = str(error).encode("ascii", "replace").replace(b"\n", b" ")
            raise self._next_host(b" but TLS failed: " + why + b" (#4.7.5)", None) from error
        self._secure = True
        self._hello()  # what was said before, anybody may have said

    def _authenticate(self) -> None:
        secret = self._terms.credentials
        if secret is None:
            return
        if not self._secure and self._terms.policy.level not in (Level.NONE, Level.MAY):
            raise AssertionError("a password in the clear")
        offered = self._extensions.get(b"AUTH", b"").upper().split()
        if b"PLAIN" in offered:
            token = b"\0" + secret.user + b"\0" + secret.password
            reply = self._connection.ask(b"AUTH PLAIN " + base64(token))
        elif b"LOGIN" in offered:
            reply = self._connection.ask(b"AUTH LOGIN")
            for word in (secret.user, secret.password):
                if reply.code == 334:
                    reply = self._connection.ask(base64(word))
        else:
            raise self._over(b"ZConnected to ", b" but it offers no authentication (#4.7.0)", None)
        if reply.code != 235:
            raise self._over(b"ZConnected to ", b" but authentication was rejected", reply)

    # --- the mail ----------------------------------------------------------------

    def _send(self, mail: Mail) -> None:
        facts = wire.Facts(mail.chunks())
        self._refuse_what_is_too_big(facts.size)
        commands = [self._mail_command(mail.sender, facts)]
        commands += [b"RCPT TO:<" + quote(address) + b">" for address in mail.recipients]
        accepted, to_data = self._announce([*commands, b"DATA"])
        if not accepted:
            self._withdraw(to_data)
            raise self._over(b"DGiving up on ", b"", None)
        if to_data.code >= 500:
            raise self._over(b"D", b" failed on DATA command", to_data)
        if to_data.code != 354:
            raise self._over(b"Z", b" failed on DATA command", to_data)
        self._send_message(mail)

    def _announce(self, commands: list[bytes]) -> tuple[bool, Reply]:
        """Send MAIL, RCPTs and DATA, pipelined if the server can (RFC 2920).

        Returns:
            Whether a recipient was accepted, and the reply to DATA; without
            pipelining DATA is not sent for nobody, and the reply is the last RCPT's.
        """
        window = WINDOW if b"PIPELINING" in self._extensions else 1
        accepted = False
        last = len(commands) - 1
        for start in range(0, len(commands), window):
            batch = commands[start : start + window]
            if start == last and not accepted:
                break
            self._connection.send(b"".join(command + b"\r\n" for command in batch))
            for number in range(start, start + len(batch)):
                reply = self._connection.reply()
                if number == 0:
                    self._sender_answered(reply)
                elif number < last:
                    accepted = self._recipient_answered(reply) or accepted
        return accepted, reply

    def _refuse_what_is_too_big(self, size: int) -> None:
        limit = self._extensions.get(b"SIZE", b"").strip()
        if limit.isdigit() and 0 < int(limit) < size:
            text = b" but it takes no message of more than " + limit + b" bytes (#5.3.4)"
            raise self._over(b"DConnected to ", text, None)

    def _mail_command(self, sender: bytes, facts: wire.Facts) -> bytes:
        command = b"MAIL FROM:<" + quote(sender) + b">"
        if b"SIZE" in self._extensions:
            command += b" SIZE=%d" % facts.size
        if facts.eight_bit and b"8BITMIME" in self._extensions:
            command += b" BODY=8BITMIME"
        return command

    def _sender_answered(self, reply: Reply) -> None:
        if reply.code >= 500:
            raise self._over(b"DConnected to ", b" but sender was rejected", reply)
        if reply.code >= 300:
            raise self._over(b"ZConnected to ", b" but sender was rejected", reply)

    def _recipient_answered(self, reply: Reply) -> bool:
        """Tell what became of a recipient; return whether it was accepted."""
        if reply.code < 300:
            self._tell(report.ACCEPTED)
            return True
        letter = b"h" if reply.code >= 500 else b"s"
        self._tell(report.refused(letter, self._connection.partner, reply))
        return False

    def _withdraw(self, reply: Reply) -> None:
        """End a message that no recipient is left for: DATA went out with the RCPTs."""
        if reply.code == 354:
            self._connection.send(wire.END_OF_DATA)
            self._connection.reply()

    def _send_message(self, mail: Mail) -> None:
        try:
            for block in wire.encode(mail.chunks()):
                self._connection.send(block)
            self._critical = True
            self._connection.send(wire.END_OF_DATA)
        except DiedError:
            # It may have said why it stopped reading; a refusal for good ends the retries.
            reply = self._connection.reply(LAST_WORDS_SECONDS)
            if reply.code < 400:
                raise
        else:
            reply = self._connection.reply()
        self._critical = False
        if reply.code >= 500:
            raise self._over(b"D", b" failed after I sent the message", reply)
        if reply.code >= 300:
            raise self._over(b"Z", b" failed after I sent the message", reply)
        raise self._over(b"K", b" accepted message", reply)

    # --- ends --------------------------------------------------------------------

    def _over(self, before: bytes, after: bytes, reply: Reply | None) -> report.Outcome:
        """Take leave of the server and return the end of the delivery."""
        return report.Outcome(self._farewell(before, after, reply))

    def _next_host(self, after: bytes, reply: Reply | None) -> NextHost:
        return NextHost(self._farewell(b"ZConnected to ", after, reply))

    def _farewell(self, before: bytes, after: bytes, reply: Reply | None) -> bytes:
        self._connection.quit()
        said = report.remote_said(reply)
        return before + self._connection.partner + after + b".\n" + said + b"\0"

    def _died(self) -> bytes:
        return report.died(self._connection.partner, critical=self._critical) + b"\n\0"

    def _nonsense(self, error: ReplyError) -> bytes:
        why = str(error).encode("ascii", "replace")
        return b"ZConnected to %s but it does not speak SMTP: %s. (#4.5.0)\n\0" % (
            self._connection.partner,
            why,
        )


def extensions(reply: Reply) -> dict[bytes, bytes]:
    """Return keyword -> parameters from the reply to EHLO; keywords in upper case."""
    found: dict[bytes, bytes] = {}
    for line in reply.lines[1:]:
        keyword, _, parameters = line.strip().partition(b" ")
        if keyword.upper().startswith(b"AUTH="):  # as servers said it before RFC 4954
            parameters = keyword[5:] + b" " + parameters
            keyword = b"AUTH"
        keyword = keyword.upper()
        found[keyword] = (found[keyword] + b" " if keyword in found else b"") + parameters
    return found


def base64(data: bytes) -> bytes:
    """Return data in base64, on one line."""
    return binascii.b2a_base64(data, newline=False)
