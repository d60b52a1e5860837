"""P's side of the broker: start it, ask it, and judge what came of an attempt."""

import os
import select
import socket
from collections.abc import Callable

from acceptutils.authup import broker, record, replies
from acceptutils.authup.record import BadRecord, Ended, Request, Started
from acceptutils.authup.replies import Failure, Fatal
from ucspi import chain

# Exit statuses of fixsmtpio that mean something to authup.
FIXSMTPIO_TIMEOUT = 16
FIXSMTPIO_CONTROLS = 18
FAILED_FOR_NOW = 111
NOT_RUN = (chain.EXIT_NOT_EXECUTABLE, chain.EXIT_NOT_FOUND)


def judge(ended: Ended) -> Failure | int:
    """Return what to tell the client; a number: nothing, the session ended with that.

    1, 2 and 111 are checkpassword's refusals only while nobody has become the user.
    After that the password was right and must not be called wrong: 1 and 2 are the
    session's own, and 111 says that it could not begin (no home, no program). 126 and
    127, with nobody become the user, say that checkpassword itself could not be run.
    """
    if ended.code < 0:
        return replies.CRASH
    if ended.code == FIXSMTPIO_TIMEOUT:
        return replies.TIMEOUT
    if ended.code == FIXSMTPIO_CONTROLS:
        return replies.CONTROL
    if ended.code in broker.REFUSALS and not ended.became_user:
        return replies.BAD_AUTH
    if ended.code == FAILED_FOR_NOW:
        return replies.CRASH
    if ended.code in NOT_RUN and not ended.became_user:
        return replies.FORK
    return ended.code


class Broker:
    """The broker, as P sees it."""

    def __init__(self, channel: socket.socket, pid: int, began_as: int) -> None:
        self._channel = channel
        self._pid = pid
        self._began_as = began_as
        self.gone = False  # it has ended, or it is another program by now

    @classmethod
    def start(cls, argv: list[str], env: dict[str, str], tries: int) -> "Broker":
        """Fork the broker; see broker.serve for the arguments.

        Raises:
            Fatal: it cannot be made.
        """
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise Fatal(replies.PIPE) from error
        try:
            pid = os.fork()
        except OSError as error:
            raise Fatal(replies.FORK) from error
        if pid == 0:
            try:
                ours.close()
                broker.serve(theirs, argv, env, tries)
            finally:
                os._exit(0)
        theirs.close()
        return cls(ours, pid, os.getuid())

    def attempt(self, request: Request, started: Callable[[int], None]) -> Ended:
        """Have checkpassword run, and wait until it, or the whole session, has ended.

        There is no time limit: from here on the session's own programs watch the client.

        Args:
            request: who; the password is wiped when it is sent.
            started: called with the id of the process that runs checkpassword.

        Raises:
            Fatal: the broker cannot be asked.
        """
        asked = record.pack(request)
        try:
            socket.send_fds(self._channel, [asked], [0, 1])
        except ConnectionError as error:
            raise Fatal(replies.CRASH) from error
        except OSError as error:
            raise Fatal(replies.WRITE) from error
        finally:
            record.wipe(asked)
            request.credentials.password.wipe()
        return self._await_end(started)

    def _await_end(self, started: Callable[[int], None]) -> Ended:
        try:
            process = os.pidfd_open(self._pid)
        except OSError as error:
            raise Fatal(replies.WAIT) from error
        # Both are watched: a process that the session left behind may hold the channel
        # open for longer than the session lasts.
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(process, select.POLLIN)
        try:
            while True:
                ready = [descriptor for descriptor, _ in poll.poll()]
                if self._channel.fileno() in ready:
                    message = self._receive()
                    if isinstance(message, Ended):
                        return message
                    if isinstance(message, Started):
                        started(message.pid)
                        continue
                    poll.unregister(self._channel)
                if process in ready:
                    return self._reap()
        finally:
            os.close(process)

    def _receive(self) -> Started | Ended | None:
        try:
            data = self._channel.recv(record.REPLY_SIZE + 1)
            return record.unpack_reply(data) if data else None
        except ConnectionError:
            return None
        except (OSError, BadRecord) as error:
            raise Fatal(replies.READ) from error

    def _reap(self) -> Ended:
        self.gone = True
        try:
            return broker.wait_for(self._pid, self._began_as)
        except OSError as error:
            raise Fatal(replies.WAIT) from error

    def fileno(self) -> int:
        """Return the descriptor that leads to the broker."""
        return self._channel.fileno()

    def close(self) -> None:
        """Let the broker end, and wait for that: no connection leaves a root process."""
        self._channel.close()
        if not self.gone:
            self.gone = True
            try:
                os.waitpid(self._pid, 0)
            except OSError:
                pass
