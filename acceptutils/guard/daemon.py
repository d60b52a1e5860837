"""authguardd: one place that knows of every failed attempt at every service.

    authguardd [ -n fd ] [ -u uid -g gid ] [ -a network,... ] [ -d file ] socket events

Answers the questions of `wire` at socket, by the rules of `policy`, and writes a line for
each attempt to whoever is connected to events. All it knows is in memory and ends with it.

Started as root it makes both sockets root's own, 0600 and 0660, then becomes uid and gid
before it reads anything; started as somebody else it makes the first 0666. Either way a
peer of the first whose uid (SO_PEERCRED) is not 0 is turned away.
"""

import os
import resource
import select
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from acceptutils import identity, localsocket
from acceptutils.guard import events, wire
from acceptutils.guard.accounts import Names
from acceptutils.guard.policy import STEEP, Attempt, Policy
from acceptutils.guard.wire import Answer, Outcome, Question, WireError
from acceptutils.server.addresses import Network
from ucspi import log

USAGE = (
    "authguardd: usage: authguardd [ -n fd ] [ -u uid -g gid ] [ -a network,... ] [ -d file ] "
    "socket events"
)

CONNECTION_LIMIT = 4096
CROWD = CONNECTION_LIMIT // 2  # from so many on, every attempt waits as long as any
SPARE_DESCRIPTORS = 64
QUESTION_SECONDS = 10.0  # from connect to question
# From the question on, an attempt counts as going on. Behind a foreign checkpassword what
# became of it is only known when the whole session is over.
AWAITED_SECONDS = 60.0

EXIT_USAGE = 100
EXIT_TEMPORARY = 111


class Options(NamedTuple):
    """The command line."""

    socket: str
    events: str
    notify: int | None = None
    ids: tuple[int, int] | None = None
    allowed: tuple[Network, ...] = ()
    domains: str = ""  # path of the file that lists them


def parse_arguments(arguments: list[str]) -> Options:
    """Return the options that follow the program's name.

    Raises:
        ValueError: the command line is not one of ours.
    """
    words = list(arguments)
    given: dict[str, int] = {}
    allowed: tuple[Network, ...] = ()
    domains = ""
    while words and words[0] in ("-n", "-u", "-g", "-a", "-d"):
        option, value = words[0], words[1] if len(words) > 1 else ""
        if option == "-a":
            allowed = tuple(Network(block) for block in value.split(",") if block)
        elif option == "-d":
            domains = value
        elif option == "-n":
            given[option] = int(value)
        else:
            given[option] = identity.number(value)
        del words[:2]
    if len(words) != 2 or ("-u" in given) != ("-g" in given) or given.get("-n", 1) < 0:
        raise ValueError("wrong arguments")
    ids = (given["-u"], given["-g"]) if "-u" in given else None
    return Options(words[0], words[1], given.get("-n"), ids, allowed, domains)


def main(argv: list[str], env: dict[str, str]) -> int:
    """Serve until killed; see the module.

    Returns:
        100 misuse (also: root without -u and -g), 111 a socket cannot be made.
    """
    try:
        options = parse_arguments(argv[1:])
    except ValueError as error:
        log.event(env, f"authguardd: {error}; {USAGE}")
        return EXIT_USAGE
    if os.geteuid() == 0 and options.ids is None:
        log.event(env, "authguardd: refusing to run as root: give -u and -g")
        return EXIT_USAGE
    _raise_descriptor_limit()
    try:
        mode = 0o600 if os.geteuid() == 0 else 0o666
        questions = localsocket.listen(options.socket, socket.SOCK_SEQPACKET, mode)
        readers = localsocket.listen(options.events, socket.SOCK_STREAM, 0o660)
        if options.ids:
            identity.become(*options.ids)
    except (OSError, identity.IdentityError) as error:
        log.event(env, f"authguardd: {error}")
        return EXIT_TEMPORARY
    daemon = Daemon(questions, readers, Policy(options.allowed), Names(options.domains))
    if options.notify is not None:
        os.write(options.notify, b"\n")
        os.close(options.notify)
    daemon.serve()
    return 0


def _raise_descriptor_limit() -> None:
    """Make room for CONNECTION_LIMIT connections, as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTION_LIMIT + SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class Connection:
    """One attempt, from the broker's connect to its word on the outcome."""

    __slots__ = ("attempt", "deadline", "question", "socket")

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self.socket = connection
        self.deadline = deadline  # for the question; then for the outcome
        self.question: Question | None = None
        self.attempt: Attempt | None = None


