"""qmail-qfilter and qmail-qfilter-queue: put filters in front of the queue.

Both have qmail-queue's interface: message on descriptor 0, envelope on 1. A filter reads
the message on its descriptor 0 and writes it, changed, to 1; one that writes nothing leaves
it as it is. On 3 it finds the envelope in qmail-queue's form, and may write another one to
4. Its exit status decides (qmail-qfilter(1)): 0 goes on, 99 accepts the message and drops it,
anything else ends it.
"""

import os
import signal
import stat
from collections.abc import Iterable
from typing import NamedTuple

from pyqmail.queue import client, envelope, errors, wire
from pyqmail.queue import program as queue_program
from ucspi import chain, control, log, warm

DROP = 99
FILTER_SECONDS = 600  # for one filter, as long as a mail client waits (RFC 5321, 4.5.3.2.6)
CHUNK = 65536
MEMORY_LIMIT = 1 << 20  # bytes; a larger message is kept in a file where there is one
RECIPIENTS_LIMIT = 100_000  # bytes of QMAILRCPTS; Linux executes nothing with more than 128 KiB

# What a filter says -> what qmail-queue would say. Other statuses pass as they are: those
# from 11 to 40 refuse the message for good, the rest for now, 82 with the filter's own words.
STATUSES = {
    100: errors.REFUSED,
    111: errors.REFUSED_FOR_NOW,
    115: errors.REFUSED_FOR_NOW,  # netqmail's programs would take it for a permanent one
    chain.EXIT_NOT_EXECUTABLE: errors.NOT_EXECUTED,
    chain.EXIT_NOT_FOUND: errors.NOT_EXECUTED,
}

TEMPORARY = "/tmp"  # a place for large messages; where it cannot be used, memory will do

NEW_ENVELOPE = 4
OWN_TEXT = 6  # descriptor for the text of status 82; 4 will do as well

# A filter that queues mail of its own must not set itself off.
HIDDEN = ("QMAILQUEUE", "QMAILQUEUEFILTERS", "QMAILNAME", client.PROGRAM_MARK)


class Failure(Exception):
    """The message is not queued; ``status`` is the exit status that says why."""

    def __init__(self, status: int) -> None:
        """Name the exit status."""
        super().__init__(f"status {status}")
        self.status = status


class Mail(NamedTuple):
    """What goes from filter to filter: two open files, and the envelope's content."""

    message: int
    large: bool
    envelope: bytes


