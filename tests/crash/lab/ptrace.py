"""ptrace(2) and seccomp(2), as far as stopping a process at chosen system calls needs them.

Only the calls that a filter names stop the process, so all others run at full speed.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Collection
from typing import NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long
_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)

CONT, GETREGS, SETREGS, SYSCALL = 7, 12, 13, 24
GETEVENTMSG, SEIZE, GET_SYSCALL_INFO = 0x4201, 0x4206, 0x420E
OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x80 | 0x100000  # SYSGOOD FORK VFORK CLONE SECCOMP EXITKILL
EVENT_FORK, EVENT_VFORK, EVENT_CLONE, EVENT_SECCOMP, EVENT_STOP = 1, 2, 3, 7, 128
SYSCALL_STOP = 0x80  # beside SIGTRAP
WALL = 0x40000000  # waitpid(2): threads, too

_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
_AUDIT_ARCH_X86_64 = 0xC000003E
_ALLOW, _TRACE = 0x7FFF0000, 0x7FF00000
_LOAD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_OPENAT = 257
_FLAGS_AT = 32  # of openat's third argument in struct seccomp_data

_INFO = struct.Struct("=B3xIQQ7Q")  # struct ptrace_syscall_info at entry: op arch ip sp nr args
_INFO_EXIT = struct.Struct("=B3xIQQqB")
_REGISTERS = struct.Struct("=27Q")  # struct user_regs_struct of x86-64
_RAX, _ORIG_RAX = 10, 15


class Call(NamedTuple):
    """A system call at its entry."""

    number: int
    args: tuple[int, ...]


def supported() -> bool:
    """Whether this machine can do it: x86-64, and nobody forbids ptrace or filters."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(write)
        os.read(read, 1)
        try:
            install_filter((39,))
        except OSError:
            os._exit(1)
        os._exit(0)
    os.close(read)
    try:
        seize(pid)
        works = True
    except OSError:
        works = False
    os.close(write)
    while True:
        _, status = os.waitpid(pid, WALL)
        if not os.WIFSTOPPED(status):
            return works and status == 0
        resume(pid, CONT)


def install_filter(numbers: Collection[int]) -> None:
    """Have this process, and all it forks, stop for its tracer at these system calls.

    At openat only if it may make or empty a file: there are very many others.

    Raises:
        OSError: the kernel does not allow it.
    """
    steps = [(_LOAD, 0, 0, 4), (_JUMP_EQUAL, 1, 0, _AUDIT_ARCH_X86_64), (_RETURN, 0, 0, _ALLOW)]
    steps.append((_LOAD, 0, 0, 0))
    if _OPENAT in numbers:
        steps += [(_JUMP_EQUAL, 0, 4, _OPENAT), (_LOAD, 0, 0, _FLAGS_AT)]
        steps += [(_JUMP_SET, 0, 1, os.O_CREAT | os.O_TRUNC), (_RETURN, 0, 0, _TRACE)]
        steps.append((_RETURN, 0, 0, _ALLOW))
    for number in numbers:
        steps += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _TRACE)]
    steps.append((_RETURN, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("@HP", len(steps), ctypes.addressof(code))
    held = ctypes.create_string_buffer(program)
    if os.geteuid():
        _prctl(_NO_NEW_PRIVS, 1)
    _prctl(_SET_SECCOMP, _FILTER, ctypes.addressof(held))


def _prctl(option: int, *args: int) -> None:
    if _libc.prctl(option, *args, *(0,) * (4 - len(args))):
        raise OSError(ctypes.get_errno(), "prctl")


def _ptrace(request: int, pid: int, address: int, data: object) -> int:
    result: int = _libc.ptrace(request, pid, address, data)
    if result < 0:
        number = ctypes.get_errno()
        if number == errno.ESRCH:
            raise ProcessLookupError(number, "ptrace")
        raise OSError(number, "ptrace")
    return result


def seize(pid: int) -> None:
    """Become the tracer of a process that is running."""
    _ptrace(SEIZE, pid, 0, OPTIONS)


def resume(pid: int, request: int, signal: int = 0) -> None:
    """Let a stopped thread go on: CONT, or SYSCALL to stop at the end of this call."""
    _ptrace(request, pid, 0, signal)


def event_message(pid: int) -> int:
    """Return what a fork or clone event is about: the new thread's id."""
    value = ctypes.c_ulong()
    _ptrace(GETEVENTMSG, pid, 0, ctypes.addressof(value))
    return value.value


def call_at_entry(pid: int) -> Call:
    """Return the system call that a thread is about to make."""
    buffer = ctypes.create_string_buffer(_INFO.size)
    _ptrace(GET_SYSCALL_INFO, pid, len(buffer), ctypes.addressof(buffer))
    fields = _INFO.unpack(buffer.raw[: _INFO.size])
    return Call(fields[4], fields[5:11])


def result_at_exit(pid: int) -> int:
    """Return what the system call has returned; negative: minus the error's number."""
    buffer = ctypes.create_string_buffer(_INFO.size)
    _ptrace(GET_SYSCALL_INFO, pid, len(buffer), ctypes.addressof(buffer))
    result: int = _INFO_EXIT.unpack(buffer.raw[: _INFO_EXIT.size])[4]
    return result


def skip(pid: int, result: int) -> None:
    """At the entry of a system call: have it not made, and return result."""
    buffer = ctypes.create_string_buffer(_REGISTERS.size)
    _ptrace(GETREGS, pid, 0, ctypes.addressof(buffer))
    registers = list(_REGISTERS.unpack(buffer.raw[: _REGISTERS.size]))
    registers[_ORIG_RAX] = (1 << 64) - 1
    registers[_RAX] = result % (1 << 64)
    changed = ctypes.create_string_buffer(_REGISTERS.pack(*registers), _REGISTERS.size)
    _ptrace(SETREGS, pid, 0, ctypes.addressof(changed))


def read_memory(pid: int, address: int, size: int) -> bytes:
    """Return bytes of a stopped process."""
    descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        return os.pread(descriptor, size, address)
    finally:
        os.close(descriptor)


def read_string(pid: int, address: int, limit: int = 4096) -> str:
    """Return the NUL-terminated string at an address."""
    descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        data = b""
        while b"\0" not in data and len(data) < limit:
            # Up to the end of a page: the next one may not be mapped.
            at = address + len(data)
            data += os.pread(descriptor, 4096 - at % 4096, at)
        return os.fsdecode(data.partition(b"\0")[0])
    finally:
        os.close(descriptor)
