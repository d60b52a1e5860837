"""Runs programs and stops them at each system call that changes files or tells others something.

A stop is called a touch, and is numbered per program. At one of them a fault can happen:
the program is killed before or just after the call, or the call fails with an error. What
the calls do to the disk can be recorded, in the order in which they are done.
"""

import os
import re
import signal
import stat
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from lab import ptrace, syscalls
from lab.syscalls import Kind, Shape
from ucspi import chain, immortal

CHILDREN = {"qmail-lspawn": "qmail-local"}  # what a program's forked child is
MAIL = ("queue", "homes", "deliveries")  # what of the root is looked at
DESCRIPTORS = 1024
PATIENCE = 30  # seconds
ASK = 0.1  # seconds between two questions whether it is enough, while much is going on


class Touch(NamedTuple):
    """One system call that changes the mail system's files, or goes to another program."""

    program: str
    call: str
    place: str  # relative to the root, without what differs from run to run; "pipe", "socket"
    nth: int  # of the program's touches that are equal up to here, from 1


class Fault(NamedTuple):
    """What goes wrong, and where."""

    program: str
    call: str
    place: str
    nth: int  # all as in Touch
    after: bool = False  # killed when the call has been made
    error: int = 0  # not killed: the call fails
    lasting: bool = False  # and so does every later one, of all programs, that needs room


class Op(NamedTuple):
    """Something done to the disk, or said to somebody outside."""

    kind: str  # create write truncate sync syncdir link unlink rename mkdir utime send note
    path: str = ""
    other: str = ""
    inode: int = 0
    data: bytes = b""
    offset: int = 0
    owner: tuple[int, int, int] = (0, 0, 0)  # uid, gid, mode
    times: tuple[float, float] = (0.0, 0.0)
    program: str = ""


class _Entry(NamedTuple):
    """A call between its entry and its exit."""

    touch: Touch
    call: ptrace.Call
    shape: Shape
    target: str  # relative to the root
    new: bool  # it may make a file


NEEDS_ROOM = frozenset(("write", "writev", "link", "linkat", "mkdir", "rename", "renameat"))


