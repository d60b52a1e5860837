"""Child processes that run a program more than once.

Forking an interpreter and letting the child find its feet costs more than most programs
that it is forked for: nearly all of it is memory, copied page by page. A process that
serves one session after the other may therefore keep the children that run its
programs, and give them the next run. To the program there is no difference: descriptors,
arguments, environment, working directory and file mode mask are those of a fresh child.

Nothing of this happens unless `uses` is raised above 1, which only a server does that
has given up root, for children that stay the same user. Whatever is not an ordinary return of
a program (an exec, an exit, an exception, a signal) ends its child.

Parent and child are joined by a socket. To the child: one packet for each run, with the
descriptors attached. To the parent: the exit status, one byte.
"""

import _socket
import os
import select
import struct
import time
from fcntl import F_DUPFD_CLOEXEC, fcntl
from signal import ITIMER_REAL, setitimer

from ucspi import chain, log

uses = 1  # runs of one child

# Above all descriptors that a program is given by number.
LOWEST_CHANNEL = 16
PACKET_LIMIT = 65536  # bytes of arguments and environment; who has more gets a fresh child
DESCRIPTORS_LIMIT = 16

_SEND = _socket.MSG_NOSIGNAL
_HEAD = struct.Struct("=BHI")  # descriptors, arguments, file mode mask


class Child:
    """A child that runs a program now; exactly one `wait` or more tell how it ended."""

    __slots__ = ("_channel", "_name", "_status", "_uses_left", "pid")

    def __init__(self, pid: int, name: str, channel: _socket.socket | None, left: int) -> None:
        """Describe a child; made by `spawn`."""
        self.pid = pid
        self._name = name
        self._channel = channel
        self._uses_left = left
        self._status: int | None = None

    @property
    def is_for_once(self) -> bool:
        """Say whether the process is there for one run only."""
        return self._channel is None

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait for the run's end; return its exit status, negative for a signal.

        Args:
            seconds: how long at most; None for ever.

        Returns:
            None when it still runs.

        Raises:
            ChildProcessError: somebody else has reaped the process.
        """
        if self._status is None:
            until = None if seconds is None else time.monotonic() + seconds
            if self._channel is not None:
                self._hear(until)
            if self._status is None and self._channel is None:
                self._reap(until)
        return self._status

    def kill(self, number: int) -> None:
        """Send a signal to the process while the run lasts."""
        if self._status is None:
            try:
                os.kill(self.pid, number)
            except OSError:
                pass  # gone, or of another uid

    def _hear(self, until: float | None) -> None:
        channel = self._channel
        assert channel is not None
        if until is not None and not _readable(channel.fileno(), until):
            return
        try:
            word = channel.recv(1)
        except OSError:
            word = b""
        if word:
            self._status = word[0]
            _idle.setdefault(self._name, []).append((self.pid, channel, self._uses_left))
        else:
            channel.close()  # it exits, or has become a program that knows nothing of this
        self._channel = None

    def _reap(self, until: float | None) -> None:
        if until is not None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if not pid:
                try:
                    handle = os.pidfd_open(self.pid)
                except OSError:
                    self._reap_by_asking(until)
                    return
                try:
                    ended = _readable(handle, until)
                finally:
                    os.close(handle)
                if not ended:
                    return
                _, status = os.waitpid(self.pid, 0)
        else:
            _, status = os.waitpid(self.pid, 0)
        self._status = os.waitstatus_to_exitcode(status)

    def _reap_by_asking(self, until: float) -> None:
        # Kernels and sandboxes without pidfd_open.
        pause = 0.001
        while time.monotonic() < until:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
                return
            time.sleep(pause)
            pause = min(pause * 2, 0.1)


# Children that wait for their next run, by program: process id, channel, runs left.
_idle: dict[str, list[tuple[int, _socket.socket, int]]] = {}


def _forget_siblings() -> None:
    """Leave the parent's children alone, in a process that it has just forked."""
    for siblings in _idle.values():
        for _, channel, _ in siblings:
            channel.close()
    _idle.clear()


os.register_at_fork(after_in_child=_forget_siblings)


def kept() -> list[int]:
    """Return the descriptors by which this process keeps its idle children."""
    return [channel.fileno() for siblings in _idle.values() for _, channel, _ in siblings]


