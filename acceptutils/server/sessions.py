"""The connections that are being served, and the processes that serve them.

A process's end is learned from its pidfd: no signal is taken for it, and none can be lost.
The end of a connection whose process serves again is learned from the process itself.
"""

import os
import select
import signal
import time
from collections.abc import Callable

from acceptutils.server import connection
from acceptutils.server.addresses import own_key
from acceptutils.server.admission import Admission, HostKey
from acceptutils.server.handover import Connection
from acceptutils.server.options import Options
from acceptutils.server.pool import Pool, Task, record

Say = Callable[[str], None]


class ShortageError(Exception):
    """The system has no process or no descriptor left; the text says what for."""


class Sessions:
    """Counts connections, gives each a process, and notices its end."""

    def __init__(self, options: Options, events: select.epoll, say: Say) -> None:
        """Begin with none.

        Args:
            options: the command line.
            events: whose events on descriptors that `handle` knows are passed to it.
            say: takes one line for the log.
        """
        self._options = options
        self._events = events
        self._say = say
        self._admission = Admission(options.limits, own_key(options.host))
        self._connections: dict[int, Connection] = {}  # by pidfd
        self._idle: dict[int, int] = {}  # process ids of those without a connection, by pidfd
        self._pool = Pool(options.uses)
        self._pool.report_to(events)

    def refusal(self, host: HostKey | None) -> str | None:
        """Return why one more connection of host is refused, None when it is not."""
        return self._admission.refusal(host)

    @property
    def connections(self) -> list[Connection]:
        """All that are being served."""
        return list(self._connections.values())

    @property
    def due(self) -> float | None:
        """When `retire` has something to do."""
        return self._pool.due

    def retire(self, now: float) -> None:
        """Let go of processes that have waited for long."""
        self._pool.retire(now)

    def begin(self, task: Task, host: HostKey | None, make_env: connection.MakeEnvironment) -> None:
        """Have a process serve a connection: one that waits, or a new one.

        Raises:
            ShortageError: there is none to be had.
        """
        pid = self._reuse(task, host) or self._fork(task, host, make_env)
        if self._options.verbose:
            self._say(
                f"accept pid {pid} ({self._admission.total}/{self._options.limits.total})"
                f" ip={task.address} session={task.session}"
            )

    def _reuse(self, task: Task, host: HostKey | None) -> int | None:
        """Give the connection to a process that waits; None when none does."""
        descriptors = [task.connection] if task.zygote is None else [task.connection, task.zygote]
        worker = self._pool.assign(record(task.address, task.port, task.session), descriptors)
        if worker is None:
            return None
        del self._idle[worker.handle]
        self._connections[worker.handle] = (worker.pid, task.session, task.address, host)
        self._admission.enter(host)
        return worker.pid

    def _fork(self, task: Task, host: HostKey | None, make_env: connection.MakeEnvironment) -> int:
        try:
            channel = self._pool.make_channel()
            pid = os.fork()
        except OSError as error:
            raise ShortageError(f"unable to fork: {error.strerror}") from error
        if pid == 0:
            try:
                ours = channel[1] if channel is not None else None
                connection.serve(task, self._options, make_env, ours)
            finally:
                os._exit(connection.EXIT_FAILED)  # never on into the loop of the parent
        handle = self._watch((pid, task.session, task.address, host))
        if channel is not None:
            channel[1].close()
            self._pool.add(pid, handle, channel[0])
        return pid

    def adopt(self, one: Connection) -> None:
        """Take over a connection that an earlier image of this process began.

        Raises:
            ShortageError: it cannot be watched, and was ended.
        """
        self._watch(one)

    def _watch(self, one: Connection) -> int:
        """Count a connection, and have its end reported; without that it may not be."""
        pid = one[0]
        try:
            descriptor = os.pidfd_open(pid)
            self._events.register(descriptor, select.EPOLLIN)
        except OSError as error:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except PermissionError:
                pass  # without CAP_KILL it runs on, uncounted
            raise ShortageError(f"unable to watch a process: {error.strerror}") from error
        self._connections[descriptor] = one
        self._admission.enter(one[3])
        return descriptor

    def handle(self, descriptor: int) -> bool:
        """See to an event; return False when the descriptor is somebody else's."""
        if self._pool.knows(descriptor):
            self._hear(descriptor)
        elif (ended := self._connections.pop(descriptor, None)) is not None:
            code = os.waitstatus_to_exitcode(self._reap(descriptor, ended[0]))
            self._end(ended, f"status {code}" if code >= 0 else f"signal {-code}")
        elif (pid := self._idle.pop(descriptor, None)) is not None:
            self._reap(descriptor, pid)
        else:
            return False
        return True

    def _hear(self, number: int) -> None:
        """Take a process's word that its connection has ended."""
        report = self._pool.hear(number, time.monotonic())
        if report is None:
            return
        handle, status = report
        ended = self._connections.pop(handle, None)
        if ended is None:
            self._pool.leave(handle)  # it had none: it is not to be trusted with another
            return
        self._idle[handle] = ended[0]
        self._end(ended, f"status {status}")

    def _reap(self, descriptor: int, pid: int) -> int:
        """Bury the process of a pidfd; return its wait status."""
        self._pool.leave(descriptor)
        # Closing alone would not do: a process just forked may still have it open, and its
        # number would go on being reported, as somebody else's.
        self._events.unregister(descriptor)
        os.close(descriptor)
        return os.waitpid(pid, 0)[1]

    def _end(self, ended: Connection, how: str) -> None:
        pid, session, address, host = ended
        self._admission.leave(host)
        if self._options.verbose:
            self._say(f"end pid {pid} {how} ip={address} session={session}")

    def end_idle(self) -> None:
        """Keep no process for another connection, and bury those that wait for one."""
        for handle in self._pool.end():
            self._reap(handle, self._idle.pop(handle))

    def signal(self, number: int) -> None:
        """Send a signal to all that came of each connection's process."""
        for pid, *_ in self._connections.values():
            try:
                os.killpg(pid, number)
            except OSError:
                pass  # just forked, it leads no group yet; or not ours to end
