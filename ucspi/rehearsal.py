"""Rehearsals: programs run for nobody, before the processes that will run them are forked.

The interpreter adapts code to what it is used for, the first times that it runs (PEP 659),
and writes what it has learned into that code, and into the types that it met. In a process
that is forked for one session everything is run for the first time: it would learn all that
anew, slowly, in pages that it has to copy first. A server that has rehearsed hands on what
there is to learn.

A program's module may offer ``rehearse(argv, env)``, beside ``main``: it does what a session
does, with words of its own in place of a client's, and leaves nothing behind. It runs as who
the server is, root perhaps: it may not change identity, and queues and deletes nothing.
"""

import os
import socket

from ucspi import chain, log

# Most code is adapted when it runs for the second time, and some then once more.
ROUNDS = 3


class Stage:
    """Descriptors 0, 1 and 2 for a rehearsal, and the working directory.

    On 0 and 1 there is a client that has said all its words and hung up, and whose replies
    nobody reads; on 2 a log that nobody reads. Afterwards all is as it was before.
    """

    def __init__(self, words: bytes) -> None:
        """Prepare; words must fit into a socket's buffer."""
        self._words = words
        self._kept: list[int] = []
        self._here = -1
        self._client: socket.socket | None = None

    def __enter__(self) -> None:
        self._here = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._kept = [os.dup(standard) for standard in (0, 1, 2)]
        self._client, ours = socket.socketpair()
        self._client.sendall(self._words)
        self._client.shutdown(socket.SHUT_WR)
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        for standard, other in enumerate((ours.fileno(), ours.fileno(), null)):
            os.dup2(other, standard)
        os.close(null)
        ours.close()

    def __exit__(self, *_: object) -> None:
        for standard, kept in enumerate(self._kept):
            os.dup2(kept, standard)
            os.close(kept)
        os.fchdir(self._here)
        os.close(self._here)
        if self._client is not None:
            self._client.close()


def run(argv: list[str], env: dict[str, str]) -> None:
    """Rehearse every program of a command line that can be; all of them are loaded.

    One that fails has no consequence but a line in the log: sessions only cost more.

    Args:
        argv: the command line; each program gets the part from its own name on.
        env: the environment of a session; each program gets a copy.
    """
    for position, word in enumerate(argv):
        name = chain.program_name(word)
        rehearse = getattr(chain.module_of(name), "rehearse", None) if name else None
        if rehearse is None:
            continue
        try:
            for _ in range(ROUNDS):
                rehearse(argv[position:], dict(env))
        except Exception as error:
            log.event({}, f"{name}: rehearsal: {type(error).__name__}: {error}")
