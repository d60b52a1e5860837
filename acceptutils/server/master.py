"""The listening process: accepts, limits, forks, reaps. It never reads a client's byte.

What it executes for each connection is kept short, and free of what looks harmless in
Python: a socket object, an enumeration, an exception, a generator. After a fork parent and
child copy every page that they write to, if only a reference count, and that copying is most
of what a connection costs.
"""

import _socket
import errno
import os
import select
import signal
import socket
import sys
import time
from types import FrameType

from acceptutils.server import connection, handover
from acceptutils.server.addresses import host_key, plain
from acceptutils.server.admission import Throttle
from acceptutils.server.generations import Generations
from acceptutils.server.options import Options
from acceptutils.server.pool import Task
from acceptutils.server.sessions import Sessions, ShortageError
from acceptutils.tls import settings as tls_settings
from ucspi import log

NAME = connection.NAME

PAUSE_SECONDS = 1.0  # when the system has no descriptors or processes left
KILL_SECONDS = 3.0  # between the sessions' SIGTERM and their SIGKILL

_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SIGHUP = int(signal.SIGHUP)

_NOTHING_DUE = (None, None, None, None)

# What accept(2) reports of a connection rather than of the system.
_CONNECTION_TROUBLE = (
    *(errno.EAGAIN, errno.ECONNABORTED, errno.ECONNRESET, errno.EPROTO, errno.ENOPROTOOPT),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENONET),
    *(errno.EOPNOTSUPP, errno.EPERM),
)

# What a server in front of this one may have left, and would be untrue of our clients.
_STALE = ("TCPREMOTEHOST", "TCPREMOTEINFO", "TCPLOCALHOST", "PROXYREMOTEIP", handover.VARIABLE)


