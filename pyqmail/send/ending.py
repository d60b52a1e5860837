"""The end of a message: its bounce, and then its files (INTERNALS, section 5)."""

import os
import time
from collections.abc import Iterator

from pyqmail.queue import client, durable, layout
from pyqmail.send import bounce
from pyqmail.send.controls import Identity
from pyqmail.send.delivery import read_info
from pyqmail.send.log import Log
from pyqmail.send.preprocess import CHANNEL_DIRECTORIES

READ = 65536  # bytes of one read


def remember_failure(number: int, paragraph: bytes, log: Log) -> None:
    """Append to bounce/N, for as long as it takes: the recipient is marked done after this."""
    path = layout.bounce(number)
    # At this place a line cut short by a full disk is overwritten by the next attempt.
    offset: int | None = None
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if offset is None:
                    size = os.fstat(descriptor).st_size
                    # A crash leaves a line cut short, too: it must not swallow the next one.
                    if size and os.pread(descriptor, 2, max(0, size - 2)) != b"\n\n":
                        paragraph = b"\n\n" + paragraph
                    offset = size
                _write_at(descriptor, paragraph, offset)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            durable.sync_directory("bounce")
            return
        except OSError:
            log.line("alert: unable to append to bounce message; HELP! sleeping...")
            log.flush()
            time.sleep(10)


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data = data[written:]
        offset += written


class NotYet(Exception):
    """The message has to wait; the log says why."""


def is_over(number: int, log: Log) -> bool:
    """Whether a message has an info file and nothing left to do but its bounce.

    Raises:
        NotYet: it cannot be found out.
    """
    for name in CHANNEL_DIRECTORIES:
        if _exists(layout.split(name, number), log):
            return False
    return not _exists(layout.todo(number), log) and _exists(layout.info(number), log)


def _exists(path: str, log: Log) -> bool:
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        log.line("warning: unable to stat ", path, "; will try again later")
        raise NotYet from error
    return True


def report_failures(number: int, identity: Identity, env: dict[str, str], log: Log) -> None:
    """Queue the bounce of a message if it needs one, and remove bounce/N.

    Raises:
        NotYet: it cannot be done now.
    """
    path = layout.bounce(number)
    if not _exists(path, log):
        return
    try:
        sender, _ = read_info(number)
    except (OSError, ValueError) as error:
        log.line("warning: trouble opening ", layout.info(number), "; will try again later")
        raise NotYet from error
    what = bounce.plan(sender, identity)
    if what.discard:
        log.line(what.discard, " bounce: discarding ", path)
    else:
        _inject(number, what, identity, env, log)
    try:
        os.unlink(path)
    except OSError as error:
        log.line("warning: unable to unlink ", path)
        raise NotYet from error


def _inject(
    number: int, what: bounce.Plan, identity: Identity, env: dict[str, str], log: Log
) -> None:
    injection = client.open_queue(env)
    try:
        injection.write(bounce.head(what, identity, time.time()))
        for piece in _file(layout.bounce(number)):
            injection.write(piece)
        injection.write(bounce.tail(what))
        for piece in _file(layout.mess(number)):
            injection.write(piece)
    except OSError as error:
        injection.abort()
        log.line("warning: trouble injecting bounce message, will try later")
        raise NotYet from error
    result = injection.finish(what.bounce_sender, [what.bounce_recipient])
    if result.status:
        log.line("warning: trouble injecting bounce message, will try later")
        raise NotYet
    log.line("bounce msg ", number, " qp ", result.pid)


def _file(path: str) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        while data := file.read(READ):
            yield data


def remove_info(number: int, log: Log) -> None:
    """Log the end of a message and remove info/N: what is left is qmail-clean's.

    Raises:
        NotYet: it cannot be removed now.
    """
    log.line("end msg ", number)
    path = layout.info(number)
    try:
        os.unlink(path)
    except OSError as error:
        log.line("warning: unable to unlink ", path, "; will try again later")
        raise NotYet from error
