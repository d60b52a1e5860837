"""What is in the queue: at the start, for deliveries; now and then, for what was left behind."""

import os
from collections.abc import Iterator
from typing import NamedTuple

from pyqmail.queue import layout
from pyqmail.send.clean import ABANDONED
from pyqmail.send.log import Log
from pyqmail.send.preprocess import CHANNEL_DIRECTORIES


class Inventory(NamedTuple):
    """Preprocessed messages: (due, number) by channel, and those with no recipient left."""

    channels: tuple[list[tuple[int, int]], list[tuple[int, int]]]
    over: list[int]
    unknown: list[int]  # the system did not say


def _numbers(directory: str) -> list[int]:
    return [int(name) for name in os.listdir(directory) if name.isdigit()]


def take(log: Log) -> Inventory:
    """Find all preprocessed messages, without reading a file of theirs.

    A message is due at the mtime of its local or remote file: qmail-send puts that time
    there when it ends, and a crash leaves the time of the last change, so that it is
    retried too soon and not too late. A message that is (again) in todo is left to
    preprocessing.

    Files are removed that belong to no message: what is removed at a message's end is not
    synced, so a loss of power may bring back some of it. They would be taken for the next
    message's that has this number.

    Raises:
        OSError: a directory of the queue cannot be read.
    """
    inventory = Inventory(([], []), [], [])
    queued = set(_numbers("todo"))
    for split in range(layout.SPLIT):
        here = [set(_numbers(f"{name}/{split}")) for name in CHANNEL_DIRECTORIES]
        born = set(_numbers(f"info/{split}")) - queued
        # Looked for after info/, as it is made before and removed after.
        alive = born.intersection(_numbers(f"mess/{split}"))
        for number in born:
            if number in alive:
                present = [number in numbers for numbers in here]
                _sort(number, present, inventory, log)
            else:
                log.line(
                    "warning: unable to find ", layout.mess(number), "; forgetting msg ", number
                )
                _remove(layout.info(number), log)
        for name, numbers in zip(CHANNEL_DIRECTORIES, here, strict=True):
            for number in numbers - alive - queued:
                _remove(layout.split(name, number), log)
    for number in _numbers("bounce"):
        if number not in queued and not os.path.lexists(layout.info(number)):
            _remove(layout.bounce(number), log)
    return inventory


def _remove(path: str, log: Log) -> None:
    try:
        os.unlink(path)
    except OSError:
        log.line("warning: unable to unlink ", path)


def examine(number: int, log: Log) -> Inventory:
    """Like take, for one message."""
    inventory = Inventory(([], []), [], [])
    try:
        if os.path.exists(layout.info(number)) and not os.path.exists(layout.todo(number)):
            names = [layout.split(name, number) for name in CHANNEL_DIRECTORIES]
            _sort(number, [os.path.exists(name) for name in names], inventory, log)
    except OSError:
        inventory.unknown.append(number)
    return inventory


def _sort(number: int, present: list[bool], inventory: Inventory, log: Log) -> None:
    due = []
    for channel, name in enumerate(CHANNEL_DIRECTORIES):
        if present[channel]:
            path = layout.split(name, number)
            try:
                due.append((channel, int(os.stat(path).st_mtime)))
            except FileNotFoundError:
                continue
            except OSError:
                log.line("warning: unable to stat ", path, "; will try again later")
                inventory.unknown.append(number)
                return
    for channel, when in due:
        inventory.channels[channel].append((when, number))
    if not due:
        inventory.over.append(number)


def left_behind(now: float) -> Iterator[int | None]:
    """Look through mess/ for what crashed injections and ends left more than 36 hours ago.

    Yields None for every file that is none, so that the caller can do it in small steps.
    """
    for split in range(layout.SPLIT):
        try:
            entries = os.scandir(f"mess/{split}")
        except OSError:
            continue
        with entries:
            for entry in entries:
                yield _abandoned(entry, now)


def _abandoned(entry: "os.DirEntry[str]", now: float) -> int | None:
    if not entry.name.isdigit():
        return None
    number = int(entry.name)
    try:
        status = entry.stat(follow_symlinks=False)
        if now <= max(status.st_atime, status.st_mtime) + ABANDONED:
            return None
        for path in (layout.info(number), layout.todo(number)):
            try:
                os.stat(path)
                return None
            except FileNotFoundError:
                continue
    except OSError:
        return None
    return number
