"""The mail between two filters: open files, read from a caller and handed to a filter."""

import os
from collections.abc import Iterable
from typing import NamedTuple

from pyqmail.queue import client, envelope, errors

CHUNK = 65536
MEMORY_LIMIT = 1 << 20  # bytes; a larger message is kept in a file where there is one
RECIPIENTS_LIMIT = 100_000  # bytes of QMAILRCPTS; Linux executes nothing with more than 128 KiB

# A place for large messages, TMPDIR in its stead; where it cannot be used, memory will do.
TEMPORARY = "/tmp"

NEW_ENVELOPE = 4

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


def choose_place(env: dict[str, str]) -> None:
    """Have large messages kept in TMPDIR from now on, if it is set."""
    global TEMPORARY
    TEMPORARY = env.get("TMPDIR", TEMPORARY)


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


class Files:
    """The files of one filter: what it reads, and what it may write."""

    def __init__(self, mail: Mail) -> None:
        """Make them, for a filter of this mail."""
        self._mail = mail
        self._output = spool(mail.large)
        self._old_envelope = spool(False)
        self.new_envelope = spool(False)
        write_all(self._old_envelope, mail.envelope)
        os.lseek(self._old_envelope, 0, os.SEEK_SET)
        os.lseek(mail.message, 0, os.SEEK_SET)
        self.descriptors = {
            0: mail.message,
            1: self._output,
            3: self._old_envelope,
            NEW_ENVELOPE: self.new_envelope,
        }

    def __enter__(self) -> "Files":
        """Close them at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close what is not the mail's."""
        for descriptor in (self._output, self._old_envelope, self.new_envelope):
            os.close(descriptor)

    def after(self) -> Mail:
        """Return the mail as the filter leaves it.

        Raises:
            EnvelopeError, Failure: see read_envelope.
        """
        mail = self._mail
        os.lseek(self.new_envelope, 0, os.SEEK_SET)
        if os.fstat(self.new_envelope).st_size:
            mail = mail._replace(envelope=read_envelope(self.new_envelope))
        if os.fstat(self._output).st_size:
            self._output, changed = mail.message, self._output
            mail = mail._replace(message=changed)
        return mail


def envelope_fields(content: bytes) -> list[bytes]:
    """Return sender and recipients of an envelope in qmail-queue's form."""
    return [field[1:] for field in content.split(b"\0")[:-2]]


def filter_env(env: dict[str, str], mail: Mail) -> dict[str, str]:
    """Return a filter's environment, which says who sends what to whom (qmail-qfilter(1))."""
    sender, *recipients = envelope_fields(mail.envelope)
    user, _, host = sender.rpartition(b"@") if b"@" in sender else (sender, b"", b"")
    result = {name: value for name, value in env.items() if name not in HIDDEN}
    result["QMAILUSER"] = os.fsdecode(user)
    result["QMAILHOST"] = os.fsdecode(host)
    result["MSGSIZE"] = str(os.fstat(mail.message).st_size)
    result["ENVSIZE"] = str(len(mail.envelope))
    result["NUMRCPTS"] = str(len(recipients))
    listed = b"".join(recipient + b"\n" for recipient in recipients)
    if len(listed) <= RECIPIENTS_LIMIT:
        result["QMAILRCPTS"] = os.fsdecode(listed)
    return result


def chunks(descriptor: int) -> Iterable[bytes]:
    """Yield the content of an open file from where it stands."""
    while data := os.read(descriptor, CHUNK):
        yield data
