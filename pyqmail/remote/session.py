"""The SMTP conversation with one server (RFC 5321), as qmail-remote holds it."""

import binascii
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pyqmail.quote import quote
from pyqmail.remote import report, wire
from pyqmail.remote.connection import Connection, DiedError
from pyqmail.remote.policy import Level
from pyqmail.remote.reply import Reply, ReplyError
from pyqmail.remote.report import NextHost
from pyqmail.remote.routes import Credentials
from pyqmail.remote.tls import Demand, TlsError

WINDOW = 100  # RCPTs sent before their replies are read (RFC 2920)
LAST_WORDS_SECONDS = 5.0  # for the reply of a server that stopped reading our message
GOING_AWAY = 421  # may be the reply to anything (RFC 5321, 3.8)


class NoTlsError(Exception):
    """The handshake failed; without TLS the same server may do."""


class StaleError(Exception):
    """The connection had served before and is of no further use; a new one may be.

    Nothing of the mail was accepted.
    """


class Mail(NamedTuple):
    """What is to be sent."""

    sender: bytes
    recipients: list[bytes]
    chunks: Callable[[], Iterable[bytes]]  # the message, from its start


class Terms(NamedTuple):
    """How a server is to be spoken to."""

    helo: bytes
    demand: Demand
    credentials: Credentials | None = None


Command = tuple[bytes, Callable[[Reply], None]]  # and what its reply is for