class Daemon:
    """One loop: questions in, answers and events out."""

    def __init__(
        self,
        listener: socket.socket,
        readers: socket.socket,
        policy: Policy,
        names: Names,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listener = listener
        self._policy = policy
        self._names = names
        self._clock = clock
        self._connections: dict[int, Connection] = {}
        # Descriptors, with the earliest deadline first: for the question, for the outcome.
        self._asking: dict[int, Connection] = {}
        self._awaited: dict[int, Connection] = {}
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        self._readers_listener = readers
        self._readers = events.Readers(readers, self._poll)

    def serve(self) -> None:
        """Answer questions, for ever."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Wait for something to happen and do what is to be done then."""
        for descriptor, _ in self._poll.poll(self._patience()):
            if descriptor == self._listener.fileno():
                self._accept()
            elif descriptor == self._readers_listener.fileno():
                self._readers.accept()
            elif descriptor in self._connections:
                self._read(descriptor)
            elif descriptor in self._readers:
                self._readers.drop(descriptor)
        self._expire()

    def _patience(self) -> float | None:
        first = [found[1] for found in (_first(self._asking), _first(self._awaited)) if found]
        if not first:
            return None
        return max(0.0, min(c.deadline for c in first) - self._clock()) * 1000 + 1

    def _expire(self) -> None:
        now = self._clock()
        while (found := _first(self._asking)) and found[1].deadline <= now:
            self._close(found[0])
        while (found := _first(self._awaited)) and found[1].deadline <= now:
            self._settle(found[0])

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        uid = localsocket.peer_uid(connection)
        if uid != 0 or len(self._connections) >= CONNECTION_LIMIT:
            why = f"a process of uid {uid}" if uid else "one connection too many"
            _log(f"turned away {why}")
            connection.close()
            return
        connection.setblocking(False)
        descriptor = connection.fileno()
        made = Connection(connection, self._clock() + QUESTION_SECONDS)
        self._connections[descriptor] = self._asking[descriptor] = made
        self._poll.register(descriptor, select.POLLIN)

    def _read(self, descriptor: int) -> None:
        connection = self._connections[descriptor]
        try:
            record = connection.socket.recv(wire.QUESTION_LIMIT + 1)
            if not record:
                self._close(descriptor)
            elif connection.attempt is None:
                self._ask(descriptor, connection, wire.parse_question(record))
            else:
                self._conclude(descriptor, connection, Outcome(record))
        except BlockingIOError:
            return
        except (OSError, WireError, ValueError) as error:
            _log(f"not what a broker says: {error}")
            self._close(descriptor)

    def _ask(self, descriptor: int, connection: Connection, question: Question) -> None:
        address = question.address.decode("ascii", "replace")
        now = self._clock()
        attempt = self._policy.begin(address, self._names.canonical(question.account), now)
        connection.question, connection.attempt = question, attempt
        connection.deadline = now + AWAITED_SECONDS
        self._awaited[descriptor] = self._asking.pop(descriptor)
        if attempt.refused:
            self._readers.send(events.line(question, "refused", time.time()))
        # Above the limit attempts would not be guarded at all: they are to come slowly.
        wait = max(attempt.wait, STEEP[-1] if len(self._connections) > CROWD else 0)
        answer = Answer(attempt.refused, int(wait * 1000))
        connection.socket.send(wire.pack_answer(answer))

    def _conclude(self, descriptor: int, connection: Connection, outcome: Outcome) -> None:
        assert connection.question is not None and connection.attempt is not None
        if not connection.attempt.refused:
            word = outcome.name.lower()
            self._readers.send(events.line(connection.question, word, time.time()))
        self._close(descriptor, outcome)

    def _settle(self, descriptor: int) -> None:
        awaited = self._awaited.pop(descriptor, None)
        if awaited is not None and awaited.attempt is not None:
            self._policy.settle(awaited.attempt)

    def _close(self, descriptor: int, outcome: Outcome | None = None) -> None:
        self._settle(descriptor)
        self._asking.pop(descriptor, None)
        connection = self._connections.pop(descriptor)
        self._poll.unregister(descriptor)
        connection.socket.close()
        attempt, question = connection.attempt, connection.question
        if attempt and question and self._policy.end(attempt, outcome, self._clock()):
            address = question.address.decode("ascii", "replace")
            _log(f"{address}: too many failures: refused from now on, until half are forgotten")


def _first(connections: dict[int, Connection]) -> tuple[int, Connection] | None:
    return next(iter(connections.items()), None)


def _log(text: str) -> None:
    log.event({}, f"authguardd: {text}")
