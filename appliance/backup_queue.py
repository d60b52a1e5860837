"""The queue, as members of a backup: each message as it was at one moment.

Runs as qmails, in the queue, beside the programs that change it; docs/queue.md has the
states and the order of their steps. A message is copied in the state S4 (mess and todo) or
S5 (mess and info, perhaps local, remote and bounce); all else is not queued, or derived.
"""

import os
from typing import NamedTuple

from appliance import backup_format
from appliance.backup_files import READ, Members
from appliance.backup_format import queue_path

ROUNDS = 10  # through the queue: a message that is forwarded goes on as another one


class Part(NamedTuple):
    """A small file of a message: what it says of itself, and its content."""

    kind: str
    found: os.stat_result
    content: bytes


def copy(members: Members) -> int:
    """Copy the messages of the queue in the current directory; return how many.

    A message that ends between being seen and being read is in a mailbox now, which is
    copied later, or far away; or a message in its place, a bounce or a forwarded one, is in
    the queue. So the queue is looked at until nothing in it is new.

    Raises:
        OSError: the queue cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    for turn in range(ROUNDS):
        was_new = turn == 0
        for number in numbers():
            try:
                inode = os.stat(queue_path("mess", number)).st_ino
            except FileNotFoundError:
                continue
            if (number, inode) not in seen:
                was_new = True
                if _message(number, members):
                    seen.add((number, inode))
        if not was_new:
            break
    return len(seen)


def numbers() -> list[int]:
    """Return the messages that are queued or preprocessed.

    Raises:
        OSError: a directory cannot be read.
    """
    # In this order: todo/N goes when info/N is there.
    found = {int(name) for name in os.listdir("todo") if name.isdigit()}
    for split in range(backup_format.SPLIT):
        found.update(int(name) for name in os.listdir(f"info/{split}") if name.isdigit())
    return sorted(found)


def _message(number: int, members: Members) -> bool:
    """Copy a message; False when it is over."""
    try:
        descriptor = os.open(queue_path("mess", number), READ)
    except FileNotFoundError:
        return False
    try:
        found = os.fstat(descriptor)
        envelope = _envelope(number)
        # While the file is open no other message gets its inode. If its name is still there,
        # what was read belongs to it.
        if not envelope or not _is_at(queue_path("mess", number), found):
            return False
        members.file(f"queue/{queue_path('mess', number)}", found, descriptor)
        for part in envelope:
            name = f"queue/{queue_path(part.kind, number)}"
            members.content(name, part.found, part.content)
    finally:
        os.close(descriptor)
    return True


def _envelope(number: int) -> list[Part]:
    """Return what makes the state of a message, nothing when there is none any more.

    bounce/N comes last: a recipient is marked as done after the failure is noted in it.
    """
    if todo := _read("todo", number):
        return [todo]  # qmail-send removes the others before it begins anew
    if not (info := _read("info", number)):
        return []
    others = [_read(kind, number) for kind in ("local", "remote", "bounce")]
    return [info, *(part for part in others if part)]


def _read(kind: str, number: int) -> Part | None:
    try:
        descriptor = os.open(queue_path(kind, number), READ)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        content = file.read()
        return Part(kind, os.fstat(descriptor), content)


def _is_at(path: str, found: os.stat_result) -> bool:
    try:
        now = os.stat(path)
    except FileNotFoundError:
        return False
    return (now.st_dev, now.st_ino) == (found.st_dev, found.st_ino)
