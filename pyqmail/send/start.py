"""qmail-start: starts the four programs that deliver mail, each under its own user.

    qmail-lspawn   root, because it becomes the recipient of each local delivery
    qmail-rspawn   qmailr
    qmail-clean    qmailq
    qmail-send     qmails, in this process
    the logger     qmaill, when there is one on the command line

Everything is loaded once, then forked; where qmail-lspawn and the others are foreign
programs (netqmail's own), they are executed instead.
"""

import os
from typing import NamedTuple, NoReturn

from pyqmail.queue import ids
from pyqmail.queue.ids import Ids
from ucspi import chain, control, log

# Loaded before the forks. Not qmail-rspawn: TLS and the resolver, which it brings, would
# make each fork of qmail-lspawn dearer.
PROGRAMS = ["qmail-send", "qmail-lspawn", "qmail-clean"]
NOTIFY = 7  # where qmail-send finds the descriptor for s6
DIRECTORY = "bin"  # of the programs, in the qmail home, when they are not ours


class Companion(NamedTuple):
    """A program that qmail-send talks to over two pipes."""

    argv: list[str]
    uid: int
    gid: int


class Pipes(NamedTuple):
    """Descriptors of both pipes, ours and the companion's."""

    our_write: int
    our_read: int
    their_read: int
    their_write: int


def companions(alias_empty: str, users: Ids) -> list[Companion]:
    """Return whom qmail-send works with, in the order of its descriptors."""
    return [
        Companion(["qmail-lspawn", alias_empty], 0, users.group),
        Companion(["qmail-rspawn"], users.qmailr, users.group),
        Companion(["qmail-clean"], users.qmailq, users.group),
    ]


def _pipes() -> Pipes:
    their_read, our_write = os.pipe()
    our_read, their_write = os.pipe()
    return Pipes(our_write, our_read, their_read, their_write)


def _run(argv: list[str], env: dict[str, str]) -> int:
    """Run one of the four: ours in process, else the one in the home's bin directory."""
    if chain.program_name(argv[0]) is not None:
        return chain.run(argv, env)
    home = env.get("QMAIL_HOME", control.QMAIL_HOME)
    return chain.execute([os.path.join(home, DIRECTORY, argv[0]), *argv[1:]], env)


def _become_companion(who: Companion, pipes: Pipes, env: dict[str, str]) -> NoReturn:
    """In a forked child: take the descriptors and the user, and be the program."""
    status = 111
    try:
        keep_only({0: pipes.their_read, 1: pipes.their_write, 2: 2})
        chain.load(who.argv[:1])
        ids.become(who.uid, who.gid)
        status = _run(who.argv, env)
    except BaseException as error:
        log.event(env, f"{who.argv[0]}: {type(error).__name__}: {error}")
    finally:
        os._exit(status & 255)


def keep_only(mapping: dict[int, int]) -> None:
    """Put descriptors where mapping (new -> present) wants them, and close all others."""
    chain.place(mapping)
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in mapping:
            try:
                os.close(int(name))
            except OSError:
                pass  # the one that listed the directory


def _start_logger(argv: list[str], users: Ids, env: dict[str, str]) -> int:
    """Start the logger with a pipe on its descriptor 0; return the other end."""
    read, write = os.pipe()
    if os.fork():
        os.close(read)
        return write
    status = 111
    try:
        keep_only({0: read, 1: 1, 2: 2})
        ids.become(users.qmaill, users.nofiles)
        status = chain.run(argv, env)
    except BaseException as error:
        log.event(env, f"{argv[0]}: {type(error).__name__}: {error}")
    finally:
        os._exit(status & 255)


def _arguments(argv: list[str]) -> tuple[int, list[str]]:
    """Return the notification descriptor or -1, and the other arguments.

    Raises:
        ValueError: wrong usage.
    """
    if argv[1:2] == ["-n"]:
        if len(argv) < 3 or not argv[2].isdigit():
            raise ValueError
        return int(argv[2]), argv[3:]
    return -1, argv[1:]


def main(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-start [-n NOTIFYFD] [DEFAULTDELIVERY [LOGGER ...]]`` (qmail-start(8)).

    Args:
        argv: DEFAULTDELIVERY is qmail-lspawn's argument, ``./Mailbox`` when not given. With
            a LOGGER, log lines go into its descriptor 0, else to our descriptor 1.
        env: ``QMAIL_HOME``; the rest goes to the programs.

    Returns:
        qmail-send's exit status; 100 on wrong usage, 111 when something cannot be started.
    """
    try:
        notify, rest = _arguments(argv)
    except ValueError:
        log.event(env, f"usage: {argv[0]} [-n fd] [default delivery [logger ...]]")
        return 100
    users = ids.lookup()
    chain.load(PROGRAMS)
    try:
        os.chdir("/")
        os.umask(0o077)
        log_descriptor = _start_logger(rest[1:], users, env) if rest[1:] else os.dup(1)
        descriptors = {0: log_descriptor}
        for number, who in enumerate(companions(rest[0] if rest else "./Mailbox", users)):
            pipes = _pipes()
            if not os.fork():
                _become_companion(who, pipes, env)
            os.close(pipes.their_read)
            os.close(pipes.their_write)
            descriptors[2 * number + 1] = pipes.our_write
            descriptors[2 * number + 2] = pipes.our_read
        if notify >= 0:
            descriptors[NOTIFY] = notify
        keep_only(descriptors)
        ids.become(users.qmails, users.group)
    except OSError as error:
        log.event(env, f"{argv[0]}: cannot start: {error}")
        return 111
    return _run(["qmail-send", *(["-n", str(NOTIFY)] if notify >= 0 else [])], env)
