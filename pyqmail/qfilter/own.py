"""A user's own filters: ``~/.ofmipd/filters``, for the mail that the user submits.

A session that authup has authenticated runs as its user, and so may a program of the
user's. The list has the form of control/ofmipfilters; its programs run in the home, before
the filters of the system, within limits, and cannot make the mail somebody else's.
"""

import os
import resource
import select
import signal
import stat
from typing import NamedTuple, NoReturn

from pyqmail.header.addresslist import ListError
from pyqmail.header.fields import SPEAKERS, Field, HeaderReader
from ucspi import chain, control, log

FILTERS = ".ofmipd/filters"
LIST_LIMIT = 65536  # bytes
WRITABLE = 0o022  # by group or others: somebody else may say what runs as this user

SECONDS = 60  # for one filter
HEADER_LIMIT = 2 << 20  # bytes; ofmipd takes 1 MiB, and a filter may have added some

MIB = 1 << 20
# What one filter may use. Processes are counted over all sessions of the user.
LIMITS = (
    (resource.RLIMIT_CPU, SECONDS),
    (resource.RLIMIT_DATA, 512 * MIB),
    (resource.RLIMIT_FSIZE, 256 * MIB),
    (resource.RLIMIT_NOFILE, 256),
    (resource.RLIMIT_NPROC, 512),
    (resource.RLIMIT_CORE, 0),
)
NOT_YOURS = b"Dyour filters made this mail somebody else's (#5.7.1)"


class Refused(Exception):
    """The message is not queued; ``text`` says why, with netqmail's D or Z in front."""

    def __init__(self, text: bytes) -> None:
        """Name the text for the client."""
        super().__init__(text)
        self.text = text


class Filters(NamedTuple):
    """The command lines of a user, and where they run."""

    commands: list[list[str]]
    home: str


