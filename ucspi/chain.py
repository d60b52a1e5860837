"""Run the rest of a command line, in this process where that is possible.

Bernstein chaining joins programs by exec. Starting an interpreter for each of them
would cost more than the whole connection, so a program that an installed package
declares as an entry point of the group ``acceptutils.programs`` is called as a
function, ``main(argv, env) -> exit status``, in the process that is there. Any other
program is executed. To the programs there is no difference: descriptors, environment,
arguments and exit status are the interface either way.
"""

import os
import signal
import sys

# The functions of the signal module proper turn every number into an enumeration's member,
# and back: pages to copy after a fork.
from _signal import set_wakeup_fd  # type: ignore[import-not-found]
from _signal import signal as set_handler
from collections.abc import Callable, Set
from typing import NoReturn

from ucspi import entrypoints, log

Main = Callable[[list[str], dict[str, str]], int]

EXIT_TEMPORARY = 111
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
DEFAULT_PATH = "/usr/bin:/bin:/var/qmail/bin"

# Python ignores these two, and ignored signals survive exec; programs that know
# nothing of Python expect to die of them.
RESTORED_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD)

# What a server handles itself, and a program expects to find as it was.
_HANDLED_SIGNALS = tuple(
    map(int, (signal.SIGHUP, signal.SIGINT, signal.SIGALRM, signal.SIGTERM, signal.SIGCHLD))
)
_DEFAULT = 0  # SIG_DFL

# Called with the environment just before a foreign program is executed: what an
# in-process program would make only when needed must then exist (see ucspitls).
before_execute: list[Callable[[dict[str, str]], None]] = []

_targets: dict[str, str] | None = None
_loaded: dict[str, Main] = {}
_names: dict[str, str] = {}  # by path, once they are known to be ours


def _known() -> dict[str, str]:
    global _targets
    if _targets is None:
        _targets = entrypoints.installed()
    return _targets


def program_name(path: str) -> str | None:
    """Return the registered name of the program at path, None for a foreign one.

    A bare name is ours when it is registered. A path is ours only when it leads, through
    links, to the launcher that starts registered programs: a foreign checkpassword
    in /usr/local/bin is never mistaken for ours.
    """
    if path in _names:
        return _names[path]
    name = os.path.basename(path)
    if name not in _known():
        return None
    if "/" in path and os.path.basename(os.path.realpath(path)) != "launch":
        return None
    _names[path] = name
    return name


def load(argv: list[str], env: dict[str, str] | None = None) -> None:
    """Import every registered program named in argv, before any fork.

    With env, a program's module that has a function ``preload(argv, env)`` is also asked
    to read what its processes would each read again (control files, say). It gets the
    rest of the command line from its own name on, and may not fail or change directory.
    """
    for position, word in enumerate(argv):
        if name := program_name(word):
            preload = getattr(module_of(name), "preload", None)
            if env is not None and preload:
                preload(argv[position:], env)


def main_of(name: str) -> Main:
    """Return the function that is the registered program, its module loaded."""
    main = _loaded.get(name)
    if main is None:
        module, _, function = _known()[name].partition(":")
        __import__(module)
        main = _loaded[name] = getattr(sys.modules[module], function)
    return main


def module_of(name: str) -> object:
    """Return the module of a registered program, which may offer more than the program."""
    return sys.modules[main_of(name).__module__]


def run(argv: list[str], env: dict[str, str]) -> int:
    """Become the program argv[0]; return its exit status if it ran in this process.

    Args:
        argv: the rest of the command line; an empty one is the caller's misuse.
        env: the whole environment of the program.

    Returns:
        The exit status. When the program had to be executed there is no return but
        on failure: 127 not found, 126 not executable, 111 anything else.
    """
    if not argv:
        log.event(env, "usage: no program to run")
        return 100
    if name := program_name(argv[0]):
        return main_of(name)(argv, env)
    return execute(argv, env)


def execute(argv: list[str], env: dict[str, str]) -> int:
    """Replace this process by argv[0], looked up in env's PATH; return only on failure."""
    for prepare in before_execute:
        prepare(env)
    for number in RESTORED_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    try:
        _exec(argv, env)
    except FileNotFoundError:
        log.event(env, f"{argv[0]}: not found")
        return EXIT_NOT_FOUND
    except PermissionError:
        log.event(env, f"{argv[0]}: not executable")
        return EXIT_NOT_EXECUTABLE
    except OSError as error:
        log.event(env, f"{argv[0]}: {error.strerror}")
        return EXIT_TEMPORARY


def _exec(argv: list[str], env: dict[str, str]) -> NoReturn:
    program = argv[0]
    if "/" in program:
        os.execve(program, argv, env)
    refused: OSError | None = None
    for directory in env.get("PATH", DEFAULT_PATH).split(":"):
        try:
            os.execve(os.path.join(directory or ".", program), argv, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            refused = error
    raise refused or FileNotFoundError(program)


def spawn(
    argv: list[str],
    env: dict[str, str],
    descriptors: dict[int, int],
    *,
    close_from: int | None = None,
) -> int:
    """Run a program in a child process and return its process id.

    Args:
        argv: the program's command line.
        env: its environment.
        descriptors: child's descriptor -> ours. Descriptors 0, 1 and 2 that are not named
            are inherited; the caller makes every other one close-on-exec.
        close_from: close the child's descriptors from this number on that the mapping
            does not name. A program that runs in process never execs, so without it the
            child keeps the parent's ends of its own pipes and never sees their end of file.

    Raises:
        OSError: the process could not be made.
    """
    pid = os.fork()
    if pid:
        return pid
    status = EXIT_TEMPORARY
    try:
        forget_signals()
        place(descriptors)
        if close_from is not None:
            close_all_but({*range(close_from), *descriptors})
        status = run(argv, env)
    except BaseException as error:
        log.event(env, f"{argv[0]}: {type(error).__name__}: {error}")
    finally:
        os._exit(status & 255)


def forget_signals() -> None:
    """Undo what an event loop has set up in this process, as exec would."""
    set_wakeup_fd(-1)
    for number in _HANDLED_SIGNALS:
        set_handler(number, _DEFAULT)


def close_all_but(wanted: Set[int]) -> None:
    """Close every descriptor that is not wanted, however many may be open."""
    lowest = 0
    for descriptor in sorted(wanted):
        if lowest < descriptor:  # closerange(0, 0) closes everything
            os.closerange(lowest, descriptor)
        lowest = descriptor + 1
    os.closerange(lowest, os.sysconf("SC_OPEN_MAX"))


def place(descriptors: dict[int, int]) -> None:
    """Put each of our descriptors on the number that the mapping wants it on."""
    lowest_free = max([*descriptors, *descriptors.values(), 2]) + 1
    lifted = {
        wanted: _lift(ours, lowest_free) if ours in descriptors and ours != wanted else ours
        for wanted, ours in descriptors.items()
    }
    for wanted, ours in lifted.items():
        if ours == wanted:
            os.set_inheritable(wanted, True)
        else:
            os.dup2(ours, wanted, inheritable=True)
    # Only now: one of ours may have been wanted on two numbers.
    for ours in set(lifted.values()):
        if ours not in descriptors and ours > 2:  # the standard ones stay what they are
            os.close(ours)


def _lift(descriptor: int, lowest: int) -> int:
    import fcntl

    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, lowest)
