"""qmail-remote: send one message to one host over SMTP.

    qmail-remote host sender recip [ recip ... ]

The message is on descriptor 0; the reports go to descriptor 1.
See qmail-remote(8).
"""

import os
import random
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pyqmail import maildir
from pyqmail.remote import addresses, policy, report, resolve, routes, tcpto
from pyqmail.remote.addresses import Candidate, IPAddress
from pyqmail.remote.connection import Connection
from pyqmail.remote.policy import Level, Policy
from pyqmail.remote.routes import Credentials, Route
from pyqmail.remote.session import Mail, NextHost, NoTlsError, Session, Terms
from pyqmail.smtp.localaddress import is_local
from ucspi import control

MESSAGE = 0  # the descriptor
REPORTS = 1

TIMEOUT_CONNECT = 60  # seconds; control/timeoutconnect
TIMEOUT = 1200  # seconds; control/timeoutremote
CANDIDATE_LIMIT = 30  # addresses that are tried; a domain may list thousands

Tell = Callable[[bytes], None]  # takes the reports on recipients


class Settings(NamedTuple):
    """What the control files say for one domain."""

    helo: bytes
    timeout_connect: int
    timeout: int
    route: Route | None
    domain: bytes  # the recipient's, or the relay
    policy: Policy
    mine: frozenset[IPAddress]  # more addresses of this host, as others see it


def main(argv: list[str], env: dict[str, str]) -> int:
    """Send the message; print the reports. Changes to the qmail home.

    Returns:
        0, always: what became of the message is in the reports.
    """
    reports: list[bytes] = []
    try:
        deliver([os.fsencode(word) for word in argv[1:]], env, reports.append)
    except report.Outcome as outcome:
        reports.append(outcome.report)
    except MemoryError:
        reports.append(report.OUT_OF_MEMORY + b"\n\0")
    try:
        maildir.write_all(REPORTS, b"".join(reports))
    except OSError:
        pass  # qmail-rspawn has gone: the message will be tried again
    return 0


def deliver(words: list[bytes], env: dict[str, str], tell: Tell) -> None:
    """Send the message to the recipients.

    Args:
        words: the program's arguments.
        env: its environment.
        tell: takes the reports on the recipients.

    Raises:
        Outcome: always; with the report on the message.
    """
    if len(words) < 3:
        raise report.outcome(report.USAGE)
    host, sender, *recipients = words
    if any(has_control(address) for address in (sender, *recipients)):
        raise report.outcome(report.BAD_ADDRESS)
    make_seekable()
    settings = read_settings(host, env)
    candidates = find_candidates(host, settings)
    mail = Mail(sender, recipients, message)
    last = report.NO_CONNECTION + b"\n\0"
    for candidate in candidates:
        if tcpto.look(candidate.address, int(time.time())):
            continue
        try:
            converse(candidate, settings, mail, tell)
        except NextHost as reason:
            last = reason.report
        except OSError:
            continue
    raise report.Outcome(last)


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


def read_settings(host: bytes, env: dict[str, str]) -> Settings:
    """Read the control files.

    Raises:
        Outcome: one cannot be read or makes no sense.
    """
    try:
        control.enter_home(env)
    except control.ControlError as error:
        raise report.outcome(report.NO_HOME) from error
    try:
        helo = control.read_line("helohost", or_me=True)
        if not helo:
            raise control.ControlError("neither control/helohost nor control/me exists")
        route = routes.find(control.read_lines("smtproutes") or [], host)
        if route is not None and route.credentials is not None:
            route = route._replace(credentials=with_password(route.credentials))
        domain = host if route is None else route.relay
        secret = route is not None and route.credentials is not None
        lines = control.read_lines("tlsdestinations") or []
        return Settings(
            helo,
            max(1, control.read_number("timeoutconnect", TIMEOUT_CONNECT)),
            max(1, control.read_number("timeoutremote", TIMEOUT)),
            route,
            domain,
            policy.find(lines, domain, secret=secret),
            more_of_mine(control.read_lines("moreipme") or []),
        )
    except (control.ControlError, routes.RouteError, policy.PolicyError) as error:
        raise report.outcome(report.NO_CONTROLS) from error


