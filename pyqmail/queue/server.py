"""qmail-queue-server: puts messages into the queue for everybody on this machine.

It does what netqmail's setuid qmail-queue does, without a setuid program: it runs as
qmailq, clients connect to its Unix socket, and the kernel says who they are. One process
serves all clients; messages that are complete at the same time wait for the disk
together (group commit), on a second thread, while others are still arriving.
"""

import getopt
import os
import resource
import selectors
import signal
import socket
import struct
import time
from collections import deque

from pyqmail.queue import durable, envelope, errors, ids, store, wire
from pyqmail.queue.allowance import Allowance
from pyqmail.queue.committer import Committer
from pyqmail.queue.received import received_line
from ucspi import control, log

# A client has a day from its first byte to its last, as with qmail-queue's timer; it must
# be less than the 36 hours after which qmail-clean takes a message for abandoned.
DEATH = 86_400  # seconds
CHECK_DEATH = 60  # seconds between looks for overdue clients
STOP_GRACE = 10  # seconds that clients have to finish after SIGTERM

ACCEPT_PAUSE = 0.01  # seconds after a connection that could not be taken

CONNECTIONS = 500  # at once; further ones wait in the listen queue
CONNECTIONS_PER_USER = 50  # at once, for users that are not the mailer's; more get status 71
DESCRIPTORS_PER_CONNECTION = 3  # socket, mess, intd
BATCH = 256  # messages that wait for the disk together

READ = 65536  # bytes of one read
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7))


class Numbers:
    """Hands out "qp" numbers to messages queued from inside long-running processes.

    Above every process id, and never the same for a restarted server: it starts at the time.
    """

    def __init__(self, seconds: float) -> None:
        """Start counting at a point in time."""
        self._next = int(seconds)

    def take(self) -> int:
        """Return the next number."""
        self._next += 1
        return self._next


class Client:
    """One connection: what has arrived, and where it is kept."""

    __slots__ = ("connection", "deadline", "envelope", "frames", "incoming", "pid", "qp", "uid")

    def __init__(self, connection: socket.socket, pid: int, uid: int, deadline: float) -> None:
        """Begin with nothing read."""
        self.connection = connection
        self.pid = pid
        self.uid = uid
        self.qp = 0
        self.deadline = deadline
        self.frames = wire.FrameReader()
        self.envelope = envelope.EnvelopeReader()
        self.incoming: store.Incoming | None = None


