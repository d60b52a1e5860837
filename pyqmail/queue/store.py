"""A message on its way into the queue's directories, and the moment it becomes queued.

The order of steps is the guarantee; docs/queue.md lists them. Names are relative: the
process runs in the queue directory.
"""

import errno
import os
from collections.abc import Sequence

from pyqmail.queue import durable, errors, layout
from pyqmail.queue.envelope import origin

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_MODE = 0o644
ATTEMPTS = 100  # at a number that nothing in the queue has; see Incoming


class StoreError(Exception):
    """A step failed; ``status`` is qmail-queue's exit status for it."""

    def __init__(self, status: int, cause: OSError) -> None:
        """Name the status and what the system said."""
        super().__init__(f"status {status}: {cause.strerror}")
        self.status = status


class Incoming:
    """The files of one message that is not queued yet."""

    __slots__ = ("_intd_fd", "_mess_fd", "_origin", "number")

    def __init__(self, temporary: str, uid: int, pid: int) -> None:
        """Make the message's file; its inode's number becomes the message's number.

        In a queue that was copied, or restored from a backup, messages have numbers that
        are not those of their inodes: a new file's number may be taken already. Then the
        file is kept open until one with a free number is found, as nothing else would
        make the system hand out a different number.

        Args:
            temporary: a unique file name below pid/.
            uid: who queues it.
            pid: its "qp".

        Raises:
            StoreError: 63 or 64.
        """
        self._intd_fd = -1
        self._origin = origin(uid, pid)
        taken: list[int] = []
        try:
            while not self._make(temporary):
                taken.append(self._mess_fd)
                if len(taken) == ATTEMPTS:
                    raise StoreError(errors.NO_MESS, FileExistsError(errno.EEXIST, "all taken"))
        finally:
            for descriptor in taken:
                os.close(descriptor)

    def _make(self, temporary: str) -> bool:
        """Make the file; return False, with the file open, when its number is taken."""
        try:
            self._mess_fd = os.open(temporary, _NEW_FILE, _MODE)
        except OSError as error:
            raise StoreError(errors.NO_PID, error) from error
        try:
            self.number = os.fstat(self._mess_fd).st_ino
            os.link(temporary, layout.mess(self.number))
        except FileExistsError:
            return False
        except OSError as error:
            os.close(self._mess_fd)
            raise StoreError(errors.NO_MESS, error) from error
        finally:
            _unlink(temporary)
        if os.path.lexists(layout.todo(self.number)) or os.path.lexists(layout.intd(self.number)):
            # An envelope whose message is lost. With this one it would go to wrong people.
            _unlink(layout.mess(self.number))
            return False
        return True

    def write_message(self, pieces: Sequence[bytes]) -> None:
        """Append to the message.

        Raises:
            StoreError: 53.
        """
        _write_all(self._mess_fd, pieces)

    def write_envelope(self, pieces: Sequence[bytes]) -> None:
        """Append whole fields to the envelope; the first time after the message's end.

        Raises:
            StoreError: 65 or 53.
        """
        if self._intd_fd < 0:
            try:
                self._intd_fd = os.open(layout.intd(self.number), _NEW_FILE, _MODE)
            except OSError as error:
                raise StoreError(errors.NO_INTD, error) from error
            pieces = [self._origin, *pieces]
        _write_all(self._intd_fd, pieces)

    def descriptors(self) -> tuple[int, int]:
        """Return the descriptors of message and envelope, to be synced."""
        return self._mess_fd, self._intd_fd

    def link(self) -> None:
        """Queue the message: from here on it belongs to qmail-send.

        Raises:
            StoreError: 66.
        """
        try:
            os.link(layout.intd(self.number), layout.todo(self.number))
        except OSError as error:
            raise StoreError(errors.NO_TODO, error) from error

    def discard(self) -> None:
        """Remove the files of a message that is not queued.

        The descriptor is closed last: while it is open no new file gets the number.
        """
        if self._intd_fd >= 0:
            _unlink(layout.intd(self.number))
        _unlink(layout.mess(self.number))
        self.close()

    def close(self) -> None:
        """Close the files."""
        os.close(self._mess_fd)
        if self._intd_fd >= 0:
            os.close(self._intd_fd)


def _write_all(descriptor: int, pieces: Sequence[bytes]) -> None:
    view = memoryview(b"".join(pieces))
    try:
        while view:  # more than once only on a disk that is filling up
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise StoreError(errors.WRITE_ERROR, error) from error


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # what remains is no queued message; qmail-clean removes it


def commit(messages: Sequence[Incoming]) -> list[int]:
    """Queue messages so that they survive a loss of power, waiting for the disk together.

    Returns:
        One status per message, 0 for queued. Files of the others are gone. All files are
        closed.
    """
    statuses = _sync_contents(messages)
    for index, message in enumerate(messages):
        if not statuses[index]:
            try:
                message.link()
            except StoreError as error:
                statuses[index] = error.status
        if statuses[index]:
            message.discard()
        else:
            message.close()  # from here on the files are qmail-send's
    if 0 in statuses:
        try:
            durable.sync_directory("todo")
        except OSError:
            # Perhaps qmail-send has taken them already. Delivered, and sent again by the
            # client: better than taken back under qmail-send's hands.
            return [status or errors.NO_TODO for status in statuses]
    return statuses


def _sync_contents(messages: Sequence[Incoming]) -> list[int]:
    """Sync files and the directories of the message files; return statuses."""
    statuses = [0] * len(messages)
    durable.start_writing(d for message in messages for d in message.descriptors())
    directories: dict[str, list[int]] = {}
    for index, message in enumerate(messages):
        try:
            for descriptor in message.descriptors():
                os.fsync(descriptor)
        except OSError:
            statuses[index] = errors.WRITE_ERROR
        else:
            name = os.path.dirname(layout.mess(message.number))
            directories.setdefault(name, []).append(index)
    for name, indexes in directories.items():
        try:
            durable.sync_directory(name)
        except OSError:
            for index in indexes:
                statuses[index] = errors.WRITE_ERROR
    return statuses


def remove_lost_envelopes() -> None:
    """Remove each intd/N without a mess/N. To be called before anything is queued.

    mess/N is made first and removed last, so no crash of a program leaves this, but a
    loss of power may.

    Raises:
        OSError: intd/ cannot be read.
    """
    for name in os.listdir("intd"):
        if name.isdigit() and not os.path.lexists(layout.mess(int(name))):
            _unlink(layout.intd(int(name)))


def pull_trigger() -> None:
    """Wake qmail-send, if it is there: one byte into its named pipe (INTERNALS, 7).

    The pipe is opened each time: while somebody held it open, bytes that nobody reads
    would stay in it and qmail-send would never sleep.
    """
    try:
        descriptor = os.open(layout.TRIGGER, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(descriptor, b"\0")
    except OSError:
        pass  # full: it has been woken often enough
    finally:
        os.close(descriptor)
