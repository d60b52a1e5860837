"""Check a recipient in two ways: by programs, and by asking who knows the mailboxes.

The programs are listed in control/rcptchecks; the question goes over a socket, which a
process beside qmail-lspawn answers.
"""

import os
import select
import socket

from pyqmail.smtp.reply import Reply, reply
from ucspi import chain, control, log

SOCKET = "/run/qmail/recipient.sock"
SOCKET_SECONDS = 30.0
REALRCPTTO = "qmail-rcptcheck-realrcptto"
RCPTCHECK = "qmail-rcptcheck"

NO_MAILBOX = reply(550, b"sorry, no mailbox here by that name. (#5.1.1)")
CANNOT_CHECK = reply(451, b"unable to check that recipient now (#4.3.0)")

# Exit statuses of a program in rcptchecks; any other lets the recipient pass.
PASS, REJECT, DEFER, FAILED = 0, 100, 111, 120
PROGRAM_VERDICTS = {REJECT: NO_MAILBOX, DEFER: CANNOT_CHECK, FAILED: CANNOT_CHECK}
NOT_RUN = (chain.EXIT_NOT_EXECUTABLE, chain.EXIT_NOT_FOUND)
SOCKET_VERDICTS: dict[bytes, Reply | None] = {b"1": None, b"0": NO_MAILBOX}


class RecipientChecks:
    """All checks of one session.

    Args:
        programs: command lines of control/rcptchecks, in order; the first refusal counts.
        env: their environment, to which SENDER and RECIPIENT are added.
        path: the socket that knows this host's mailboxes.
    """

    def __init__(self, programs: list[list[str]], env: dict[str, str], path: str) -> None:
        self._programs = programs
        self._env = env
        self._path = path
        self._socket: socket.socket | None = None

    def __call__(self, sender: bytes, recipient: bytes) -> Reply | None:
        """Return why this recipient is refused, or None."""
        for program in self._programs:
            if refusal := self._run(program, sender, recipient):
                return refusal
        return self._ask(recipient)

    def _run(self, program: list[str], sender: bytes, recipient: bytes) -> Reply | None:
        return PROGRAM_VERDICTS.get(run_program(program, self._env, sender, recipient))

    def _ask(self, recipient: bytes) -> Reply | None:
        """Ask the socket; where there is none, every recipient passes, as in netqmail."""
        if not self._path:
            return None
        for _ in range(2):  # a connection kept since the last RCPT may have gone stale
            fresh = self._socket is None
            try:
                if self._socket is None:
                    self._socket = _connect(self._path)
                answer = _exchange(self._socket, recipient)
            except FileNotFoundError:
                return None
            except OSError:
                answer = b""
            if answer:
                return SOCKET_VERDICTS.get(answer, CANNOT_CHECK)
            self._close()
            if fresh:
                break
        return CANNOT_CHECK

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def run_program(command: list[str], env: dict[str, str], sender: bytes, recipient: bytes) -> int:
    """Return what a program says of a recipient: PASS, REJECT, DEFER, or FAILED."""
    env = dict(env, SENDER=os.fsdecode(sender), RECIPIENT=os.fsdecode(recipient))
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Descriptor 1 is the client: what a check has to say goes to the log.
        pid = chain.spawn(command, env, {0: null, 1: log.STDERR})
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except OSError as error:
        log.event(env, f"unable to run {command[0]}: {error.strerror}")
        return FAILED
    finally:
        os.close(null)
    if code < 0 or code in NOT_RUN:
        return FAILED
    return code if code in PROGRAM_VERDICTS else PASS


def listed_programs() -> list[list[str]]:
    """Return the command lines of control/rcptchecks, split at blanks.

    Raises:
        ControlError: it exists and cannot be read.
    """
    lines = control.read_lines("rcptchecks") or ()
    return [os.fsdecode(line).split() for line in lines]


def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def _exchange(connection: socket.socket, recipient: bytes) -> bytes:
    connection.send(recipient, socket.MSG_NOSIGNAL)
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    if not poller.poll(SOCKET_SECONDS * 1000):
        raise TimeoutError
    return connection.recv(16)


def checks_for(env: dict[str, str]) -> RecipientChecks:
    """Return the checks that the control files and the environment ask for.

    The question to the socket is always asked last: naming qmail-rcptcheck-realrcptto in
    rcptchecks adds nothing. ``QMAIL_RECIPIENT_SOCKET`` names another socket; set to the
    empty string it switches the question off. ``RCPTCHECK`` names one more program, which is
    asked first; that it may be qmail-rcptcheck is for servers that do not read rcptchecks.

    Raises:
        ControlError: control/rcptchecks cannot be read.
    """
    programs = [words for words in listed_programs() if os.path.basename(words[0]) != REALRCPTTO]
    one_more = env.get("RCPTCHECK")
    if one_more and os.path.basename(one_more) != RCPTCHECK:
        programs.insert(0, [one_more])
    return RecipientChecks(programs, env, env.get("QMAIL_RECIPIENT_SOCKET", SOCKET))