class Tracer:
    """The traced programs of one run. One thread of one process may have one at a time."""

    def __init__(
        self, root: str, fault: Fault | None = None, *, record: bool = False, survey: bool = False
    ) -> None:
        """Watch what is below root.

        Args:
            root: a directory; only its files, pipes and sockets are looked at.
            fault: what shall go wrong.
            record: keep what is done to the disk in ``ops``.
            survey: stop at all calls, and keep in ``unknown`` those that syscalls.py lacks.
        """
        self.root = root
        self.fault = fault
        self.fired: Touch | None = None
        self.touches: list[Touch] = []
        self.ops: list[Op] = []
        self.ended: dict[int, int] = {}  # process id: exit code
        self.unknown: set[int] = set()  # calls that syscalls.py does not know
        self.programs: dict[int, str] = {}  # process id: name
        self.traced: dict[int, int] = {}  # thread id: process id
        self.last_event = time.monotonic()
        self._record = record
        self._survey = survey
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._inside: dict[int, _Entry] = {}  # between entry and exit of an effect
        self._held: list[int] = []  # threads that wait until nobody is inside
        self._starting: set[int] = set()
        self._old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})

    def close(self) -> None:
        """Kill all that still runs."""
        for pid in list(self.programs):
            if pid not in self.ended:
                os.kill(pid, signal.SIGKILL)
        self.run(lambda: all(pid in self.ended for pid in self.programs))
        signal.pthread_sigmask(signal.SIG_SETMASK, self._old_mask)

    # Starting.

    def start(
        self, name: str, main: Callable[[], int], descriptors: dict[int, int], *, watched: bool
    ) -> int:
        """Fork a program and return its process id.

        Args:
            name: what it is called in touches.
            main: what it does; returns its exit status.
            descriptors: its descriptor -> ours. It gets no others.
            watched: stop it at its touches.
        """
        gate, go = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(go)
            _be(main, descriptors, gate, self._numbers() if watched else ())
        os.close(gate)
        self.programs[pid] = name
        if watched:
            self.traced[pid] = pid
            ptrace.seize(pid)
        os.write(go, b"\n")
        os.close(go)
        return pid

    def _numbers(self) -> tuple[int, ...]:
        return tuple(range(512)) if self._survey else tuple(syscalls.CALLS)

    @property
    def kills(self) -> bool:
        """Whether the fault is a kill, and it has happened."""
        return self.fired is not None and self.fault is not None and not self.fault.error

    def running(self, pid: int) -> bool:
        """Whether a process has not ended."""
        return pid not in self.ended

    # The loop.

    def run(self, done: Callable[[], bool], tick: float = 0.01) -> None:
        """Let the programs run until done() says so; it is asked above all when nothing happens.

        Raises:
            TimeoutError: it did not for PATIENCE seconds.
        """
        asked = time.monotonic()
        until = asked + PATIENCE
        while True:
            try:
                tid, status = os.waitpid(-1, os.WNOHANG | ptrace.WALL)
            except ChildProcessError:
                tid = 0
            if tid:
                self.last_event = time.monotonic()
                self._stopped(tid, status)
                if self.last_event - asked < ASK:
                    continue
            if done():
                return
            asked = time.monotonic()
            if tid:
                continue
            if asked > until:
                raise TimeoutError("the programs did not come to the end")
            signal.sigtimedwait({signal.SIGCHLD}, tick)

    def _stopped(self, tid: int, status: int) -> None:
        if not os.WIFSTOPPED(status):
            self._gone(tid, os.waitstatus_to_exitcode(status))
            return
        try:
            self._handle(tid, os.WSTOPSIG(status), status >> 16)
        except ProcessLookupError:
            pass  # killed meanwhile; its end will be reported

    def _gone(self, tid: int, code: int) -> None:
        self.traced.pop(tid, None)
        if tid in self.programs:
            self.ended[tid] = code
        if self._inside.pop(tid, None):
            self._release()
        if tid in self._held:
            self._held.remove(tid)

    def _handle(self, tid: int, number: int, event: int) -> None:
        if tid not in self.traced:
            self._adopt(tid)
        if event == ptrace.EVENT_SECCOMP:
            self._entry(tid)
        elif event:
            ptrace.resume(tid, ptrace.CONT)
        elif number == signal.SIGTRAP | ptrace.SYSCALL_STOP:
            self._exit(tid)
        else:  # in the middle of a call it still has to stop at its end
            ptrace.resume(tid, ptrace.SYSCALL if tid in self._inside else ptrace.CONT, number)

    def _adopt(self, tid: int) -> None:
        with open(f"/proc/{tid}/status") as file:
            fields = dict(line.split(":", 1) for line in file)
        pid = int(fields["Tgid"])
        self.traced[tid] = pid
        if pid not in self.programs:
            parent = self.programs.get(int(fields["PPid"]), "?")
            self.programs[pid] = CHILDREN.get(parent, f"child of {parent}")

    # Touches.

    def _entry(self, tid: int) -> None:
        call = ptrace.call_at_entry(tid)
        shape = syscalls.CALLS.get(call.number)
        if shape is None:
            if call.number not in syscalls.HARMLESS:
                self.unknown.add(call.number)
            ptrace.resume(tid, ptrace.CONT)
            return
        if shape.kind is Kind.SLEEP:
            ptrace.skip(tid, 0)  # nobody has time here
            ptrace.resume(tid, ptrace.CONT)
            return
        if self._inside:
            self._held.append(tid)
            return
        target = self._target(tid, call, shape)
        if target is None or _only_reads(shape.name, call):
            ptrace.resume(tid, ptrace.CONT)
            return
        program = self.programs[self.traced[tid]]
        kind = program, shape.name, place(target)
        self._counts[kind] += 1
        touch = Touch(*kind, self._counts[kind])
        self.touches.append(touch)
        if self._fault_before(tid, touch):
            return
        new = "open" in shape.name and not os.path.lexists(os.path.join(self.root, target))
        self._inside[tid] = _Entry(touch, call, shape, target, new)
        ptrace.resume(tid, ptrace.SYSCALL)

    def _fires_after(self, touch: Touch) -> bool:
        fault = self.fault
        return fault is not None and fault.after and fault[:4] == touch

    def _fault_before(self, tid: int, touch: Touch) -> bool:
        fault = self.fault
        if fault is None or fault.after:
            return False
        if fault[:4] == touch:
            self.fired = touch
            if not fault.error:
                os.kill(self.traced[tid], signal.SIGKILL)
                return True
        elif not (fault.lasting and self.fired and needs_room(touch)):
            return False
        ptrace.skip(tid, -fault.error)
        ptrace.resume(tid, ptrace.CONT)
        return True

    def _exit(self, tid: int) -> None:
        entry = self._inside.pop(tid)
        result = ptrace.result_at_exit(tid)
        if self._record and result >= 0:
            self._note(tid, entry, result)
        if self._fires_after(entry.touch):
            self.fired = entry.touch
            os.kill(self.traced[tid], signal.SIGKILL)
        else:
            ptrace.resume(tid, ptrace.CONT)
        self._release()

    def _release(self) -> None:
        while self._held and not self._inside:
            tid = self._held.pop(0)
            try:
                self._entry(tid)
            except ProcessLookupError:
                pass

    def _target(self, tid: int, call: ptrace.Call, shape: Shape) -> str | None:
        if shape.descriptor is not None:
            name = _link(f"/proc/{tid}/fd/{_int(call.args[shape.descriptor])}")
            if name.startswith(("pipe:", "socket:")):
                return name.partition(":")[0]
            return self._inside_root(name.removesuffix(" (deleted)"))
        found = None
        for directory, position in shape.paths:
            path = self._path(tid, call, directory, position)
            found = self._inside_root(path) or found
        return found

    def _path(self, tid: int, call: ptrace.Call, directory: int | None, position: int) -> str:
        path = ptrace.read_string(tid, call.args[position])
        if path.startswith("/"):
            return os.path.normpath(path)
        number = syscalls.AT_FDCWD if directory is None else _int(call.args[directory])
        where = "cwd" if number == syscalls.AT_FDCWD else f"fd/{number}"
        return os.path.normpath(os.path.join(_link(f"/proc/{tid}/{where}"), path))

    def _inside_root(self, path: str) -> str | None:
        if not path.startswith(self.root + "/"):
            return None
        name = path[len(self.root) + 1 :]
        return name if name.partition("/")[0] in MAIL else None

    # The record.

    def _note(self, tid: int, entry: _Entry, result: int) -> None:
        for made in self._ops(tid, entry, result):
            self.ops.append(made._replace(program=entry.touch.program))

    def _ops(self, tid: int, entry: _Entry, result: int) -> list[Op]:
        _, call, shape, path, new = entry
        name = shape.name
        if path in ("pipe", "socket"):
            if name not in ("write", "sendto"):
                return []
            return [Op("send", path, data=ptrace.read_memory(tid, call.args[1], result))]
        if name in ("open", "openat"):
            if new:
                found = os.stat(f"/proc/{tid}/fd/{result}")
                owner = (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))
                return [Op("create", path, inode=found.st_ino, owner=owner)]
            if _int(call.args[2 if name == "openat" else 1]) & os.O_TRUNC:
                return [Op("truncate", path, inode=os.stat(f"/proc/{tid}/fd/{result}").st_ino)]
            return []
        if shape.descriptor is not None:
            return self._descriptor_ops(tid, name, path, call, shape.descriptor, result)
        places = [self._inside_root(self._path(tid, call, *place)) or "" for place in shape.paths]
        if name in ("link", "linkat"):
            inode = os.lstat(os.path.join(self.root, places[1])).st_ino
            return [Op("link", places[1], inode=inode)]
        if name in ("unlink", "unlinkat"):
            return [Op("unlink", path)]
        if name in ("rename", "renameat", "renameat2"):
            return [Op("rename", places[0], places[1])]
        if name in ("utimensat", "utime", "utimes"):
            found = os.lstat(os.path.join(self.root, path))
            return [Op("utime", path, inode=found.st_ino, times=(found.st_atime, found.st_mtime))]
        raise AssertionError(f"cannot record {name}")

    def _descriptor_ops(
        self, tid: int, name: str, path: str, call: ptrace.Call, position: int, result: int
    ) -> list[Op]:
        descriptor = _int(call.args[position])
        found = os.stat(f"/proc/{tid}/fd/{descriptor}")
        if stat.S_ISFIFO(found.st_mode) or name == "sync_file_range":
            return []
        if stat.S_ISDIR(found.st_mode):
            return [Op("syncdir", path)]
        if name in ("fsync", "fdatasync"):
            return [Op("sync", path, inode=found.st_ino)]
        if name == "ftruncate":
            return [Op("truncate", path, inode=found.st_ino, offset=_int(call.args[1]))]
        if name in ("write", "pwrite64"):
            data = ptrace.read_memory(tid, call.args[1], result)
            offset = (
                _int(call.args[3]) if name == "pwrite64" else _position(tid, descriptor) - result
            )
            if path == "deliveries":
                return [Op("note", path, data=data)]
            return [Op("write", path, inode=found.st_ino, data=data, offset=offset)]
        raise AssertionError(f"cannot record {name}")


