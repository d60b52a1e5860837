"""The system calls that can change a file or tell another program something (x86-64)."""

from enum import Enum, auto
from typing import NamedTuple

AT_FDCWD = -100


class Kind(Enum):
    """What a call does to the world."""

    EFFECT = auto()  # it changes a file or a directory, or tells another program something
    SLEEP = auto()


class Shape(NamedTuple):
    """Where in the arguments of a call the files are."""

    name: str
    kind: Kind
    descriptor: int | None = None  # which argument
    paths: tuple[tuple[int | None, int], ...] = ()  # (directory's descriptor, path)


_FD, _PATH = (0, ()), (None, ((None, 0),))
_TWO_PATHS = ((None, 0), (None, 1))
_AT = ((0, 1),)
_TWO_AT = ((0, 1), (2, 3))

CALLS: dict[int, Shape] = {
    1: Shape("write", Kind.EFFECT, *_FD),
    2: Shape("open", Kind.EFFECT, *_PATH),
    18: Shape("pwrite64", Kind.EFFECT, *_FD),
    20: Shape("writev", Kind.EFFECT, *_FD),
    35: Shape("nanosleep", Kind.SLEEP),
    40: Shape("sendfile", Kind.EFFECT, *_FD),
    44: Shape("sendto", Kind.EFFECT, *_FD),
    46: Shape("sendmsg", Kind.EFFECT, *_FD),
    74: Shape("fsync", Kind.EFFECT, *_FD),
    75: Shape("fdatasync", Kind.EFFECT, *_FD),
    76: Shape("truncate", Kind.EFFECT, *_PATH),
    77: Shape("ftruncate", Kind.EFFECT, *_FD),
    82: Shape("rename", Kind.EFFECT, None, _TWO_PATHS),
    83: Shape("mkdir", Kind.EFFECT, *_PATH),
    84: Shape("rmdir", Kind.EFFECT, *_PATH),
    85: Shape("creat", Kind.EFFECT, *_PATH),
    86: Shape("link", Kind.EFFECT, None, _TWO_PATHS),
    87: Shape("unlink", Kind.EFFECT, *_PATH),
    88: Shape("symlink", Kind.EFFECT, None, ((None, 1),)),
    90: Shape("chmod", Kind.EFFECT, *_PATH),
    91: Shape("fchmod", Kind.EFFECT, *_FD),
    92: Shape("chown", Kind.EFFECT, *_PATH),
    93: Shape("fchown", Kind.EFFECT, *_FD),
    94: Shape("lchown", Kind.EFFECT, *_PATH),
    132: Shape("utime", Kind.EFFECT, *_PATH),
    133: Shape("mknod", Kind.EFFECT, *_PATH),
    230: Shape("clock_nanosleep", Kind.SLEEP),
    235: Shape("utimes", Kind.EFFECT, *_PATH),
    257: Shape("openat", Kind.EFFECT, None, _AT),
    258: Shape("mkdirat", Kind.EFFECT, None, _AT),
    259: Shape("mknodat", Kind.EFFECT, None, _AT),
    260: Shape("fchownat", Kind.EFFECT, None, _AT),
    261: Shape("futimesat", Kind.EFFECT, None, _AT),
    263: Shape("unlinkat", Kind.EFFECT, None, _AT),
    264: Shape("renameat", Kind.EFFECT, None, _TWO_AT),
    265: Shape("linkat", Kind.EFFECT, None, _TWO_AT),
    266: Shape("symlinkat", Kind.EFFECT, None, ((1, 2),)),
    268: Shape("fchmodat", Kind.EFFECT, None, _AT),
    277: Shape("sync_file_range", Kind.EFFECT, *_FD),
    280: Shape("utimensat", Kind.EFFECT, None, _AT),
    285: Shape("fallocate", Kind.EFFECT, *_FD),
    296: Shape("pwritev", Kind.EFFECT, *_FD),
    316: Shape("renameat2", Kind.EFFECT, None, _TWO_AT),
    326: Shape("copy_file_range", Kind.EFFECT, 2),
    437: Shape("openat2", Kind.EFFECT, None, _AT),
}

# What else the programs may call: it changes no file and tells nobody anything. A program
# killed there leaves what it leaves when it is killed before its next call of the others.
_HARMLESS = """
read 0  close 3  stat 4  fstat 5  lstat 6  poll 7  lseek 8  mmap 9  mprotect 10  munmap 11
brk 12  rt_sigaction 13  rt_sigprocmask 14  rt_sigreturn 15  ioctl 16  pread64 17  readv 19
access 21  pipe 22  select 23  sched_yield 24  mremap 25  madvise 28  dup 32  dup2 33
alarm 37  setitimer 38  getpid 39  socket 41  connect 42  accept 43  recvfrom 45  recvmsg 47
shutdown 48  bind 49  listen 50  getsockname 51  getpeername 52  socketpair 53  setsockopt 54
getsockopt 55  clone 56  fork 57  vfork 58  exit 60  wait4 61  kill 62  uname 63  fcntl 72
flock 73  getdents 78  getcwd 79  chdir 80  readlink 89  umask 95  gettimeofday 96
getrlimit 97  sysinfo 99  getuid 102  getgid 104  setuid 105  setgid 106  geteuid 107
getegid 108  getppid 110  getgroups 115  setgroups 116  setresuid 117  getresuid 118
setresgid 119  getresgid 120  sigaltstack 131  statfs 137  prctl 157  arch_prctl 158
setrlimit 160  gettid 186  futex 202  epoll_create 213  getdents64 217  set_tid_address 218
clock_gettime 228  clock_getres 229  exit_group 231  epoll_wait 232  epoll_ctl 233  tgkill 234
newfstatat 262  readlinkat 267  faccessat 269  pselect6 270  ppoll 271  set_robust_list 273
epoll_pwait 281  accept4 288  epoll_create1 291  dup3 292  pipe2 293  preadv 295
prlimit64 302  seccomp 317  getrandom 318  statx 332  rseq 334  clone3 435  close_range 436
faccessat2 439  epoll_pwait2 441
"""
HARMLESS = frozenset(int(word) for word in _HARMLESS.split() if word.isdigit())
