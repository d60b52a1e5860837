"""Recipients that are refused in the SMTP conversation.

Two ways: the programs listed in control/rcptchecks (the interface of rejectutils), and
a question to whoever knows the mailboxes of this host, over a socket.
"""

import os
import select
import socket

from pyqmail.smtp.reply import Reply, reply
from ucspi import chain, control, log

SOCKET = "/run/qmail/recipient.sock"
SOCKET_SECONDS = 30.0
REALRCPTTO = "qmail-rcptcheck-realrcptto"

NO_MAILBOX = reply(550, b"sorry, no mailbox here by that name. (#5.1.1)")
CANNOT_CHECK = reply(451, b"unable to check that recipient now (#4.3.0)")

# Exit statuses of a program in rcptchecks; any other lets the recipient pass.
REJECT, DEFER, FAILED = 100, 111, 120
PROGRAM_VERDICTS = {
    REJECT: NO_MAILBOX,
    DEFER: CANNOT_CHECK,
    FAILED: CANNOT_CHECK,
    chain.EXIT_NOT_EXECUTABLE: CANNOT_CHECK,
    chain.EXIT_NOT_FOUND: CANNOT_CHECK,
}
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
        env = dict(self._env, SENDER=os.fsdecode(sender), RECIPIENT=os.fsdecode(recipient))
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Descriptor 1 is the client: what a check has to say goes to the log.
            pid = chain.spawn(program, env, {0: null, 1: log.STDERR})
            _, status = os.waitpid(pid, 0)
        except OSError as error:
            log.event(self._env, f"qmail-smtpd: unable to run {program[0]}: {error.strerror}")
            return CANNOT_CHECK
        finally:
            os.close(null)
        if os.WIFSIGNALED(status):
            return CANNOT_CHECK
        return PROGRAM_VERDICTS.get(os.waitstatus_to_exitcode(status))

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
    empty string it switches the question off.

    Raises:
        ControlError: control/rcptchecks cannot be read.
    """
    commands = [os.fsdecode(line).split() for line in control.read_lines("rcptchecks") or ()]
    programs = [words for words in commands if os.path.basename(words[0]) != REALRCPTTO]
    return RecipientChecks(programs, env, env.get("QMAIL_RECIPIENT_SOCKET", SOCKET))
