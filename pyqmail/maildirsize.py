"""The Maildir++ quota: the file maildirsize in a Maildir.

The format and the rules are those of Courier's "Maildir++" (README.maildirquota). The
first line is the quota, ``10000000S,1000C``: bytes, messages. Each other line has two
numbers, bytes and messages, and the sum of all lines is what the Maildir holds. Who adds
or removes a message appends a line. The file is written anew from a look at the
directories when it has grown, and, before a message is refused, when it is old or has
been appended to: so programs that remove messages and know nothing of this file are
tolerated. Without the file there is no quota.
"""

import os
import stat
import time
from enum import Enum, auto
from typing import NamedTuple

FILE = b"maildirsize"
SIZE_LIMIT = 5120  # bytes; a longer file is written anew
STALE = 15 * 60  # seconds
TRASH = b".Trash"  # does not count: a message must be movable there at the limit

Where = int | bytes  # a Maildir: descriptor of the directory, or its path


class Quota(NamedTuple):
    """What a Maildir may hold; 0 means without limit."""

    bytes: int
    messages: int


class Usage(NamedTuple):
    """What a Maildir holds."""

    bytes: int
    messages: int


class Content(NamedTuple):
    """What a maildirsize file says."""

    quota: Quota
    usage: Usage
    lines: int  # after the first


class Taken(Enum):
    """Whether there is room for a message."""

    UNLIMITED = auto()
    FITS = auto()
    OVER = auto()


def parse_quota(text: bytes) -> Quota | None:
    """Return the quota that the text states, None if it is not one.

    ``S`` follows bytes, ``C`` messages; parts are separated by commas.
    """
    limits = {b"S": 0, b"C": 0}
    for part in text.strip().split(b","):
        kind = part[-1:]
        if kind not in limits or not part[:-1].isdigit():
            return None
        limits[kind] = int(part[:-1])
    return Quota(limits[b"S"], limits[b"C"])


def parse(text: bytes) -> Content | None:
    """Return what a maildirsize file says, None when it is damaged."""
    first, *lines = text.split(b"\n")
    quota = parse_quota(first)
    if quota is None:
        return None
    size = count = 0
    numbers = [line.split() for line in lines if line.strip()]
    try:
        for one, other in numbers:
            size += int(one)
            count += int(other)
    except ValueError:
        return None
    return Content(quota, Usage(size, count), len(numbers))


def exceeds(quota: Quota, usage: Usage, size: int) -> bool:
    """Tell whether one more message of size bytes is more than the quota allows."""
    return bool(
        (quota.bytes and usage.bytes + size > quota.bytes)
        or (quota.messages and usage.messages + 1 > quota.messages)
    )


def size_in_name(name: bytes) -> int | None:
    """Return the size that a message's file name states (``,S=``), None if it does not."""
    start = name.find(b",S=")
    if start < 0:
        return None
    digits = name[start + 3 :].split(b",", 1)[0].split(b":", 1)[0]
    return int(digits) if digits.isdigit() else None


def counted(name: bytes, size: int) -> int | None:
    """Return the bytes that a message's file counts for, None if it does not count.

    Args:
        name: of the file.
        size: what the file has, where its name does not say it.
    """
    if b"T" in name.partition(b":2,")[2]:  # marked for removal
        return None
    stated = size_in_name(name)
    return size if stated is None else stated


def take(maildir: int, size: int) -> Taken:
    """Tell whether a message of size bytes may be delivered.

    Raises:
        OSError: the file is there and cannot be read or written anew.
    """
    try:
        fd = os.open(FILE, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=maildir)
    except FileNotFoundError:
        return Taken.UNLIMITED
    try:
        text = os.read(fd, SIZE_LIMIT + 1)
        age = time.time() - os.fstat(fd).st_mtime
    finally:
        os.close(fd)
    content = parse(text)
    quota = content.quota if content else parse_quota(text.split(b"\n", 1)[0])
    if quota is None or quota == Quota(0, 0):
        return Taken.UNLIMITED  # not ours to invent a limit
    if content and len(text) <= SIZE_LIMIT and _trusted(content, age, size):
        usage = content.usage
    else:
        usage = measure(maildir)
        _rewrite(maildir, quota, usage)
    return Taken.OVER if exceeds(quota, usage, size) else Taken.FITS


def _trusted(content: Content, age: float, size: int) -> bool:
    """Tell whether the sum may decide: it lets the message in, or was made just now."""
    if not exceeds(content.quota, content.usage, size):
        return True
    return content.lines <= 1 and 0 <= age <= STALE


def record(maildir: int, size: int, count: int) -> None:
    """Note that count messages of size bytes in all came (or went, when negative).

    An error is of no account: a later look at the directories sets the sum right.
    """
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(FILE, flags, dir_fd=maildir)
    except OSError:
        return
    try:
        os.write(fd, b"%d %d\n" % (size, count))
    except OSError:
        pass
    finally:
        os.close(fd)


def removed(directory: bytes, size: int, count: int) -> None:
    """Note that count messages of size bytes in all were removed from the Maildir there.

    Does nothing when the Maildir has no quota.
    """
    try:
        maildir = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        record(maildir, -size, -count)
    finally:
        os.close(maildir)


def set_quota(directory: bytes, quota: Quota) -> None:
    """Write maildirsize with quota and what the Maildir holds now.

    Raises:
        OSError: there is no such Maildir, or it cannot be written.
    """
    maildir = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _rewrite(maildir, quota, measure(maildir))
    finally:
        os.close(maildir)


def measure(maildir: int) -> Usage:
    """Add up the messages in new and cur of the Maildir and of its folders but Trash.

    Raises:
        OSError: a directory cannot be read.
    """
    total = count = 0
    for folder in _folders(maildir):
        for part in (b"new", b"cur"):
            for name, size in _messages(maildir, folder + part):
                if counted(name, size) is not None:
                    total += size
                    count += 1
    return Usage(total, count)


def _folders(maildir: int) -> list[bytes]:
    fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=maildir)
    try:
        names = (os.fsencode(name) for name in os.listdir(fd))
        return [b""] + [n + b"/" for n in names if n.startswith(b".") and n != TRASH]
    finally:
        os.close(fd)


def _messages(maildir: int, directory: bytes) -> list[tuple[bytes, int]]:
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=maildir)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    try:
        for entry in os.listdir(fd):
            name = os.fsencode(entry)
            if name.startswith(b"."):
                continue
            size = size_in_name(name)
            if size is None:
                try:
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue  # removed or renamed by a reader meanwhile
                if not stat.S_ISREG(status.st_mode):
                    continue
                size = status.st_size
            found.append((name, size))
    finally:
        os.close(fd)
    return found


def _rewrite(maildir: int, quota: Quota, usage: Usage) -> None:
    text = b"%dS,%dC\n%d %d\n" % (*quota, *usage)
    if quota.messages == 0:
        text = b"%dS\n%d %d\n" % (quota.bytes, *usage)
    elif quota.bytes == 0:
        text = b"%dC\n%d %d\n" % (quota.messages, *usage)
    temporary = b"tmp/maildirsize.%d.%d" % (time.time_ns(), os.getpid())
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=maildir)
    try:
        os.write(fd, text)
    finally:
        os.close(fd)
    os.rename(temporary, FILE, src_dir_fd=maildir, dst_dir_fd=maildir)
