"""checkpasswordd: the verifier, the one process that reads the account store.

    checkpasswordd [ -n fd ] [ -u uid -g gid ] store socket

Answers the questions of `wire` on a Unix socket. Root is who asks, since checkpassword
becomes the user; but whoever computes hashes of what strangers send need not be root, and
is not.

The socket: started as root with -u and -g, this makes it root's own, mode 0600, in a
directory that only root may write, then becomes uid and gid before it reads anything. So a
root process without CAP_DAC_OVERRIDE can connect, and nobody else. Started as somebody
else, it makes it mode 0666 in a directory that it may write. Either way a peer whose uid
(SO_PEERCRED) is not 0 is turned away.
"""

import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from acceptutils import identity, localsocket
from acceptutils.checkpassword import store, wire
from acceptutils.checkpassword.store import Account, Accounts, Signature, StoreError
from acceptutils.checkpassword.verifier import Verifier, conclude, takes_the_usual_time
from acceptutils.checkpassword.wire import Inquiry, Question, WireError
from ucspi import log

USAGE = "checkpasswordd: usage: checkpasswordd [ -n fd ] [ -u uid -g gid ] store socket"

WORKERS = 2  # hashes computed at once, each with its 19 MiB
QUEUE_LIMIT = 64  # hashes waiting or being computed: some two seconds' worth
CONNECTION_LIMIT = 256
QUESTION_SECONDS = 10.0  # from connect to question
# Where accounts have brought hashes of several costs along, a refusal comes after a
# multiple of this: else the time would tell a user who exists from one who does not.
REFUSAL_SECONDS = 0.5

EXIT_USAGE = 100
EXIT_TEMPORARY = 111


class Options(NamedTuple):
    """The command line."""

    store: str
    socket: str
    notify: int | None = None
    ids: tuple[int, int] | None = None


def parse_arguments(arguments: list[str]) -> Options:
    """Return the options that follow the program's name.

    Raises:
        ValueError: the command line is not one of ours.
    """
    words = list(arguments)
    given: dict[str, int] = {}
    while words and words[0] in ("-n", "-u", "-g"):
        option, value = words[0], words[1] if len(words) > 1 else ""
        if not (value.isascii() and value.isdigit()):
            raise ValueError(f"{option} wants a number")
        given[option] = int(value) if option == "-n" else identity.number(value)
        del words[:2]
    if len(words) != 2 or ("-u" in given) != ("-g" in given):
        raise ValueError("wrong arguments")
    ids = (given["-u"], given["-g"]) if "-u" in given else None
    return Options(words[0], words[1], given.get("-n"), ids)


def main(argv: list[str], env: dict[str, str]) -> int:
    """Serve until killed; see the module.

    Returns:
        100 misuse (also: root without -u and -g), 111 the socket cannot be made.
    """
    try:
        options = parse_arguments(argv[1:])
    except ValueError:
        log.event(env, USAGE)
        return EXIT_USAGE
    if os.geteuid() == 0 and options.ids is None:
        log.event(env, "checkpasswordd: refusing to run as root: give -u and -g")
        return EXIT_USAGE
    # First: the user that this becomes need not be able to read the library.
    verifier = Verifier()
    try:
        listener = listen(options.socket)
        if options.ids:
            identity.become(*options.ids)
    except (OSError, identity.IdentityError) as error:
        log.event(env, f"checkpasswordd: {options.socket}: {error}")
        return EXIT_TEMPORARY
    daemon = Daemon(listener, options.store, verifier)
    if options.notify is not None:
        os.write(options.notify, b"\n")
        os.close(options.notify)
    daemon.serve()
    return 0


def listen(path: str) -> socket.socket:
    """Return a listening socket at path, in place of a stale one.

    Raises:
        OSError: it cannot be made, or another process serves there.
    """
    mode = 0o600 if os.geteuid() == 0 else 0o666
    return localsocket.listen(path, socket.SOCK_SEQPACKET, mode)