def find(env: dict[str, str]) -> Filters | None:
    """Return the filters of the user whose session this is; None where there are none.

    That is a session of authup's (``AUTHUP_USER``) as somebody who is not root and has
    a ``HOME``.

    Raises:
        Refused: the list is not one that may be believed, or cannot be read.
    """
    home = env.get("HOME", "")
    if "AUTHUP_USER" not in env or not home.startswith("/") or os.geteuid() == 0:
        return None
    try:
        descriptor = os.open(
            os.path.join(home, FILTERS), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(error) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refused(b"Zyour .ofmipd/filters is not a file (#4.7.0)")
        # Who may rename the list, or its directory, may also replace it.
        _own(os.fstat(descriptor), b".ofmipd/filters")
        _own(os.stat(os.path.join(home, os.path.dirname(FILTERS))), b".ofmipd")
        _own(os.stat(home), b"home")
        content = os.read(descriptor, LIST_LIMIT + 1)
    except OSError as error:
        raise _unreadable(error) from error
    finally:
        os.close(descriptor)
    if len(content) > LIST_LIMIT:
        raise Refused(b"Zyour .ofmipd/filters is too long (#4.3.0)")
    lines = [os.fsdecode(line).split() for line in control.parse_lines(content)]
    commands = [words for words in lines if words]
    return Filters(commands, home) if commands else None


def _own(status: os.stat_result, name: bytes) -> None:
    if status.st_uid != os.geteuid():
        raise Refused(b"Zyour %b is not yours (#4.7.0)" % name)
    if status.st_mode & WRITABLE:
        raise Refused(b"Zyour %b is writable by others (#4.7.0)" % name)


def _unreadable(error: OSError) -> Refused:
    reason = os.fsencode(error.strerror or "error")
    return Refused(b"Zyour .ofmipd/filters cannot be read: %b (#4.3.0)" % reason)


def run(command: list[str], env: dict[str, str], descriptors: dict[int, int], home: str) -> int:
    """Run one filter of the user's; return its exit status, negative for a signal.

    It has a process group of its own, of which nothing is left afterwards.

    Raises:
        Refused: it took too long.
        OSError: the process could not be made.
    """
    pid = os.fork()
    if not pid:
        _become(command, env, descriptors, home)
    handle = os.pidfd_open(pid)
    try:
        poller = select.poll()
        poller.register(handle, select.POLLIN)
        late = not poller.poll(SECONDS * 1000)
        _end(pid)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(handle)
    if late:
        name = os.fsencode(log.printable(command[0]))
        raise Refused(b"Zyour filter %b took more than %d seconds (#4.3.0)" % (name, SECONDS))
    return status


def _become(
    command: list[str], env: dict[str, str], descriptors: dict[int, int], home: str
) -> NoReturn:
    """Run the filter in this process, which was just forked, and end it."""
    status = chain.EXIT_TEMPORARY
    try:
        chain.forget_signals()
        os.setsid()
        chain.place(descriptors)
        chain.close_all_but({0, 1, 2, *descriptors})
        os.chdir(home)
        for limit, value in LIMITS:
            _limit(limit, value)
        status = chain.run(command, env)
    except BaseException as error:
        log.event(env, f"{command[0]}: {type(error).__name__}: {error}")
    finally:
        os._exit(status & 255)


def _limit(limit: int, value: int) -> None:
    """Lower a limit, for good; one that is lower already stays."""
    for present in resource.getrlimit(limit):
        if present != resource.RLIM_INFINITY:
            value = min(value, present)
    resource.setrlimit(limit, (value, value))


def _end(pid: int) -> None:
    """Kill a filter, and what it has left running; it must not have been reaped yet."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except OSError:
            pass  # it had no time to make the group; or nobody is left


def refusal(name: str, status: int, said: bytes) -> bytes:
    """Return what the client hears of a filter that exited with status.

    Args:
        name: of the filter.
        status: its exit status, not 0; negative for a signal.
        said: what it wrote to descriptor 2.
    """
    shown = os.fsencode(log.printable(name))
    if status in (chain.EXIT_NOT_FOUND, chain.EXIT_NOT_EXECUTABLE):
        return b"Zyour filter %b could not be run (#4.3.0)" % shown
    verdict = b"D" if status == 100 or 11 <= status <= 40 else b"Z"
    line = said.strip().split(b"\n", 1)[0].strip()
    if line:
        return verdict + line
    if status < 0:
        return b"Zyour filter %b died of signal %d (#4.3.0)" % (shown, -status)
    if verdict == b"D":
        return b"Dyour filter %b refused the message (#5.7.1)" % shown
    return b"Zyour filter %b failed, status %d (#4.3.0)" % (shown, status)


def check_sender(before: bytes, after: bytes, env: dict[str, str]) -> None:
    """See that the envelope sender is the user's still. The directory is the qmail home.

    Args:
        before: the sender that ofmipd has accepted.
        after: the one that the filters leave.
        env: ``OFMIP_SENDERS`` as for ofmipd; without it, any sender will do.

    Raises:
        Refused: it is somebody else's, or that cannot be told now.
    """
    if after not in (before, b""):
        _require([after], env)


def check_author(before: int, after: int, env: dict[str, str]) -> None:
    """See that in a message that filters have changed nobody speaks but as before, or the user.

    Args:
        before: descriptor of the message as it was, from its start.
        after: descriptor of the message as it is.
        env: as for check_sender.

    Raises:
        Refused: as for check_sender; also when From is gone or cannot be parsed.
    """
    if "OFMIP_SENDERS" not in env:
        return
    old, new = _speakers(before), _speakers(after)
    if [field.raw for field in old] == [field.raw for field in new]:
        return
    # Only now, and only where a filter has changed it.
    from pyqmail.ofmipd.message import speakers

    if _has_author(old) and not _has_author(new):
        raise Refused(b"Dyour filters removed the From field (#5.6.0)")
    try:
        known = set(speakers(old))
        strange = [one for one in speakers(new) if one not in known]
    except ListError:
        raise Refused(NOT_YOURS) from None
    if strange:
        _require(strange, env)


def _require(addresses: list[bytes], env: dict[str, str]) -> None:
    from pyqmail.header import rewriting
    from pyqmail.ofmipd.senders import Ownership

    try:
        login = rewriting.read(env).address(os.fsencode(env["AUTHUP_USER"]))
        ownership = Ownership(login, env.get("OFMIP_SENDERS"))
        if not all(map(ownership.holds, addresses)):
            raise Refused(NOT_YOURS)
    except control.ControlError as error:
        log.event(env, f"qmail-qfilter-queue: {error}")
        raise Refused(b"Zunable to read cdb (#4.3.0)") from error


def _has_author(fields: list[Field]) -> bool:
    return any(field.name == b"from" for field in fields)


def _speakers(message: int) -> list[Field]:
    """Return the fields of the message in an open file that say who speaks."""
    reader = HeaderReader()
    position = 0
    while not reader.whole:
        data = os.pread(message, 65536, position)
        position += len(data)
        reader.feed(data)
        if not data:
            reader.finish()
        elif reader.size > HEADER_LIMIT:
            raise Refused(b"Dthe header that your filters made is too big (#5.3.4)")
    return [field for field in reader.fields if field.name in SPEAKERS]