def place(target: str) -> str:
    """Return a file's name without the numbers that differ from run to run."""
    name = re.sub(r"/[0-9]+\.[^/]*$", "/X", target)
    name = re.sub(r"/[0-9]+(?=/|$)", "/N", name).replace("/N/N", "/N%23/N")
    return re.sub("^(queue/(?:mess|info|local|remote))/N$", r"\1/N%23", name)


def on_disk(touch: Touch) -> bool:
    """Whether a touch is one of a file or a directory."""
    return touch.place not in ("pipe", "socket", "deliveries", "queue/lock/trigger")


def needs_room(touch: Touch) -> bool:
    """Whether a touch is a step that a full disk prevents."""
    if touch.call == "pwrite64":  # a mark in local/N or remote/N overwrites a byte
        return touch.place.startswith("queue/bounce/")
    return on_disk(touch) and ("open" in touch.call or touch.call in NEEDS_ROOM)


def _only_reads(name: str, call: ptrace.Call) -> bool:
    if name not in ("open", "openat"):
        return False
    flags = _int(call.args[2 if name == "openat" else 1])
    return not flags & (os.O_CREAT | os.O_TRUNC)


def _int(value: int) -> int:
    """Return an argument as the C int that it is."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _position(tid: int, descriptor: int) -> int:
    with open(f"/proc/{tid}/fdinfo/{descriptor}") as file:
        return int(file.readline().split()[1])


def _be(
    main: Callable[[], int], descriptors: dict[int, int], gate: int, numbers: tuple[int, ...]
) -> NoReturn:
    """In a forked child: become the program, as if it had been executed."""
    status = 111
    try:
        os.read(gate, 1)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        chain.place(descriptors)
        os.closerange(max(descriptors) + 1, DESCRIPTORS)
        # It would write to each object of this large process, one call each.
        immortal.open_memory = lambda: -1
        if numbers:
            ptrace.install_filter(numbers)
        status = main()
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(status & 255)