def qmail_qfilter(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-qfilter filter [ -- filter ... ]``; return an exit status of qmail-queue."""
    filters: list[list[str]] = [[]]
    for word in argv[1:]:
        if word == "--":
            filters.append([])
        else:
            filters[-1].append(word)
    if not all(filters):
        log.event(env, "usage: qmail-qfilter filter [ -- filter ... ]")
        return errors.BUG
    return run(filters, env)


def qmail_qfilter_queue(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-qfilter-queue``: the filters are the lines of a file.

    ``QMAILQUEUEFILTERS`` names it, relative to the qmail home; a line is a program and
    its arguments, split at blanks. Without the file nothing is queued, for what it
    lists may be there to keep viruses out.
    """
    try:
        control.enter_home(env)
        filters = read_filters(env.get("QMAILQUEUEFILTERS", ""))
    except (OSError, control.ControlError) as error:
        log.event(env, f"qmail-qfilter-queue: unable to read QMAILQUEUEFILTERS: {error}")
        return errors.NO_CONTROL
    return run(filters, env)


def read_filters(path: str) -> list[list[str]]:
    """Return the command lines in the file at path.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        lines = control.parse_lines(file.read())
    return [os.fsdecode(line).split() for line in lines if line.strip()]


def run(filters: list[list[str]], env: dict[str, str]) -> int:
    """Pass the message on descriptors 0 and 1 through filters into the queue.

    Returns:
        The exit status of a filter in qmail-queue's terms, or that of queueing.
    """
    if not filters:
        return queue_program.main(["qmail-queue"], env)
    error_text = own_error_descriptor()
    try:
        mail = receive()
        for command in filters:
            status, mail = apply(command, mail, env, error_text)
            if status == DROP:
                return errors.QUEUED
            if status:
                log.event(env, f"qmail-qfilter: {command[0]}: status {status}")
                return STATUSES.get(status, status)
        return inject(mail, env)
    except Failure as failure:
        return failure.status
    except envelope.EnvelopeError as error:
        return error.status
    except OSError as error:
        log.event(env, f"qmail-qfilter: {error}")
        return errors.WRITE_ERROR


def own_error_descriptor() -> int | None:
    """Return where our caller reads the text of status 82, None if it does not.

    Must come before any file is opened, or one might sit on the number.
    """
    for number in (OWN_TEXT, NEW_ENVELOPE):
        try:
            if stat.S_ISFIFO(os.fstat(number).st_mode):
                return os.dup(number)
        except OSError:
            continue
    return None


def receive() -> Mail:
    """Read message and envelope to their ends.

    Raises:
        Failure: an end is missing: whoever wrote them has changed his mind or died.
        EnvelopeError: that is no envelope.
        OSError: there is no room for the message.
    """
    parts = read_up_to(0, MEMORY_LIMIT)
    large = sum(map(len, parts)) >= MEMORY_LIMIT
    message = spool(large)
    for part in parts:
        write_all(message, part)
    while large and (data := read(0)):
        write_all(message, data)
    return Mail(message, large, read_envelope(1))


def read(descriptor: int) -> bytes:
    """Return some bytes, none at the end.

    Raises:
        Failure: it cannot be read.
    """
    try:
        return os.read(descriptor, CHUNK)
    except OSError as error:
        raise Failure(errors.READ_ERROR) from error


def read_up_to(descriptor: int, limit: int) -> list[bytes]:
    """Return the first bytes: all of them, or at least limit."""
    parts: list[bytes] = []
    size = 0
    while size < limit and (data := read(descriptor)):
        parts.append(data)
        size += len(data)
    return parts


def read_envelope(descriptor: int) -> bytes:
    """Return an envelope in qmail-queue's form.

    Raises:
        Failure: it has no end.
        EnvelopeError: it is not in the form.
    """
    reader = envelope.EnvelopeReader()
    fields: list[bytes] = []
    while not reader.complete:
        data = read(descriptor)
        if not data:
            raise Failure(errors.READ_ERROR)
        fields.append(reader.feed(data))
    return b"".join(fields) + b"\0"


def spool(large: bool) -> int:
    """Return an open file without a name: on disk for a large message, if there is a place."""
    if large:
        try:
            directory = TEMPORARY
            return os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        except OSError:
            pass
    return os.memfd_create("message", os.MFD_CLOEXEC)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of data."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def apply(
    command: list[str], mail: Mail, env: dict[str, str], error_text: int | None
) -> tuple[int, Mail]:
    """Run one filter; return its exit status and what the mail is after it.

    Raises:
        Failure: it died or took too long.
        EnvelopeError: it wrote something that is no envelope.
    """
    output = spool(mail.large)
    old_envelope = spool(False)
    new_envelope = spool(False)
    try:
        write_all(old_envelope, mail.envelope)
        os.lseek(old_envelope, 0, os.SEEK_SET)
        os.lseek(mail.message, 0, os.SEEK_SET)
        descriptors = {0: mail.message, 1: output, 3: old_envelope, NEW_ENVELOPE: new_envelope}
        if error_text is not None:
            descriptors[OWN_TEXT] = error_text
        child = warm.spawn(command, filter_env(env, mail.envelope), descriptors)
        status = wait(child, command[0], env)
        os.lseek(new_envelope, 0, os.SEEK_SET)
        if status == errors.CUSTOM:
            pass_on_text(new_envelope, error_text)
        elif status == 0 and os.fstat(new_envelope).st_size:
            mail = mail._replace(envelope=read_envelope(new_envelope))
        if status == 0 and os.fstat(output).st_size:
            output, changed = mail.message, output
            mail = mail._replace(message=changed)
        return status, mail
    finally:
        for descriptor in (output, old_envelope, new_envelope):
            os.close(descriptor)


def filter_env(env: dict[str, str], content: bytes) -> dict[str, str]:
    """Return a filter's environment: QMAILUSER, QMAILHOST and QMAILRCPTS say who and whom."""
    sender, *recipients = (field[1:] for field in content.split(b"\0")[:-2])
    user, _, host = sender.rpartition(b"@") if b"@" in sender else (sender, b"", b"")
    result = {name: value for name, value in env.items() if name not in HIDDEN}
    result["QMAILUSER"] = os.fsdecode(user)
    result["QMAILHOST"] = os.fsdecode(host)
    listed = b"".join(recipient + b"\n" for recipient in recipients)
    if len(listed) <= RECIPIENTS_LIMIT:
        result["QMAILRCPTS"] = os.fsdecode(listed)
    return result


def wait(child: warm.Child, name: str, env: dict[str, str]) -> int:
    """Return the exit status of a filter.

    Raises:
        Failure: it died of a signal, or was killed because it took too long.
    """
    code = child.wait(FILTER_SECONDS)
    if code is None:
        child.kill(signal.SIGKILL)
        child.wait()
        log.event(env, f"qmail-qfilter: {name} took more than {FILTER_SECONDS} seconds")
        raise Failure(errors.TIMEOUT)
    if code < 0:
        log.event(env, f"qmail-qfilter: {name} died of signal {-code}")
        raise Failure(errors.BUG)
    return code


def pass_on_text(written: int, error_text: int | None) -> None:
    """Give our caller the words of a filter that wrote them to 4, as netqmail's do."""
    text = os.read(written, client.CUSTOM_ERROR_LIMIT)
    if error_text is not None and text[:1] in (b"D", b"Z"):
        write_all(error_text, text)


def inject(mail: Mail, env: dict[str, str]) -> int:
    """Hand the mail to the queue server and return its status."""
    path = env.get("QMAIL_QUEUE_SOCKET", client.SOCKET)
    injection = client.ServerInjection(path, wire.KIND_PROGRAM)
    os.lseek(mail.message, 0, os.SEEK_SET)
    for data in chunks(mail.message):
        injection.write(data)
    return injection.finish_raw([mail.envelope]).status


def chunks(descriptor: int) -> Iterable[bytes]:
    """Yield the content of an open file from where it stands."""
    while data := os.read(descriptor, CHUNK):
        yield data
