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


class Envelope(NamedTuple):
    """What todo/N says of a message, its recipients sorted."""

    number: int
    sender: bytes | None  # None: the message itself is gone, and its files are removed
    recipients: tuple[list[bytes], list[bytes]]  # addresses, by channel

    @property
    def channels(self) -> list[int]:
        """Those that have recipients."""
        return [channel for channel in CHANNELS if self.recipients[channel]]


class _Trouble(Exception):
    """A message cannot be preprocessed now; the argument is the log line."""


class _Gone(_Trouble):
    """There is no mess/N."""


class _Written(NamedTuple):
    number: int
    descriptors: list[int]
    directories: list[str]


def read(number: int, routing: Routing, log: Log, *, thorough: bool) -> Envelope | None:
    """Read todo/N and remove what there may be of the message's other files.

    Args:
        number: of a message in todo/.
        routing: where recipients go.
        log: where lines go.
        thorough: an earlier qmail-send may have crashed, and with it the system: there may
            be any of the message's files. Otherwise it is enough to look for info/N, the
            first that is made and the last that is removed. And end what has no mess/N
            any more: it was over before the system crashed.

    Returns:
        None when it cannot be done now; the log says why.

    Raises:
        FileNotFoundError: there is no todo/N any more.
    """
    try:
        return _read(number, routing, log, thorough)
    except _Trouble as trouble:
        log.line(str(trouble))
        return None


def _read(number: int, routing: Routing, log: Log, thorough: bool) -> Envelope:
    info = layout.info(number)
    # bounce/N, too: who is written there will be tried again.
    leftovers = (*_channel_files(number), layout.bounce(number), info)
    content = _todo(number)
    try:
        size = _size(number)
    except _Gone as gone:
        if not thorough:
            raise
        _remove(*leftovers)
        log.line(str(gone), "; forgetting msg ", number)
        return Envelope(number, None, ([], []))
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
    recipients: tuple[list[bytes], list[bytes]] = ([], [])
    for recipient in queued.recipients:
        channel, address = routing.route(recipient)
        recipients[channel].append(address)
    return Envelope(number, queued.sender, recipients)


def write(envelopes: list[Envelope], log: Log) -> list[Envelope]:
    """Make the files of messages; return those whose files are on disk.

    What has become of the others is in the log.
    """
    written: list[_Written] = []
    for envelope in envelopes:
        try:
            written.append(_write(envelope))
        except _Trouble as trouble:
            log.line(str(trouble))
    ready = _synced(written, log)
    return [envelope for envelope in envelopes if envelope.number in ready]


def _channel_files(number: int) -> list[str]:
    return [layout.split(name, number) for name in CHANNEL_DIRECTORIES]


def _write(envelope: Envelope) -> _Written:
    number = envelope.number
    if envelope.sender is None:
        return _Written(number, [], [])
    contents = {layout.info(number): b"F" + envelope.sender + b"\0"}
    for path, addresses in zip(_channel_files(number), envelope.recipients, strict=True):
        if addresses:
            contents[path] = b"".join(b"T" + address + b"\0" for address in addresses)
    descriptors: list[int] = []
    try:
        for path, data in contents.items():
            descriptors.append(_create(path, data))
    except _Trouble:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return _Written(number, descriptors, [os.path.dirname(path) for path in contents])


def _remove(*paths: str) -> None:
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _Trouble(f"warning: unable to unlink {path}") from error


def _todo(number: int) -> bytes:
    path = layout.todo(number)
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _Trouble(f"warning: unable to open {path}") from error


def _size(number: int) -> int:
    path = layout.mess(number)
    try:
        return os.stat(path).st_size
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


def _synced(written: list[_Written], log: Log) -> set[int]:
    """Wait for the disk; return the messages of which everything has got there."""
    durable.start_writing(d for one in written for d in one.descriptors)
    ready: list[_Written] = []
    for one in written:
        try:
            for descriptor in one.descriptors:
                os.fsync(descriptor)
            ready.append(one)
        except OSError:
            log.line("warning: trouble writing to ", layout.info(one.number))
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
    return {one.number for one in ready if bad.isdisjoint(one.directories)}