class Server:
    """The event loop."""

    def __init__(
        self,
        listener: socket.socket,
        users: ids.Ids,
        limits: tuple[int, int],
        allowance: Allowance,
    ) -> None:
        """Serve listener, a listening socket, in the current directory, the queue.

        Args:
            listener: clients connect here.
            users: who the mailer's users are.
            limits: connections at once, in all and per other user.
            allowance: what each other user may queue.
        """
        self._listener = listener
        self._users = users
        self._limit, self._limit_per_user = limits
        self._allowance = allowance
        # Nobody limits these but the services they are: a front end's own limit counts.
        self._unlimited = frozenset((0, *users.users))
        self._selector = selectors.DefaultSelector()
        self._clients: dict[Client, None] = {}  # oldest first
        self._per_user: dict[int, int] = {}
        self._complete: deque[Client] = deque()
        self._committing: list[Client] = []
        self._numbers = Numbers(time.time())
        self._serial = 0
        self._buffer = memoryview(bytearray(READ))
        self._stop_at: float | None = None
        self._accepting = False
        self._woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._committer = Committer(wake)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_term)
        listener.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, None)

    def _on_term(self, number: int, frame: object) -> None:
        self._stop_at = time.monotonic() + STOP_GRACE

    def run(self) -> None:
        """Serve until SIGTERM, and then until the clients there are done."""
        check_at = time.monotonic() + CHECK_DEATH
        while True:
            self._accept_or_not()
            now = time.monotonic()
            if self._stop_at is not None and (not self._clients or now >= self._stop_at):
                break
            if now >= check_at:
                self._end_overdue(now)
                check_at = now + CHECK_DEATH
            until = check_at if self._stop_at is None else self._stop_at
            for key, _ in self._selector.select(max(0.0, until - now)):
                if key.data is not None:
                    self._read(key.data)
                elif key.fd == self._woken:
                    os.read(self._woken, 4096)
                    self._finish_commits()
                else:
                    self._accept()
            self._start_commit()
        for client in list(self._clients):
            if client not in self._committing:
                self._answer(client, errors.REFUSED_FOR_NOW)

    def _accept_or_not(self) -> None:
        """Listen only while there is room: who waits, waits in the kernel."""
        wanted = self._stop_at is None and len(self._clients) < self._limit
        if wanted and not self._accepting:
            self._selector.register(self._listener, selectors.EVENT_READ, None)
        elif self._accepting and not wanted:
            self._selector.unregister(self._listener)
        self._accepting = wanted

    def _accept(self) -> None:
        try:
            connection = self._listener.accept()[0]
            credentials = connection.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
            )
        except OSError:
            time.sleep(ACCEPT_PAUSE)  # it went away, or the system is out of descriptors
            return
        pid, uid, _ = _CREDENTIALS.unpack(credentials)
        connection.setblocking(False)
        client = Client(connection, pid, uid, time.monotonic() + DEATH)
        self._clients[client] = None
        self._per_user[uid] = self._per_user.get(uid, 0) + 1
        if self._per_user[uid] > self._limit_per_user and uid not in self._unlimited:
            self._answer(client, errors.REFUSED_FOR_NOW)
            return
        self._selector.register(connection, selectors.EVENT_READ, client)
        self._read(client)  # mostly everything is there already

    def _read(self, client: Client) -> None:
        try:
            size = client.connection.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        data = bytes(self._buffer[:size])
        if not data:
            self._end(client)
            return
        status = 0
        try:
            self._store(client, *client.frames.feed(data))
        except wire.ProtocolError:
            status = errors.BUG
        except envelope.EnvelopeError as error:
            status = error.status
        except store.StoreError as error:
            status = error.status
            if status != errors.WRITE_ERROR:  # a full disk would fill the log as well
                log.event({}, f"qmail-queue-server: {error}")
        except MemoryError:
            status = errors.NO_MEMORY
        if not status and client.frames.part is wire.Part.END:
            status = self._end_of_message(client)
            if not status:
                self._selector.unregister(client.connection)
                self._complete.append(client)
                return
        if status:
            self._answer(client, status)

    def _end_of_message(self, client: Client) -> int:
        """Return why a message that has arrived to its end is not queued, or 0."""
        if not client.envelope.complete:
            return errors.READ_ERROR  # the envelope ended before its end
        if client.uid in self._unlimited:
            return 0
        recipients = client.envelope.recipients
        status = self._allowance.take(client.uid, recipients)
        if status:
            refused = f"a message to {recipients} of uid {client.uid} is more than is allowed"
            log.event({}, f"qmail-queue-server: {refused}")
        return status

    def _store(self, client: Client, message: list[bytes], addresses: list[bytes]) -> None:
        """Append what has arrived to the client's files.

        Raises:
            StoreError, EnvelopeError
        """
        if client.incoming is None:
            if client.frames.part is wire.Part.KIND:
                return
            now = time.time_ns()
            program = client.frames.kind == wire.KIND_PROGRAM and client.pid > 0
            client.qp = client.pid if program else self._numbers.take()
            self._serial += 1
            name = f"pid/{os.getpid()}.{now}.{self._serial}"
            client.incoming = store.Incoming(name, client.uid, client.qp)
            line = received_line(client.qp, client.uid, self._users, now / 1e9)
            message = [line, *message]
        if message:
            client.incoming.write_message(message)
        if addresses or client.frames.part is wire.Part.END:
            client.incoming.write_envelope([client.envelope.feed(b"".join(addresses))])

    def _start_commit(self) -> None:
        if self._committing or not self._complete:
            return
        while self._complete and len(self._committing) < BATCH:
            self._committing.append(self._complete.popleft())
        self._committer.submit([c.incoming for c in self._committing if c.incoming is not None])

    def _finish_commits(self) -> None:
        if not self._committer.results:
            return
        statuses = self._committer.results.popleft()
        clients, self._committing = self._committing, []
        if 0 in statuses:
            store.pull_trigger()
        for client, status in zip(clients, statuses, strict=True):
            number = client.incoming.number if client.incoming is not None else 0
            client.incoming = None
            self._answer(client, status, 0 if status else number)

    def _answer(self, client: Client, status: int, number: int = 0) -> None:
        if client.incoming is not None:
            client.incoming.discard()
            client.incoming = None
        try:
            client.connection.send(wire.encode_reply(status, client.qp, number))
        except OSError:
            pass  # it did not wait for the answer
        self._end(client)

    def _end(self, client: Client) -> None:
        """Forget a client; what it has not finished never was."""
        if client.incoming is not None:
            client.incoming.discard()
            client.incoming = None
        if client.connection.fileno() in self._selector.get_map():
            self._selector.unregister(client.connection)
        client.connection.close()
        del self._clients[client]
        self._per_user[client.uid] -= 1
        if not self._per_user[client.uid]:
            del self._per_user[client.uid]

    def _end_overdue(self, now: float) -> None:
        waiting = {*self._complete, *self._committing}
        for client in list(self._clients):
            if client.deadline > now:
                break
            if client not in waiting:
                self._answer(client, errors.TIMEOUT)