class StoreReader:
    """The accounts as they are now: read again when the file has changed.

    A file that cannot be used leaves the accounts as they were, with one line that says
    so; before there was a good one, nobody can be verified.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: Signature | str | None = None
        self._accounts: Accounts | None = None
        self.uniform = True  # every hash costs the same

    def current(self) -> Accounts | None:
        """Return the accounts, None when there never was a usable store."""
        try:
            found: Signature | str = store.signature_of(os.stat(self._path))
        except OSError as error:
            found = str(error.strerror)
        if found != self._seen:
            self._seen = found
            try:
                self._accounts, self._seen = store.load_signed(self._path)
            except StoreError as error:
                kept = "no accounts" if self._accounts is None else "the former accounts stay"
                _log(f"{self._path}: {error}; {kept}")
            else:
                hashes = (account.hash for account in self._accounts.by_name.values())
                self.uniform = all(map(takes_the_usual_time, hashes))
        return self._accounts


class Connection:
    """One peer and what it is waiting for."""

    __slots__ = ("asked", "deadline", "held", "question", "socket")

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self.socket = connection
        self.deadline = deadline
        self.question: Question | None = None  # set while its hash is computed, and after
        self.asked = 0.0  # when that began
        self.held = False  # refused; told so at the deadline


class Daemon:
    """One loop for all connections; hashes are computed by two threads beside it.

    argon2 releases the interpreter while it computes. crypt(3) does not, and holds up the
    loop: such hashes are for accounts that were brought along from elsewhere.
    """

    def __init__(
        self,
        listener: socket.socket,
        store_path: str,
        verifier: Verifier,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listener = listener
        self._store = StoreReader(store_path)
        self._store.current()
        self._verifier = verifier
        self._clock = clock
        self._connections: dict[int, Connection] = {}
        self._pool = ThreadPoolExecutor(WORKERS)
        self._computing = 0
        self._finished: deque[tuple[int, Account | None, Future[bool]]] = deque()
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)

    def serve(self) -> None:
        """Answer questions, for ever."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Wait for something to happen and do what is to be done then."""
        for descriptor, _ in self._poll.poll(self._patience()):
            if descriptor == self._listener.fileno():
                self._accept()
            elif descriptor == self._wake:
                self._collect()
            elif descriptor in self._connections:
                self._read(descriptor)
        self._expire()

    def _patience(self) -> float | None:
        waiting = [c.deadline for c in self._connections.values() if c.question is None or c.held]
        return max(0.0, min(waiting) - self._clock()) * 1000 if waiting else None

    def _expire(self) -> None:
        now = self._clock()
        for descriptor, connection in list(self._connections.items()):
            if connection.deadline > now:
                continue
            if connection.held:
                self._answer(descriptor, wire.REFUSED)
            elif connection.question is None:
                self._close(descriptor)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        uid = localsocket.peer_uid(connection)
        if uid != 0:
            _log(f"turned away a process of uid {uid}")
            connection.close()
            return
        connection.setblocking(False)
        descriptor = connection.fileno()
        self._connections[descriptor] = Connection(connection, self._clock() + QUESTION_SECONDS)
        self._poll.register(descriptor, select.POLLIN)
        if len(self._connections) > CONNECTION_LIMIT:
            self._answer(descriptor, wire.TEMPORARY)

    def _read(self, descriptor: int) -> None:
        connection = self._connections[descriptor]
        try:
            record = connection.socket.recv(wire.QUESTION_LIMIT + 1)
            question = wire.parse_question(record) if record else None
        except BlockingIOError:
            return
        except (OSError, WireError) as error:
            _log(f"not a question: {error}")
            question = None
        if question is None:
            self._close(descriptor)
            return
        self._ask(descriptor, connection, question)

    def _ask(self, descriptor: int, connection: Connection, question: Question | Inquiry) -> None:
        accounts = self._store.current()
        if accounts is None:
            self._answer(descriptor, wire.TEMPORARY)
            return
        account = accounts.find(question.user)
        if isinstance(question, Inquiry) or self._verifier.remembered(account, question.password):
            self._conclude(descriptor, account, question, True)
            return
        if self._computing >= QUEUE_LIMIT:
            _log(f"{QUEUE_LIMIT} passwords are being checked; no more for now")
            self._answer(descriptor, wire.TEMPORARY)
            return
        self._computing += 1
        connection.question = question
        connection.asked = self._clock()
        self._poll.unregister(descriptor)
        future = self._pool.submit(self._verifier.verify, account, question.password)

        def done(finished: Future[bool]) -> None:  # in a worker's thread
            self._finished.append((descriptor, account, finished))
            try:
                os.write(self._waker, b"!")
            except BlockingIOError:
                pass  # full: the loop wakes up anyway

        future.add_done_callback(done)

    def _collect(self) -> None:
        os.read(self._wake, 4096)
        while self._finished:
            descriptor, account, future = self._finished.popleft()
            self._computing -= 1
            question = self._connections[descriptor].question
            assert question is not None
            try:
                right = future.result()
            except Exception as error:
                _log(f"unable to check the password of {account}: {error}")
                self._answer(descriptor, wire.TEMPORARY)
                continue
            if right and account is not None:
                self._verifier.remember(account, question.password)
            self._conclude(descriptor, account, question, right)

    def _conclude(
        self, descriptor: int, account: Account | None, question: Question | Inquiry, right: bool
    ) -> None:
        identity_found = conclude(account, question.service, right)
        if right and account is not None and identity_found is None:
            service = log.printable(question.service) or "(no service)"
            _log(f"{account.name} is {account.state}: refused for {service}")
        if identity_found is not None:
            self._answer(descriptor, wire.pack_right(identity_found))
        else:
            self._refuse(descriptor)

    def _refuse(self, descriptor: int) -> None:
        connection = self._connections[descriptor]
        if self._store.uniform or connection.question is None:
            self._answer(descriptor, wire.REFUSED)
            return
        periods = (self._clock() - connection.asked) // REFUSAL_SECONDS + 1
        connection.deadline = connection.asked + periods * REFUSAL_SECONDS
        connection.held = True

    def _answer(self, descriptor: int, record: bytes) -> None:
        try:
            self._connections[descriptor].socket.send(record)
        except OSError:
            pass  # gone without waiting
        self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        connection = self._connections.pop(descriptor)
        if connection.question is None:
            self._poll.unregister(descriptor)
        connection.socket.close()


def _log(text: str) -> None:
    log.event({}, f"checkpasswordd: {text}")
