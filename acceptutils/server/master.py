"""The listening process: accepts, limits, forks, reaps. It never reads a client's byte.

It imports nothing that its children would pay for: a fork's cost is the memory of
its parent.
"""

import os
import select
import signal
import socket
import sys
import time
from types import FrameType
from typing import NoReturn

from acceptutils.server import connection, handover
from acceptutils.server.addresses import host_key, plain
from acceptutils.server.admission import Admission, Throttle
from acceptutils.server.connection import Client
from acceptutils.server.generations import Generations
from acceptutils.server.handover import Connection
from acceptutils.server.options import Options
from acceptutils.tls import settings as tls_settings
from ucspi import log

NAME = connection.NAME

ACCEPTS_PER_TURN = 32  # then the dead are looked after, however long the queue
PAUSE_SECONDS = 1.0  # when the system has no descriptors or processes left
KILL_SECONDS = 3.0  # between the sessions' SIGTERM and their SIGKILL

_HANDLED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

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
        self._generations = generations
        self._port = listener.getsockname()[1]
        self._admission = Admission(options.limits)
        self._connections: dict[int, Connection] = {}
        self._refusals = Throttle()
        self._shortages = Throttle()
        self._prefix = os.urandom(3).hex()
        self._served = 0
        self._resumed = False
        self._renewal_at = (
            time.monotonic() + options.renew_hours * 3600 if options.renew_hours else None
        )
        self._paused_until = 0.0
        self._terminations = 0
        self._hangup = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in _HANDLED:
            signal.signal(number, self._signalled)
        # An earlier image blocked them so that none was lost on the way.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)

    def resume(self, state: handover.State) -> None:
        """Go on where an earlier image of this process stopped."""
        self._resumed = True
        if state.zygote is not None and self._generations is not None:
            self._generations.keep(*state.zygote)
        for pid, one in state.connections.items():
            self._connections[pid] = one
            self._admission.enter(one.host)

    def run(self) -> int:
        """Serve until SIGTERM, then let the sessions finish; return the exit status."""
        if not self._resumed:
            self._announce()
        while not self._terminations:
            self._turn()
        return self._finish()

    # One turn of the loop.

    def _turn(self) -> None:
        now = time.monotonic()
        accepting = now >= self._paused_until and not (
            self._generations is not None and self._generations.is_starting_over
        )
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        if accepting:
            poller.register(self._listener, select.POLLIN)
        waiting_for = None
        if self._generations is not None:
            waiting_for = self._generations.waiting_for
            if waiting_for is not None:
                poller.register(waiting_for, select.POLLIN)
        ready = {descriptor for descriptor, _ in poller.poll(self._timeout(now, accepting))}
        if self._wake_read in ready:
            self._drain_wakeups()
            self._reap()
        if self._generations is not None:
            if waiting_for in ready and waiting_for == self._generations.waiting_for:
                self._generations.heard()
            self._generations.tick(time.monotonic())
        if self._terminations:
            return
        if self._listener.fileno() in ready:
            self._accept_some()
        if self._hangup or self._is_renewal_due():
            self._renew()

    def _timeout(self, now: float, accepting: bool) -> float | None:
        """Return the milliseconds until something is due; None: wait for events only."""
        due = []
        if not accepting and now < self._paused_until:
            due.append(self._paused_until - now)
        if self._renewal_at is not None:
            due.append(max(0.0, self._renewal_at - now))
        if self._generations is not None:
            left = self._generations.seconds_left(now)
            if left is not None:
                due.append(left)
        return min(due) * 1000 + 1 if due else None

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._terminations += 1
        elif number == signal.SIGHUP:
            self._hangup = True

    def _drain_wakeups(self) -> None:
        try:
            while len(os.read(self._wake_read, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    # Connections.

    def _accept_some(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                accepted, address = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # gone before it was accepted
            except OSError as error:
                self._pause(f"unable to accept: {error.strerror}")
                return
            self._admit(accepted, plain(address[0]), address[1])

    def _admit(self, accepted: socket.socket, address: str, port: int) -> None:
        host = None if self._is_proxy(address) else host_key(address)
        reason = self._admission.refusal(host)
        if reason is not None:
            self._refuse(accepted)
            if count := self._refusals.pass_on(time.monotonic()):
                self._say(f"refuse {count} ({reason}) ip={address}")
            return
        if self._generations is not None:
            self._generations.check()
        self._served += 1
        client = Client(accepted, address, port, f"{self._prefix}-{self._served:x}")
        try:
            pid = os.fork()
        except OSError as error:
            self._refuse(accepted)
            self._pause(f"unable to fork: {error.strerror}")
            return
        if pid == 0:
            self._become_connection(client)
        accepted.close()
        self._connections[pid] = Connection(client.session, address, host)
        self._admission.enter(host)
        if self._options.verbose:
            self._say(
                f"accept pid {pid} ({self._admission.total}/{self._options.limits.total})"
                f" ip={address} session={client.session}"
            )

    def _become_connection(self, client: Client) -> NoReturn:
        try:
            channel = None
            unwanted = [self._listener.fileno(), self._wake_read, self._wake_write]
            if self._generations is not None:
                unwanted += self._generations.descriptors
                if self._generations.current is not None:
                    channel = self._generations.current.channel
            connection.serve(client, channel, unwanted, self._base, self._options)
        finally:
            os._exit(connection.EXIT_FAILED)  # never on into the loop of the parent

    def _is_proxy(self, address: str) -> bool:
        return any(address in network for network in self._options.proxies)

    def _refuse(self, accepted: socket.socket) -> None:
        """Say the refusal, if there is one to say, and close; never wait for the client."""
        try:
            if self._options.refusal:
                accepted.send(self._options.refusal, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            pass
        accepted.close()

    def _pause(self, why: str) -> None:
        now = time.monotonic()
        self._paused_until = now + PAUSE_SECONDS
        if self._shortages.pass_on(now):
            self._say(f"{why}; pausing")

    def _reap(self) -> None:
        """Take in every child that has ended; several may share one signal."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            ended = self._connections.pop(pid, None)
            code = os.waitstatus_to_exitcode(status)
            if ended is None:
                if self._generations is not None:
                    self._generations.died(pid, code)
                continue
            self._admission.leave(ended.host)
            if self._options.verbose:
                how = f"status {code}" if code >= 0 else f"signal {-code}"
                self._say(f"end pid {pid} {how} ip={ended.address} session={ended.session}")

    def _say(self, text: str) -> None:
        log.event({}, f"{NAME}: {self._port} {text}")

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

    def _is_renewal_due(self) -> bool:
        served = self._options.renew_connections
        if served and self._served >= served:
            return True
        return self._renewal_at is not None and time.monotonic() >= self._renewal_at

    def _renew(self) -> None:
        """Execute this program anew in the same process: listener and children stay.

        A new image has a new address layout and hash seed, which all processes forked
        from one image share, and it forks a new TLS zygote.
        """
        self._hangup = False
        self._served = 0
        if self._renewal_at is not None:
            self._renewal_at = time.monotonic() + self._options.renew_hours * 3600
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        state = self._state()
        try:
            command = handover.next_image(sys.orig_argv, self._argv)
            left = handover.leave(state)
            os.execve(sys.executable, command, self._env | {handover.VARIABLE: str(left)})
        except OSError as error:
            handover.keep_private(state)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
            self._say(f"unable to renew: {error.strerror}; going on as before")

    def _state(self) -> handover.State:
        zygote = None
        if self._generations is not None and self._generations.current is not None:
            current = self._generations.current
            zygote = (current.pid, current.channel.fileno())
        return handover.State(self._listener.fileno(), zygote, self._connections)

    def _finish(self) -> int:
        """Accept no more; wait for the sessions, then end them, as gently as they allow."""
        self._listener.close()
        if self._generations is not None:
            self._generations.close()
        if self._connections:
            self._say(f"terminating, {len(self._connections)} sessions left")
        self._wait_for_sessions(self._options.grace_seconds, hasten=True)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self._connections:
                try:
                    os.killpg(pid, number)
                except OSError:
                    pass  # it has just ended; or it was just forked, and leads no group yet
            self._wait_for_sessions(KILL_SECONDS, hasten=False)
        self._say("terminated")
        return 0

    def _wait_for_sessions(self, seconds: float, hasten: bool) -> None:
        """Wait until all sessions have ended; a second SIGTERM ends the wait when hasten."""
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        deadline = time.monotonic() + seconds
        while self._connections and not (hasten and self._terminations > 1):
            left = deadline - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
                return
            self._drain_wakeups()
            self._reap()