def spawn(
    argv: list[str],
    env: dict[str, str],
    descriptors: dict[int, int],
    *,
    close_from: int = 3,
) -> Child:
    """Run a program in a child process, an idle one of this program if there is one.

    Args:
        argv: the program's command line.
        env: its environment.
        descriptors: child's descriptor -> ours, as for `chain.spawn`. 0 and 1 are named
            always; what is not named up to 2 is the same as this process's own.
        close_from: the child has no descriptors from here on but those named.

    Raises:
        OSError: the process could not be made.
    """
    name = chain.program_name(argv[0])
    if uses < 2 or name is None:
        pid = chain.spawn(argv, env, descriptors, close_from=close_from)
        return Child(pid, "", None, 0)
    if 2 not in descriptors:
        descriptors = {**descriptors, 2: 2}
    siblings = _idle.get(name)
    while siblings:
        pid, channel, left = siblings.pop()
        if _give(channel, argv, env, descriptors):
            return Child(pid, name, channel, left - 1)
        channel.close()
        os.waitpid(pid, 0)
    return _fork(name, argv, env, descriptors, close_from)


def _fork(
    name: str, argv: list[str], env: dict[str, str], descriptors: dict[int, int], close_from: int
) -> Child:
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    ours = lifted(ours)
    pid = os.fork()
    if pid:
        theirs.close()
        return Child(pid, name, ours, uses - 1)
    status = chain.EXIT_TEMPORARY
    try:
        ours.close()
        channel = lifted(theirs)
        chain.forget_signals()
        chain.place(descriptors)
        chain.close_all_but({*range(close_from), *descriptors, channel.fileno()})
        status = _work(channel, argv, env)
    except BaseException as error:
        log.event(env, f"{argv[0]}: {type(error).__name__}: {error}")
    finally:
        os._exit(status & 255)


def _work(channel: _socket.socket, argv: list[str], env: dict[str, str]) -> int:
    """Run the program, and again when asked; return the status to exit with."""
    left = uses
    while True:
        status = chain.run(argv, env)
        left -= 1
        if not left:
            return status
        tidy()
        chain.close_all_but({0, 1, 2, channel.fileno(), *kept()})
        try:
            channel.send(bytes((status & 255,)), _SEND)
            task = _take(channel)
        except OSError:
            return status
        if task is None:
            return status
        argv, env = task


def tidy() -> None:
    """Undo what a run may have left in this process, but for descriptors above 2."""
    chain.forget_signals()
    setitimer(ITIMER_REAL, 0)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for standard in (0, 1):
        os.dup2(null, standard)
    os.close(null)


def _give(
    channel: _socket.socket, argv: list[str], env: dict[str, str], descriptors: dict[int, int]
) -> bool:
    """Send a run to an idle child; False when it cannot have it."""
    words = [*argv, *(f"{name}={value}" for name, value in env.items())]
    mask = os.umask(0o077)
    os.umask(mask)
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        packet = (
            _HEAD.pack(len(descriptors), len(argv), mask)
            + bytes(descriptors)
            + os.fsencode("\0".join(words))
        )
        if len(packet) > PACKET_LIMIT or len(descriptors) >= DESCRIPTORS_LIMIT:
            return False
        ours = struct.pack(f"{len(descriptors) + 1}i", *descriptors.values(), here)
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, ours)
        channel.sendmsg([packet], [rights], _SEND)
    except OSError:
        return False
    finally:
        os.close(here)
    return True


def _take(channel: _socket.socket) -> tuple[list[str], dict[str, str]] | None:
    """Wait for the next run and arrange its descriptors; None when there is none to come."""
    room = _socket.CMSG_SPACE(4 * DESCRIPTORS_LIMIT)
    packet, ancillary, _, _ = channel.recvmsg(PACKET_LIMIT, room, _socket.MSG_CMSG_CLOEXEC)
    if not packet:
        return None
    count, arguments, mask = _HEAD.unpack_from(packet)
    received = struct.unpack(f"{count + 1}i", ancillary[0][2])
    numbers = packet[_HEAD.size : _HEAD.size + count]
    words = os.fsdecode(packet[_HEAD.size + count :]).split("\0")
    os.fchdir(received[-1])
    os.close(received[-1])
    os.umask(mask)
    chain.place(dict(zip(numbers, received[:-1], strict=True)))
    env: dict[str, str] = {}
    for word in words[arguments:]:
        name, _, value = word.partition("=")
        env[name] = value
    return words[:arguments], env


def lifted(end: _socket.socket) -> _socket.socket:
    """Return the same socket on a descriptor that no program is given by number."""
    lifted = fcntl(end.fileno(), F_DUPFD_CLOEXEC, LOWEST_CHANNEL)
    end.close()
    return _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, lifted)


def _readable(descriptor: int, until: float) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(max(0.0, until - time.monotonic()) * 1000))
