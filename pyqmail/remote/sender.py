"""One delivery after the other: to which server, over which connection.

A connection that has delivered a message is kept, if the process is: a next message to
the same destination goes over it. Whatever goes wrong with a kept connection
is no reason to report anything; the message gets a new one.
"""

import os
import time
from collections.abc import Callable, Iterator

from pyqmail import maildir
from pyqmail.remote import addresses, demands, hosts, report, routes, settings, tcpto
from pyqmail.remote.addresses import Candidate
from pyqmail.remote.connection import Connection
from pyqmail.remote.demands import Demands
from pyqmail.remote.policy import Level
from pyqmail.remote.report import NextHost
from pyqmail.remote.resolve import Resolver, TroubleError
from pyqmail.remote.session import Mail, NoTlsError, Session, StaleError, Terms
from pyqmail.remote.settings import Settings
from pyqmail.remote.tls import Demand
from pyqmail.spawnchild import Keep

MESSAGE = 0  # the descriptor
CONNECTION_MESSAGES = 100  # over one connection; servers have such limits, too
CONNECTION_SECONDS = 300.0  # then the DNS is asked anew


class Sender(Keep):
    """Sends messages, and holds the connection to where the last one went."""

    def __init__(self, env: dict[str, str]) -> None:
        """Nothing is connected yet."""
        self._env = env
        self._session: Session | None = None
        self._settings: Settings | None = None  # of that connection
        self._opened = 0.0
        self.summary = ""  # how the last message went over the wire, for the log

    def deliver(self, words: list[bytes]) -> list[bytes]:
        """Send the message on descriptor 0. Changes to the qmail home.

        Args:
            words: host, sender, recipients.

        Returns:
            The reports on the recipients and that on the message.
        """
        self.summary = ""
        try:
            return self._deliver(words)
        except report.Outcome as outcome:
            return [outcome.report]
        except MemoryError:
            return [report.OUT_OF_MEMORY + b"\n\0"]

    def descriptors(self) -> tuple[int, ...]:
        """Return that of the connection which is held."""
        return () if self._session is None else (self._session.connection.descriptor(),)

    def leave(self) -> None:
        """End the connection."""
        if self._session is not None:
            self._session.quit()
            self._session = None

    def _deliver(self, words: list[bytes]) -> list[bytes]:
        if len(words) < 3:
            raise report.outcome(report.USAGE)
        host, sender, *recipients = words
        if any(has_control(address) for address in (sender, *recipients)):
            raise report.outcome(report.BAD_ADDRESS)
        make_seekable()
        found = settings.read(host, self._env)
        mail = Mail(sender, recipients, message)
        if self._session is not None:
            if self._fits(found):
                try:
                    return self._send(self._session, mail)
                except StaleError:
                    self._session = None
            else:
                self.leave()
        self._settings = found
        self._opened = time.monotonic()
        return self._send(self._connect(found), mail)

    def _fits(self, wanted: Settings) -> bool:
        """Tell whether the connection that is held is one for these settings."""
        assert self._session is not None
        return (
            wanted == self._settings
            and self._session.delivered < CONNECTION_MESSAGES
            and time.monotonic() - self._opened < CONNECTION_SECONDS
        )

    def _send(self, session: Session, mail: Mail) -> list[bytes]:
        reports = session.deliver(mail)
        self._session = session if session.usable else None
        connection = session.connection
        again = f", message {session.delivered} of the connection" if session.delivered > 1 else ""
        self.summary = f"{connection.security}{again} ip={connection.partner.decode('ascii')}"
        return reports

    def _connect(self, wanted: Settings) -> Session:
        """Return a conversation with the best server that is there.

        Raises:
            Outcome: there is none.
        """
        candidates, demand_of = find_servers(wanted)
        last = report.NO_CONNECTION + b"\n\0"
        for candidate in candidates:
            if tcpto.look(candidate.address, int(time.time())):
                continue
            try:
                return converse(candidate, wanted, demand_of(candidate))
            except NextHost as reason:
                last = reason.report
            except OSError:
                continue
        raise report.Outcome(last)


def find_servers(wanted: Settings) -> tuple[list[Candidate], Callable[[Candidate], Demand]]:
    """Return the servers to try, and what tells what their TLS has to be like.

    Raises:
        Outcome: there are none.
    """
    domain = wanted.domain

    def by_policy(server: Candidate) -> Demand:
        return demands.by_policy(wanted.policy, domain, server.host)

    if wanted.route is not None:
        return hosts.of_route(wanted.route), by_policy
    address = addresses.literal(domain)
    if address is not None:
        return hosts.of_literal(domain, address, wanted.mine), by_policy
    try:
        resolver = Resolver(wanted.servers)
    except TroubleError as error:
        raise report.outcome(report.DNS_TROUBLE) from error
    found = hosts.of_domain(domain, resolver, wanted.mine)
    return found, Demands(domain, wanted.policy, resolver, wanted.policies).of


def converse(candidate: Candidate, wanted: Settings, demand: Demand) -> Session:
    """Connect to an address, up to where mail can be sent.

    Raises:
        NextHost: another address may do better.
        OSError: no connection.
        Outcome: no address will do.
    """
    try:
        return open_session(candidate, wanted, demand)
    except NoTlsError:
        # Opportunistic TLS: it was worth a try, and nothing was promised.
        return open_session(candidate, wanted, Demand(Level.NONE))


def open_session(candidate: Candidate, wanted: Settings, demand: Demand) -> Session:
    """Do what converse does, once."""
    route = wanted.route
    now = int(time.time())
    try:
        connection = Connection.open(
            candidate.address,
            routes.SMTP_PORT if route is None else route.port,
            wanted.timeout_connect,
            wanted.timeout,
        )
    except OSError as error:
        tcpto.note(candidate.address, now, timed_out=isinstance(error, TimeoutError))
        raise
    tcpto.note(candidate.address, now, timed_out=False)
    credentials = None if route is None else route.credentials
    session = Session(connection, Terms(wanted.helo, demand, credentials))
    session.open()
    return session


def has_control(address: bytes) -> bool:
    """Tell whether an address has a control character: a line end would end the command."""
    return any(c < 32 or c == 127 for c in address)


def make_seekable() -> None:
    """Put a message that comes through a pipe, as it may from a person, into memory.

    Raises:
        Outcome: it cannot be read.
    """
    try:
        os.lseek(MESSAGE, 0, os.SEEK_CUR)
    except OSError:
        pass
    else:
        return
    try:
        copy = os.memfd_create("message")
        while chunk := os.read(MESSAGE, maildir.CHUNK):
            maildir.write_all(copy, chunk)
        os.dup2(copy, MESSAGE)
        os.close(copy)
    except OSError as error:
        raise report.outcome(report.UNREADABLE) from error


def message() -> Iterator[bytes]:
    """Yield the message.

    Raises:
        Outcome: it cannot be read.
    """
    try:
        yield from maildir.chunks(MESSAGE)
    except maildir.ReadError as error:
        raise report.outcome(report.UNREADABLE) from error
