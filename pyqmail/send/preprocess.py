"""From todo/N to info/N, local/N and remote/N: state S4 to S5 of INTERNALS, section 4.

Several messages at a time wait for the disk together. Nothing here removes todo/N; that
is qmail-clean's work, after all of this is on disk. Whatever happens before, the message
is preprocessed again from the start.
"""

import os
from typing import NamedTuple

from pyqmail.queue import durable, layout
from pyqmail.queue.envelope import decode_todo
from pyqmail.send.log import Log, safe
from pyqmail.send.routing import Routing
from pyqmail.send.schedule import CHANNELS

CHANNEL_DIRECTORIES = ("local", "remote")
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_MODE = 0o600


class Preprocessed(NamedTuple):
    """A message all of whose files are on disk."""

    number: int
    channels: list[int]  # those that have recipients


class _Trouble(Exception):
    """A message cannot be preprocessed now; the argument is the log line."""


class _Gone(_Trouble):
    """There is no mess/N."""


class _Written(NamedTuple):
    message: Preprocessed
    descriptors: list[int]
    directories: list[str]


def preprocess(
    numbers: list[int], routing: Routing, log: Log, *, thorough: bool
) -> list[Preprocessed]:
    """Preprocess messages and return those that are ready; the others are in the log.

    Args:
        numbers: files in todo/.
        routing: where recipients go.
        log: where lines go.
        thorough: an earlier qmail-send may have crashed, and with it the system: remove
            what there may be of each message's files. Otherwise it is enough to do so
            when info/N exists, the first that is made and the last that is removed.
            And end what has no mess/N any more: it was over before the system crashed.
    """
    written: list[_Written] = []
    for number in numbers:
        try:
            written.append(_write(number, routing, log, thorough))
        except _Trouble as trouble:
            log.line(str(trouble))
    return _synced(written, log)


def _write(number: int, routing: Routing, log: Log, thorough: bool) -> _Written:
    channel_names = [layout.split(name, number) for name in CHANNEL_DIRECTORIES]
    info = layout.info(number)
    # bounce/N, too: who is written there will be tried again.
    leftovers = (*channel_names, layout.bounce(number), info)
    try:
        content, size = _read(number)
    except _Gone as gone:
        if not thorough:
            raise
        _remove(*leftovers)
        log.line(str(gone), "; forgetting msg ", number)
        return _Written(Preprocessed(number, []), [], [])
    if thorough or os.path.lexists(info):
        _remove(*leftovers)
    log.line("new msg ", number)
    try:
        queued = decode_todo(content)
    except ValueError as error:
        path = layout.todo(number)
        raise _Trouble(f"warning: unknown record type in {path}!") from error
    log.line(
        *("info msg ", number, ": bytes ", size, " from <", safe(queued.sender)),
        *("> qp ", queued.pid, " uid ", queued.uid),
    )
    records: tuple[list[bytes], list[bytes]] = ([], [])
    for recipient in queued.recipients:
        channel, address = routing.route(recipient)
        records[channel].append(b"T" + address + b"\0")
    contents = {info: b"F" + queued.sender + b"\0"}
    channels = [channel for channel in CHANNELS if records[channel]]
    for channel in channels:
        contents[channel_names[channel]] = b"".join(records[channel])
    descriptors: list[int] = []
    try:
        for path, data in contents.items():
            descriptors.append(_create(path, data))
    except _Trouble:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    directories = [os.path.dirname(path) for path in contents]
    return _Written(Preprocessed(number, channels), descriptors, directories)


def _remove(*paths: str) -> None:
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _Trouble(f"warning: unable to unlink {path}") from error


def _read(number: int) -> tuple[bytes, int]:
    """Return the content of todo/N and the size of the message."""
    path = layout.todo(number)
    try:
        with open(path, "rb", buffering=0) as file:
            content = file.readall()
    except OSError as error:
        raise _Trouble(f"warning: unable to open {path}") from error
    path = layout.mess(number)
    try:
        return content, os.stat(path).st_size
    except FileNotFoundError as error:
        raise _Gone(f"warning: unable to stat {path}") from error
    except OSError as error:
        raise _Trouble(f"warning: unable to stat {path}") from error


def _create(path: str, data: bytes) -> int:
    try:
        descriptor = os.open(path, _NEW_FILE, _MODE)
    except OSError as error:
        raise _Trouble(f"warning: unable to create {path}") from error
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        os.close(descriptor)
        raise _Trouble(f"warning: trouble writing to {path}") from error
    return descriptor


def _synced(written: list[_Written], log: Log) -> list[Preprocessed]:
    """Wait for the disk; return the messages of which everything has got there."""
    durable.start_writing(d for one in written for d in one.descriptors)
    ready: list[_Written] = []
    for one in written:
        try:
            for descriptor in one.descriptors:
                os.fsync(descriptor)
            ready.append(one)
        except OSError:
            log.line("warning: trouble writing to ", layout.info(one.message.number))
        finally:
            for descriptor in one.descriptors:
                os.close(descriptor)
    bad: set[str] = set()
    for directory in {name for one in ready for name in one.directories}:
        try:
            durable.sync_directory(directory)
        except OSError:
            log.line("warning: trouble writing to ", directory)
            bad.add(directory)
    return [one.message for one in ready if bad.isdisjoint(one.directories)]
