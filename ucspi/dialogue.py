"""A server's conversation as a generator, so that it needs no process of its own.

A program that talks on descriptors 0 and 1 spends most of its time on being woken up. One
that another program runs between itself and the client (fixsmtpio's server, say) can be
held in that program's process instead: its module offers, beside ``main``, a function
``dialogue(argv, env)`` that returns a generator. It yields a `Wait` each time it has
something to say or needs to hear something, is sent the bytes that have come, and has
the exceptions below thrown in when none will. It returns an `Ending`.
"""

import time
from collections.abc import Generator
from typing import NamedTuple, TypeAlias

from ucspi import chain


class DialogueError(Exception):
    """The conversation cannot go on."""


class ConnectionEnded(DialogueError):
    """The other side is gone: end of file, reset, or a broken pipe."""


class TimedOut(DialogueError):
    """The other side did not send, or did not read, for as long as it may."""


class LineTooLong(DialogueError):
    """A command line is longer than the program allows."""


class Wait(NamedTuple):
    """What a dialogue wants done before it goes on."""

    output: bytes  # to be written
    deadline: float | None  # of what is then to be read, in monotonic seconds; None: nothing


class Ending(NamedTuple):
    """How a dialogue came to its end."""

    status: int
    last_words: bytes = b""
    client_sends_on: bool = False  # it may have more to say, that nobody hears


Dialogue: TypeAlias = Generator[Wait, bytes, Ending]
Step: TypeAlias = Generator[Wait, bytes, bytes]

OUTPUT_LIMIT = 65536  # bytes of replies kept at most, whatever the client pipelines


class Talk:
    """The buffers of one dialogue.

    Replies are collected until more input is needed, so a pipelining client costs one
    write per read.

    Args:
        timeout: seconds that one wait may take, and that one command line may take
            from its first wait to its end.
    """

    __slots__ = ("_input", "_kept", "_output", "_start", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._input = b""
        self._start = 0  # what lies before it in _input is used up
        self._output: list[bytes] = []
        self._kept = 0  # bytes in _output

    def say(self, data: bytes) -> None:
        """Keep data until input is needed."""
        self._output.append(data)
        self._kept += len(data)

    @property
    def is_full(self) -> bool:
        """Say whether `flush` should be called before more is said."""
        return self._kept >= OUTPUT_LIMIT

    def said(self) -> bytes:
        """Return what has been kept, and keep it no more."""
        if not self._output:
            return b""
        data = self._output[0] if len(self._output) == 1 else b"".join(self._output)
        self._output.clear()
        self._kept = 0
        return data

    def flush(self) -> Generator[Wait, bytes, None]:
        """Have what was said written, and read nothing."""
        yield Wait(self.said(), None)

    def line(self, limit: int) -> Step:
        """Return the next line without its LF and a CR before it.

        Raises:
            LineTooLong: no LF among the first limit bytes.
            ConnectionEnded, TimedOut: instead of a line; a partial one is dropped.
        """
        deadline = None
        while True:
            end = self._input.find(b"\n", self._start, self._start + limit)
            if end >= 0:
                line = self._input[self._start : end]
                self._start = end + 1
                return line[:-1] if line.endswith(b"\r") else line
            if len(self._input) - self._start >= limit:
                raise LineTooLong
            if deadline is None:
                deadline = time.monotonic() + self.timeout
            data = yield Wait(self.said(), deadline)
            self._input = self._input[self._start :] + data
            self._start = 0

    def chunk(self) -> Step:
        """Return what has come and is not used, or else what comes next.

        Raises:
            ConnectionEnded, TimedOut: nothing comes.
        """
        if self._start < len(self._input):
            chunk = self._input[self._start :]
            self._input = b""
            self._start = 0
            return chunk
        data = yield Wait(self.said(), time.monotonic() + self.timeout)
        return data

    def unread(self, rest: bytes) -> None:
        """Put back the part of the last chunk that was not used."""
        self._input = rest + self._input[self._start :]
        self._start = 0


def is_held(argv: list[str]) -> bool:
    """Say whether the program argv[0] can be held in another's process."""
    name = chain.program_name(argv[0])
    return name is not None and hasattr(chain.module_of(name), "dialogue")


def of(argv: list[str], env: dict[str, str]) -> Dialogue | None:
    """Return the dialogue of the program argv[0]; None when it has to be a process."""
    name = chain.program_name(argv[0])
    if name is None:
        return None
    make = getattr(chain.module_of(name), "dialogue", None)
    if make is None:
        return None
    dialogue: Dialogue = make(argv, env)
    return dialogue
