"""qmail-send's end of the two pipes to qmail-lspawn or qmail-rspawn."""

import os

from pyqmail.send.spawnprotocol import Report, ReportReader, Request, encode_request

READ = 65536  # bytes of one read


class SpawnerDied(Exception):
    """The spawner has closed its pipes."""


class Spawner:
    """Requests out, reports in, never waiting for either."""

    __slots__ = ("_out", "_reader", "alive", "read_fd", "write_fd")

    def __init__(self, write_fd: int, read_fd: int) -> None:
        """Send requests to write_fd, read reports from read_fd."""
        self.write_fd = write_fd
        self.read_fd = read_fd
        self.alive = True
        self._out = b""
        self._reader = ReportReader()

    def limit(self) -> int:
        """Wait for the spawner to say how many deliveries it runs at once.

        Raises:
            SpawnerDied: it does not.
        """
        try:
            data = os.read(self.read_fd, 1)
        except OSError as error:
            raise SpawnerDied from error
        self._reader.feed(data)
        if self._reader.limit is None:
            raise SpawnerDied
        # Our ends of the pipes; the spawner's are open file descriptions of their own.
        os.set_blocking(self.write_fd, False)
        os.set_blocking(self.read_fd, False)
        return self._reader.limit

    def send(self, request: Request) -> None:
        """Ask for a delivery.

        Raises:
            SpawnerDied: nobody reads.
        """
        self._out += encode_request(request)
        self.flush()

    @property
    def blocked(self) -> bool:
        """Whether something waits for write_fd to become writable."""
        return bool(self._out)

    def flush(self) -> None:
        """Write what can be written now.

        Raises:
            SpawnerDied: nobody reads.
        """
        try:
            while self._out:
                self._out = self._out[os.write(self.write_fd, self._out) :]
        except BlockingIOError:
            pass
        except OSError as error:
            raise SpawnerDied from error

    def receive(self) -> list[Report]:
        """Return the reports that are complete.

        Raises:
            SpawnerDied: end of file.
        """
        try:
            data = os.read(self.read_fd, READ)
        except BlockingIOError:
            return []
        except OSError as error:
            raise SpawnerDied from error
        if not data:
            raise SpawnerDied
        return self._reader.feed(data)