def with_password(credentials: Credentials) -> Credentials:
    """Return the credentials with the password itself if they name a file.

    Raises:
        ControlError: it cannot be read.
    """
    path = credentials.password_file
    if path is None:
        return credentials
    try:
        with open(path, "rb") as file:
            return Credentials(credentials.user, control.parse_line(file.read()))
    except OSError as error:
        raise control.ControlError(f"unable to read {path}: {error.strerror}") from error


def more_of_mine(lines: list[bytes]) -> frozenset[IPAddress]:
    """Return the addresses in control/moreipme; lines that are none are passed over."""
    found = (addresses.literal(line) for line in lines)
    return frozenset(address for address in found if address is not None)


def find_candidates(host: bytes, settings: Settings) -> list[Candidate]:
    """Return the addresses to try, the best first.

    Raises:
        Outcome: there are none, or the mail would come back here.
    """
    route = settings.route
    address = addresses.literal(host if route is None else route.relay)
    if route is not None:
        try:
            found = [address] if address else resolve.relay_addresses(route.relay)
        except resolve.TroubleError as error:
            raise report.outcome(report.DNS_TROUBLE) from error
        return [Candidate(0, route.relay, address) for address in found]
    if address is not None:
        candidates = [Candidate(0, host, address)]
    else:
        try:
            candidates = look_up(host, resolve.Resolver())
        except resolve.NoSuchDomainError as error:
            raise report.outcome(report.no_host(host)) from error
        except resolve.TroubleError as error:
            raise report.outcome(report.DNS_TROUBLE) from error

    def is_mine(address: IPAddress) -> bool:
        return address in settings.mine or is_local(str(address).encode("ascii"))

    usable = addresses.usable(candidates, is_mine)
    if not usable:
        raise report.outcome(report.LOOPING)
    return usable[:CANDIDATE_LIMIT]


def look_up(domain: bytes, resolver: resolve.Resolver) -> list[Candidate]:
    """Return the addresses of a domain's mail exchangers, or its own, the best first.

    Raises:
        Outcome: it takes no mail, or has no address.
        NoSuchDomainError, TroubleError: of the domain itself.
    """
    exchangers = resolver.exchangers(domain)
    if addresses.is_null_mx(exchangers):
        raise report.outcome(report.NULL_MX)
    if not exchangers:
        exchangers = [addresses.Exchanger(0, domain)]
    random.shuffle(exchangers)
    exchangers.sort(key=lambda exchanger: exchanger.preference)
    found: list[Candidate] = []
    trouble = None
    for preference, host in exchangers[:CANDIDATE_LIMIT]:
        try:
            found += [Candidate(preference, host, a) for a in resolver.addresses(host)]
        except resolve.NoSuchDomainError:
            continue
        except resolve.TroubleError as error:
            trouble = error
    if not found:
        raise trouble or report.outcome(report.NO_EXCHANGER)
    return found


def converse(candidate: Candidate, settings: Settings, mail: Mail, tell: Tell) -> None:
    """Connect to an address and deliver there.

    Raises:
        Outcome: the delivery is over.
        NextHost: another address may do better.
        OSError: no connection.
    """
    try:
        hold_session(candidate, settings, settings.policy, mail, tell)
    except NoTlsError:
        # Opportunistic TLS: it was worth a try, and nothing was promised.
        hold_session(candidate, settings, Policy(Level.NONE), mail, tell)


def hold_session(
    candidate: Candidate, settings: Settings, wanted: Policy, mail: Mail, tell: Tell
) -> None:
    """Do what converse does, once, under a given policy."""
    route = settings.route
    now = int(time.time())
    try:
        connection = Connection.open(
            candidate.address,
            routes.SMTP_PORT if route is None else route.port,
            settings.timeout_connect,
            settings.timeout,
        )
    except OSError as error:
        tcpto.note(candidate.address, now, timed_out=isinstance(error, TimeoutError))
        raise
    tcpto.note(candidate.address, now, timed_out=False)
    credentials = None if route is None else route.credentials
    terms = Terms(settings.helo, settings.domain, candidate.host, wanted, credentials)
    Session(connection, terms, tell).deliver(mail)
