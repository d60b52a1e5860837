"""The server: a child process between two pipes."""

import os
import signal

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
