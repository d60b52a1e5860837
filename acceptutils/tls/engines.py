"""The zygote's loop: an engine for each request, in a process forked for it or kept.

An engine's process serves one connection, or, where the settings allow more `uses`, one
after the other. A kept one is joined to the zygote by a socket: a request comes over it
as it came to the zygote, one byte goes back when the connection has ended.
"""

import _socket
import gc
import os
import select
import socket
from typing import NoReturn

from acceptutils.tls import engine, request
from acceptutils.tls.context import Contexts
from acceptutils.tls.request import Ends
from acceptutils.tls.settings import Settings
from ucspi import chain, log

MOST_IDLE = 16
DONE = b"."


class Engines:
    """All engines of one zygote."""

    def __init__(
        self, channel: socket.socket, contexts: Contexts, settings: Settings, name: str
    ) -> None:
        """Prepare; the zygote has given up root and read all it needs.

        Args:
            channel: where requests come from.
            contexts: certificates and keys, loaded.
            settings: for every engine.
            name: the program's name, for log lines.
        """
        self._channel = channel
        self._contexts = contexts
        self._settings = settings
        self._name = name
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)
        self._kept: dict[int, _socket.socket] = {}  # of engines that may serve again
        self._idle: list[_socket.socket] = []

    def run(self) -> int:
        """Serve until nobody is left who could ask; return the exit status."""
        asking = self._channel.fileno()
        while True:
            if self._kept:
                # What engines have to say first: one of them may be free for what is asked.
                ready = [number for number, _ in self._poll.poll()]
                for number in ready:
                    if number != asking:
                        self._hear(number)
                if asking not in ready:
                    continue
            asked = request.receive(self._channel)
            if asked is None:
                return 0
            ends, facts = asked
            if not self._reuse(ends, facts):
                self._fork(ends, facts)
            for descriptor in ends:
                os.close(descriptor)

    def _hear(self, number: int) -> None:
        channel = self._kept[number]
        try:
            word = channel.recv(1, _socket.MSG_DONTWAIT)
        except OSError:
            word = b""
        if word and len(self._idle) < MOST_IDLE:
            self._idle.append(channel)
        else:
            self._forget(channel)

    def _forget(self, channel: _socket.socket) -> None:
        """Let an engine end, once its connection has."""
        self._poll.unregister(channel)
        del self._kept[channel.fileno()]
        if channel in self._idle:
            self._idle.remove(channel)
        channel.close()

    def _reuse(self, ends: Ends, facts: dict[str, str]) -> bool:
        while self._idle:
            channel = self._idle.pop()
            try:
                request.send(channel, ends, facts)
                return True
            except OSError:
                self._forget(channel)
        return False

    def _fork(self, ends: Ends, facts: dict[str, str]) -> None:
        ours = theirs = None
        try:
            if self._settings.uses > 1:
                ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
            pid = os.fork()
        except OSError as error:
            log.event(facts, f"{self._name}: TLS zygote: unable to fork: {error.strerror}")
            return
        if pid == 0:
            self._be_engine(ends, facts, theirs)
        if ours is not None and theirs is not None:
            theirs.close()
            self._kept[ours.fileno()] = ours
            self._poll.register(ours, select.POLLIN)

    def _be_engine(
        self, ends: Ends, facts: dict[str, str], channel: _socket.socket | None
    ) -> NoReturn:
        """Serve one connection, then others as they come; end the process."""
        status = engine.BROKEN
        try:
            if channel is None:
                self._channel.close()
                os._exit(self._serve(ends, facts))
            chain.close_all_but({0, 1, 2, channel.fileno(), *ends})
            gc.enable()
            for _ in range(self._settings.uses - 1):
                status = self._serve(ends, facts)
                chain.close_all_but({0, 1, 2, channel.fileno()})
                channel.send(DONE, _socket.MSG_NOSIGNAL)
                asked = request.receive(channel)
                if asked is None:
                    os._exit(status)
                ends, facts = asked
            status = self._serve(ends, facts)
        except BaseException as error:
            log.event(facts, f"{self._name}: TLS: {type(error).__name__}: {error}")
        finally:
            os._exit(status)

    def _serve(self, ends: Ends, facts: dict[str, str]) -> int:
        command = engine.await_command(ends.control)
        if not command:
            return engine.ENDED
        if command not in engine.COMMANDS:
            log.event(facts, f"{self._name}: TLS: unknown command on the control descriptor")
            return engine.MISUSED
        self._contexts.server_name = None
        return engine.serve(
            ends,
            self._contexts,
            self._settings,
            command,
            lambda text: log.event(facts, f"{self._name}: {text}"),
        )