def listen(path: str) -> socket.socket:
    """Return a socket that listens at path, for every local user, replacing a dead one.

    Raises:
        OSError: the directory is not there or not writable.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    new = f"{path}.{os.getpid()}"
    try:
        os.unlink(new)
    except FileNotFoundError:
        pass
    listener.bind(new)
    os.chmod(new, 0o666)  # as qmail-queue, which everybody may execute
    listener.listen(1024)
    os.rename(new, path)
    return listener


def _options(arguments: list[str]) -> tuple[dict[str, int], str]:
    """Return the numbers after -n, -c and -u, and the socket's path.

    Raises:
        ValueError: wrong usage.
    """
    try:
        options, rest = getopt.getopt(arguments, "n:c:u:")
    except getopt.GetoptError as error:
        raise ValueError(error.msg) from error
    if len(rest) != 1:
        raise ValueError("one socket")
    return {name: int(value) for name, value in options}, rest[0]


def _allow_descriptors(connections: int) -> None:
    wanted = connections * DESCRIPTORS_PER_CONNECTION + 64
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-queue-server [-n NOTIFYFD] [-c CONNECTIONS] [-u PER_USER] SOCKET``.

    Started as root it becomes qmailq once it listens; as anybody else it stays that.

    Args:
        argv: NOTIFYFD gets a newline when clients may connect, and is closed (s6);
            CONNECTIONS are served at once, PER_USER of them to one user that is none of
            the mailer's.
        env: ``QMAIL_HOME``.

    Returns:
        0 after SIGTERM, 100 on wrong usage, 111 when it cannot start.
    """
    try:
        options, path = _options(argv[1:])
    except ValueError as error:
        log.event(env, f"{argv[0]}: {error}")
        log.event(env, f"usage: {argv[0]} [-n fd] [-c connections] [-u per user] socket")
        return 100
    users = ids.lookup()
    connections = options.get("-c", CONNECTIONS)
    os.umask(0o033)
    durable.start_writing(())  # load what it needs while the files are still readable
    try:
        control.enter_home(env)
        allowance = Allowance(control.read_number("sendinglimit", 0))
        listener = listen(path)
        ids.become(users.qmailq, users.group)
        os.chdir("queue")
        os.stat("todo/.")
        store.remove_lost_envelopes()
        _allow_descriptors(connections)
    except (control.ControlError, OSError, ValueError) as error:
        log.event(env, f"{argv[0]}: cannot start: {error}")
        return 111
    limits = connections, options.get("-u", CONNECTIONS_PER_USER)
    server = Server(listener, users, limits, allowance)
    if "-n" in options:
        _notify(options["-n"])
    server.run()
    return 0


def _notify(descriptor: int) -> None:
    try:
        os.write(descriptor, b"\n")
        os.close(descriptor)
    except OSError:
        pass