class Master:
    """The server's state and its loop."""

    def __init__(
        self,
        options: Options,
        argv: list[str],
        env: dict[str, str],
        listener: socket.socket,
        generations: Generations | None,
    ) -> None:
        """Take over signals; from here on the loop must run.

        Args:
            options: the parsed command line.
            argv: the command line itself, for the next image.
            env: the environment as it was at the start, likewise.
            listener: non-blocking, listening.
            generations: the TLS zygotes, when TLS is offered.
        """
        self._options = options
        self._argv = argv
        self._env = env
        # Without engines of our own their variables are for a ucspitlsd in the chain.
        passed_on = env if generations is None else tls_settings.without(env)
        self._base = {name: value for name, value in passed_on.items() if name not in _STALE}
        self._listener = listener
        self._listener_number = listener.fileno()
        address, self._port = listener.getsockname()[:2]
        # Known before any connection is, unless the listener takes them all.
        self._local = None if address in ("::", "0.0.0.0") else (plain(address), self._port)
        self._label = f"{NAME}: {self._port}"
        self._generations = generations
        self._refusals = Throttle()
        self._shortages = Throttle()
        self._prefix = os.urandom(3).hex()
        self._served = 0
        self._renewal_after = options.renew_connections or None  # None: never
        self._resumed = False
        self._renewal_at = (
            time.monotonic() + options.renew_hours * 3600 if options.renew_hours else None
        )
        self._paused_until: float | None = None
        self._terminations = 0
        self._hangup = False
        self._events = select.epoll()
        self._accepting = False
        self._sessions = Sessions(options, self._events, self._say)
        self._take_signals()
        if generations is not None:
            generations.report_to(self._events)

    def _take_signals(self) -> None:
        self._wake_read, wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self._events.register(self._wake_read, select.EPOLLIN)
        for number in _HANDLED:
            signal.signal(number, self._signalled)
        # An earlier image blocked them so that none was lost on the way.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        if number == _SIGHUP:
            self._hangup = True
        else:
            self._terminations += 1

    def resume(self, state: handover.State) -> None:
        """Go on where an earlier image of this process stopped."""
        self._resumed = True
        if self._generations is not None:
            self._generations.resume(state.zygote, state.zygotes)
        for one in state.connections:
            try:
                self._sessions.adopt(one)
            except ShortageError as error:
                self._pause(str(error))

    def run(self) -> int:
        """Serve until SIGTERM, then let the sessions finish; return the exit status."""
        if not self._resumed:
            self._announce()
        while not self._terminations:
            self._turn()
        return self._finish()

    # One turn of the loop.

    def _turn(self) -> None:
        """Wait for something to happen, and see to it; connections come last."""
        accept = self._paused_until is None and not (
            self._generations is not None and self._generations.is_worth_waiting_for
        )
        if accept != self._accepting:
            self._accepting = accept
            if accept:
                self._events.register(self._listener_number, select.EPOLLIN)
            else:
                self._events.unregister(self._listener_number)
        arrived = False
        for descriptor, _ in self._events.poll(self._seconds_left()):
            if descriptor == self._listener_number:
                arrived = True
            else:
                self._serve_event(descriptor)
        if arrived and not self._terminations:
            self._accept()  # one, for a second attempt would mostly end in an exception
        if self._hangup or self._served == self._renewal_after:
            self._renew()

    def _seconds_left(self) -> float:
        """Return the seconds until something is due, having done what is; -1: nothing is."""
        generations = self._generations
        due = (
            self._paused_until,
            self._renewal_at,
            self._sessions.due,
            None if generations is None else generations.due,
        )
        if due == _NOTHING_DUE:
            return -1
        now = time.monotonic()
        if self._paused_until is not None and now >= self._paused_until:
            self._paused_until = None
        elif self._renewal_at is not None and now >= self._renewal_at:
            self._hangup = True
        elif generations is not None and generations.due is not None and now >= generations.due:
            generations.tick()
        elif self._sessions.due is not None and now >= self._sessions.due:
            self._sessions.retire(now)
        else:
            return min(moment for moment in due if moment is not None) - now
        return 0

    def _serve_event(self, descriptor: int) -> None:
        if self._sessions.handle(descriptor):
            return
        if descriptor == self._wake_read:
            os.read(descriptor, 4096)  # its message has been delivered by the handler
        elif self._generations is not None:
            self._generations.handle(descriptor)

    # Connections.

    def _accept(self) -> None:
        if self._generations is not None:
            self._generations.check()
            if self._generations.is_worth_waiting_for:
                return
        try:
            # A descriptor is all that is wanted; accept() would make an object of it.
            accepted, sender = self._listener._accept()  # type: ignore[attr-defined]
        except OSError as error:
            if error.errno in _CONNECTION_TROUBLE:
                return  # that one's alone, and it is gone
            self._pause(f"unable to accept: {error.strerror}")
            return
        address = plain(sender[0])
        options = self._options
        host = None if options.proxies and self._is_proxy(address) else host_key(address)
        reason = self._sessions.refusal(host)
        if reason is not None:
            self._refuse(accepted)
            if count := self._refusals.pass_on(time.monotonic()):
                self._say(f"refuse {count} ({reason}) ip={address}")
            return
        self._served += 1
        session = f"{self._prefix}-{self._served:x}"
        task = Task(accepted, self._zygote(), address, sender[1], session)
        try:
            self._sessions.begin(task, host, self._environment)
        except ShortageError as error:
            self._refuse(accepted)
            self._pause(str(error))
        else:
            os.close(accepted)

    def _zygote(self) -> int | None:
        if self._generations is None or self._generations.current is None:
            return None
        return self._generations.current.channel.fileno()

    def _environment(self, task: Task) -> dict[str, str]:
        """Return the chain's environment, in the process of the connection."""
        local = self._local or self._local_address(task.connection)
        client = (task.address, task.port)
        return connection.environment(self._base, client, local, task.session, self._options)

    def _local_address(self, accepted: int) -> tuple[str, int]:
        probe = _socket.socket(self._listener.family, self._listener.type, 0, accepted)
        address = probe.getsockname()
        probe.detach()
        return plain(address[0]), address[1]

    def _is_proxy(self, address: str) -> bool:
        return any(address in network for network in self._options.proxies)

    def _refuse(self, accepted: int) -> None:
        """Say the refusal, if there is one to say, and close; never wait for the client."""
        try:
            if self._options.refusal:
                os.write(accepted, self._options.refusal)  # the first bytes always find room
        except OSError:
            pass
        os.close(accepted)

    def _pause(self, why: str) -> None:
        now = time.monotonic()
        self._paused_until = now + PAUSE_SECONDS
        if self._shortages.pass_on(now):
            self._say(f"{why}; pausing")

    def _say(self, text: str) -> None:
        """Log text, which is all our own making: numbers, addresses, names of errors."""
        try:
            os.write(log.STDERR, f"{self._label} {text}\n".encode())
        except OSError:
            pass

    # Start, renewal, end.

    def _announce(self) -> None:
        address = plain(self._listener.getsockname()[0])
        self._say(f"listening on {address}")
        if self._options.notify is not None:
            try:
                os.write(self._options.notify, b"\n")
                os.close(self._options.notify)
            except OSError as error:
                self._say(f"unable to notify: {error.strerror}")

    def _renew(self) -> None:
        """Execute this program anew in the same process: listener and children stay.

        A new image has a new address layout and hash seed, which all processes forked
        from one image share, and it forks a new TLS zygote.
        """
        self._hangup = False
        if self._renewal_after is not None:
            self._renewal_after = self._served + self._options.renew_connections
        if self._renewal_at is not None:
            self._renewal_at = time.monotonic() + self._options.renew_hours * 3600
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        self._sessions.end_idle()
        state = self._state()
        try:
            env = self._env | {handover.VARIABLE: str(handover.leave(state))}
            command = handover.next_image(sys.orig_argv, self._argv)
            if command is not None:
                os.execve(sys.executable, command, env)
            os.execvpe(self._argv[0], self._argv, env)
        except OSError as error:
            handover.keep_private(state)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
            self._say(f"unable to renew: {error.strerror}; going on as before")

    def _state(self) -> handover.State:
        zygote: tuple[int, int] | None = None
        zygotes: list[int] = []
        if self._generations is not None:
            zygote, zygotes = self._generations.state()
        return handover.State(self._listener_number, zygote, zygotes, self._sessions.connections)

    def _finish(self) -> int:
        """Accept no more; wait for the sessions, then end them, as gently as they allow."""
        self._listener.close()
        self._sessions.end_idle()
        if self._generations is not None:
            self._generations.close()
        if left := self._sessions.connections:
            self._say(f"terminating, {len(left)} sessions left")
        self._wait_for_sessions(self._options.grace_seconds, hasten=True)
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._sessions.signal(number)
            self._wait_for_sessions(KILL_SECONDS, hasten=False)
        self._say("terminated")
        return 0

    def _wait_for_sessions(self, seconds: float, hasten: bool) -> None:
        """Wait until all sessions have ended; a second SIGTERM ends the wait when hasten."""
        deadline = time.monotonic() + seconds
        while self._sessions.connections and not (hasten and self._terminations > 1):
            left = deadline - time.monotonic()
            if left <= 0:
                return
            for descriptor, _ in self._events.poll(left):
                self._serve_event(descriptor)