class Session:
    """A conversation with one server: `open`, then `deliver` while it is `usable`."""

    def __init__(self, connection: Connection, terms: Terms) -> None:
        """Nothing is said yet."""
        self.connection = connection
        self.delivered = 0  # messages it was used for
        self.usable = False  # for another message
        self._terms = terms
        self._extensions: dict[bytes, bytes] = {}
        self._secure = False
        self._critical = False
        self._reports: list[bytes] = []

    def open(self) -> None:
        """Hold the conversation up to where mail can be sent.

        Raises:
            NextHost, NoTlsError: it does not come to that; the connection is closed.
            Outcome: the same, and another server would not do better.
        """
        try:
            self._greet()
            self._start_tls()
            self._authenticate()
        except DiedError as error:
            raise NextHost(self._died()) from error
        except ReplyError as error:
            raise NextHost(self._nonsense(error)) from error
        else:
            self.usable = True
        finally:
            if not self.usable:
                self.connection.close()

    def deliver(self, mail: Mail) -> list[bytes]:
        """Send a message and return the reports on it.

        Raises:
            StaleError: see there.
        """
        self._reports = []
        self._critical = self.usable = False
        try:
            self._send(mail)
        except report.Outcome as outcome:
            self._reports.append(outcome.report)
        except (DiedError, ReplyError) as error:
            if self.delivered and not self._critical:
                raise StaleError from error
            died = isinstance(error, DiedError)
            self._reports.append(self._died() if died else self._nonsense(error))
        finally:
            if not self.usable:
                self.connection.close()
        self.delivered += 1
        return self._reports

    def quit(self) -> None:
        """Take leave of the server."""
        self.usable = False
        self.connection.quit()

    # --- before the mail ---------------------------------------------------------

    def _greet(self) -> None:
        reply = self.connection.reply()
        if reply.code != 220:
            raise self._next_host(b" but greeting failed", reply)
        self._hello()

    def _hello(self) -> None:
        reply = self.connection.ask(b"EHLO " + self._terms.helo)
        if reply.code == 250:
            self._extensions = extensions(reply)
            return
        if reply.code >= 500:
            self._extensions = {}
            reply = self.connection.ask(b"HELO " + self._terms.helo)
        if reply.code != 250:
            raise self._next_host(b" but my name was rejected", reply)

    def _start_tls(self) -> None:
        wanted = self._terms.demand
        if wanted.level is Level.NONE:
            return
        if b"STARTTLS" not in self._extensions:
            if wanted.mandatory:
                raise self._next_host(b" but TLS is required here and not offered (#4.7.0)", None)
            return
        reply = self.connection.ask(b"STARTTLS")
        if reply.code != 220:
            if wanted.mandatory:
                raise self._next_host(b" but STARTTLS was rejected (#4.7.0)", reply)
            return
        try:
            self.connection.start_tls(wanted)
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
        if not self._secure and self._terms.demand.level not in (Level.NONE, Level.MAY):
            raise AssertionError("a password in the clear")
        offered = self._extensions.get(b"AUTH", b"").upper().split()
        if b"PLAIN" in offered:
            token = b"\0" + secret.user + b"\0" + secret.password
            reply = self.connection.ask(b"AUTH PLAIN " + base64(token))
        elif b"LOGIN" in offered:
            reply = self.connection.ask(b"AUTH LOGIN")
            for word in (secret.user, secret.password):
                if reply.code == 334:
                    reply = self.connection.ask(base64(word))
        else:
            raise self._over(b"ZConnected to ", b" but it offers no authentication (#4.7.0)", None)
        if reply.code != 235:
            raise self._over(b"ZConnected to ", b" but authentication was rejected", reply)

    # --- the mail ----------------------------------------------------------------

    def _send(self, mail: Mail) -> None:
        """Send a message.

        Raises:
            Outcome: always, at its end, if nothing else is raised.
        """
        facts = wire.Facts(mail.chunks())
        self._refuse_what_is_too_big(facts.size)
        commands: list[Command] = [(b"RSET", self._reset_answered)] if self.delivered else []
        commands.append((self._mail_command(mail.sender, facts), self._sender_answered))
        commands += [
            (b"RCPT TO:<" + quote(address) + b">", self._recipient_answered)
            for address in mail.recipients
        ]
        to_data = self._announce(commands)
        if report.ACCEPTED not in self._reports:
            self._withdraw(to_data)
            raise self._over(b"DGiving up on ", b"", None, keep=True)
        if to_data.code >= 500:
            raise self._over(b"D", b" failed on DATA command", to_data)
        if to_data.code != 354:
            raise self._over(b"Z", b" failed on DATA command", to_data)
        self._send_message(mail)

    def _announce(self, commands: list[Command]) -> Reply:
        """Send all up to DATA, pipelined if the server can (RFC 2920).

        Returns:
            The reply to DATA; without pipelining DATA is not sent for nobody, and the
            reply is the last RCPT's.
        """
        window = WINDOW if b"PIPELINING" in self._extensions else 1
        commands = [*commands, (b"DATA", lambda reply: None)]
        last = len(commands) - 1
        for start in range(0, len(commands), window):
            batch = commands[start : start + window]
            if start == last and report.ACCEPTED not in self._reports:
                break
            self.connection.send(b"".join(command + b"\r\n" for command, _ in batch))
            for _, answered in batch:
                reply = self._reply()
                answered(reply)
        return reply

    def _reply(self) -> Reply:
        """Return a reply that a new connection would have brought, too.

        Raises:
            StaleError: this one has served before, and the server wants it to end.
        """
        reply = self.connection.reply()
        if reply.code == GOING_AWAY and self.delivered:
            raise StaleError
        return reply

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

    def _reset_answered(self, reply: Reply) -> None:
        if reply.code != 250:
            raise StaleError

    def _sender_answered(self, reply: Reply) -> None:
        if reply.code >= 300 and self.delivered:
            raise StaleError  # it may have had enough of this connection, not of the sender
        if reply.code >= 500:
            raise self._over(b"DConnected to ", b" but sender was rejected", reply)
        if reply.code >= 300:
            raise self._over(b"ZConnected to ", b" but sender was rejected", reply)

    def _recipient_answered(self, reply: Reply) -> None:
        """Note what became of a recipient."""
        if reply.code < 300:
            self._reports.append(report.ACCEPTED)
            return
        letter = b"h" if reply.code >= 500 else b"s"
        self._reports.append(report.refused(letter, self.connection.partner, reply))

    def _withdraw(self, reply: Reply) -> None:
        """End a message that no recipient is left for: DATA went out with the RCPTs."""
        if reply.code == 354:
            self.connection.send(wire.END_OF_DATA)
            self.connection.reply()

    def _send_message(self, mail: Mail) -> None:
        try:
            for block in wire.encode(mail.chunks()):
                self.connection.send(block)
            self._critical = True
            self.connection.send(wire.END_OF_DATA)
        except DiedError:
            # It may have said why it stopped reading; a refusal for good ends the retries.
            reply = self.connection.reply(LAST_WORDS_SECONDS)
            if reply.code < 400:
                raise
            if reply.code == GOING_AWAY and self.delivered:
                raise StaleError from None
        else:
            reply = self._reply()
        self._critical = False
        if reply.code >= 500:
            raise self._over(b"D", b" failed after I sent the message", reply, keep=True)
        if reply.code >= 300:
            raise self._over(b"Z", b" failed after I sent the message", reply, keep=True)
        raise self._over(b"K", b" accepted message", reply, keep=True)

    # --- ends --------------------------------------------------------------------

    def _over(
        self, before: bytes, after: bytes, reply: Reply | None, *, keep: bool = False
    ) -> report.Outcome:
        """Return the end of the delivery.

        With keep, the server may take another message after it; else take leave of it.
        """
        if keep and self.connection.in_order and (reply is None or reply.code != GOING_AWAY):
            self.usable = True
        else:
            self.connection.quit()
        return report.Outcome(self._said(before, after, reply))

    def _next_host(self, after: bytes, reply: Reply | None) -> NextHost:
        self.connection.quit()
        return NextHost(self._said(b"ZConnected to ", after, reply))

    def _said(self, before: bytes, after: bytes, reply: Reply | None) -> bytes:
        said = report.remote_said(reply)
        return before + self.connection.partner + after + b".\n" + said + b"\0"

    def _died(self) -> bytes:
        return report.died(self.connection.partner, critical=self._critical) + b"\n\0"

    def _nonsense(self, error: Exception) -> bytes:
        why = str(error).encode("ascii", "replace")
        return b"ZConnected to %s but it does not speak SMTP: %s. (#4.5.0)\n\0" % (
            self.connection.partner,
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
