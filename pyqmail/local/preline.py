"""preline: in a .qmail file, give a program the message with its lines in front (preline(1)).

    |preline [ -frd ] command [ arg ... ]

The command reads UFLINE, RPLINE, DTLINE, and then the message; -f, -r and -d leave these
lines out.
"""

import os

from pyqmail.local.forward import say
from pyqmail.maildir import write_all
from ucspi import chain

MESSAGE = 0  # the descriptor
CHUNK = 65536
NOT_RUN = (chain.EXIT_NOT_FOUND, chain.EXIT_NOT_EXECUTABLE)
USAGE = "preline: usage: preline cmd [ arg ... ]"
LINES = {"f": "UFLINE", "r": "RPLINE", "d": "DTLINE"}  # option letter -> variable, in order


def main(argv: list[str], env: dict[str, str]) -> int:
    """Run the command and return its exit status.

    Returns:
        Also 100 for wrong usage, when not run from a .qmail file, or when there is no such
        command; 111 the command crashed or could not be run for now.
    """
    command = argv[1:]
    wanted = dict.fromkeys(LINES, True)
    while command and command[0].startswith("-") and len(command[0]) > 1:
        word = command.pop(0)
        if word == "--":
            break
        for letter in word[1:]:
            if letter.lower() not in LINES:
                return say(100, USAGE)
            wanted[letter.lower()] = letter.isupper()  # -F, -R, -D put a line back in
    if not command or any(name not in env for name in LINES.values()):
        return say(100, USAGE)
    heading = "".join(env[name] for letter, name in LINES.items() if wanted[letter])
    try:
        return _feed(os.fsencode(heading), command, env)
    except OSError as error:
        return say(111, f"preline: fatal: {error.strerror}")


def _feed(heading: bytes, command: list[str], env: dict[str, str]) -> int:
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        _become(command, env, reading, writing)
    os.close(reading)
    try:
        write_all(writing, heading)
        while chunk := os.read(MESSAGE, CHUNK):
            write_all(writing, chunk)
    except BrokenPipeError:
        pass  # it has read what it wanted; its exit status counts
    finally:
        os.close(writing)
        _, wait_status = os.waitpid(pid, 0)
    status = os.waitstatus_to_exitcode(wait_status)
    return say(111, "preline: fatal: child crashed") if status < 0 else status


def _become(command: list[str], env: dict[str, str], reading: int, writing: int) -> None:
    """Run the command in this process, which was just forked, and end it."""
    status = 111
    try:
        os.close(writing)
        chain.place({0: reading})
        status = chain.run(command, env)
        if status in NOT_RUN:
            status = 100  # it will not be there at the next attempt, either
    except BaseException as error:
        say(111, f"preline: fatal: {command[0]}: {type(error).__name__}: {error}")
    finally:
        os._exit(status & 255)
