"""The server: a child process between two pipes."""

import os
import signal

from acceptutils.fixsmtpio.client import CHUNK, Client
from acceptutils.fixsmtpio.proxy import FROM_SERVER, FULL, TO_SERVER, Proxy
from acceptutils.fixsmtpio.session import Session
from ucspi import warm

# Longer than any server needs that has been told to end; a hung one is not waited for.
END_SECONDS = 10.0
TERM_SECONDS = 2.0

# Our status when the server had to be ended by force: it has none of its own to pass on.
EXIT_STOPPED = 100


class Server:
    """A running server: `input` is written to it (never blocking), `output` read from it."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        """Start argv as a child with a pipe each on its descriptors 0 and 1.

        Pipes and not sockets: servers that may also run under inetd ask what they have.

        Raises:
            OSError: no process or no pipe to be had.
        """
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        # Only this end: blocking is a property of the open file description.
        os.set_blocking(ours_out, False)
        self._child = warm.spawn(argv, env, {0: theirs_in, 1: theirs_out})
        self.pid = self._child.pid
        os.close(theirs_in)
        os.close(theirs_out)
        self.input = ours_out
        self.output = ours_in
        self._status: int | None = None

    def close_input(self) -> None:
        """Let the server see the end of file; more than once is no more than once."""
        if self.input >= 0:
            os.close(self.input)
            self.input = -1

    def close_output(self) -> None:
        """Read nothing more from the server."""
        if self.output >= 0:
            os.close(self.output)
            self.output = -1

    def end(self, *, at_once: bool = False) -> int:
        """End the server and return its exit status, negative for the signal it died of.

        Args:
            at_once: it has nothing left to do, so it need not be waited for. (One that is
                kept for another session comes to its end by itself, and soon.)
        """
        self.close_input()
        self.close_output()
        if self._status is None:
            self._status = self._wait(0.0 if at_once and self._child.is_for_once else END_SECONDS)
        for number, seconds in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, TERM_SECONDS)):
            if self._status is not None:
                break
            self._child.kill(number)
            if self._wait(seconds) is not None:
                self._status = EXIT_STOPPED
        return EXIT_STOPPED if self._status is None else self._status

    def _wait(self, seconds: float) -> int | None:
        """Wait for the server's end, at most so long; None when it still runs."""
        try:
            return self._child.wait(seconds)
        except ChildProcessError:
            return EXIT_STOPPED  # somebody else has reaped it: there is no status to be had


class PipedProxy(Proxy):
    """With a server that is a process behind two pipes."""

    def __init__(self, session: Session, client: Client, server: Server, timeout: float) -> None:
        super().__init__(session, client, timeout)
        self._server = server

    @property
    def server_has_ended(self) -> bool:
        """Say whether nothing more comes from the server."""
        return self._server.output < 0

    def exchange(self) -> bool:
        """Write to the server what its pipe takes: `_wait` sees to the rest."""
        session, to_server = self._session, self._to_server
        to_server.take(session.to_server)
        if to_server.size:
            self._write_server()
        if session.server_input_ended and not to_server.size:
            self._forget(self._server.input)
            self._server.close_input()
        return False

    def server_interests(self) -> int:
        """Return what there is to wait for on the server's side."""
        server = self._server
        wanted = 0
        if server.output >= 0 and self._to_client.size < FULL and not self._session.outcome:
            wanted = FROM_SERVER
        if self._to_server.size and server.input >= 0:
            wanted |= TO_SERVER
        return wanted

    def server_descriptors(self) -> tuple[int, int]:
        """Return the descriptors of TO_SERVER and FROM_SERVER."""
        return self._server.input, self._server.output

    def server_moves(self, descriptor: int) -> None:
        """Read from the server, or write to it."""
        if descriptor == self._server.output:
            self._read_server()
        elif descriptor == self._server.input:
            self._write_server()

    def drop_server(self) -> None:
        """Hear nothing more from the server."""
        self._forget(self._server.output)
        self._server.close_output()

    def _read_server(self) -> None:
        try:
            data = os.read(self._server.output, CHUNK)
        except OSError:
            data = b""
        if data:
            self._session.server(data)
        else:
            self.drop_server()
            self._session.server_end()

    def _write_server(self) -> None:
        try:
            self._to_server.written(os.write(self._server.input, self._to_server.waiting()))
        except BlockingIOError:
            pass
        except OSError:
            # It reads no more; what it has written may still hold its last reply.
            self._to_server.drop()
