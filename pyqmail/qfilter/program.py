"""qmail-qfilter and qmail-qfilter-queue: put filters in front of the queue.

Both have qmail-queue's interface: message on descriptor 0, envelope on 1. A filter reads
the message on its descriptor 0 and writes it, changed, to 1; one that writes nothing leaves
it as it is. On 3 it finds the envelope in qmail-queue's form, and may write another one to
4. Its exit status decides (qmail-qfilter(1)): 0 goes on, 99 accepts the message and drops it,
anything else ends it. In a user's session, the user's own filters come first (see `own`).
"""

import os
import signal
import stat
from collections.abc import Iterable

from pyqmail.qfilter import own
from pyqmail.qfilter.mail import (
    HIDDEN,
    MEMORY_LIMIT,
    NEW_ENVELOPE,
    Failure,
    Files,
    Mail,
    choose_place,
    chunks,
    envelope_fields,
    filter_env,
    receive,
    spool,
    write_all,
)
from pyqmail.queue import client, envelope, errors
from pyqmail.queue import program as queue_program
from ucspi import chain, control, log, warm

DROP = 99
FILTER_SECONDS = 600  # for one filter, as long as a mail client waits (RFC 5321, 4.5.3.2.6)
NAME_LIMIT = 4096  # bytes of a program's path

# What a filter says -> what qmail-queue would say. Other statuses pass as they are: those
# from 11 to 40 refuse the message for good, the rest for now, 82 with the filter's own words.
STATUSES = {
    100: errors.REFUSED,
    111: errors.REFUSED_FOR_NOW,
    115: errors.REFUSED_FOR_NOW,  # netqmail's programs would take it for a permanent one
    chain.EXIT_NOT_EXECUTABLE: errors.NOT_EXECUTED,
    chain.EXIT_NOT_FOUND: errors.NOT_EXECUTED,
}

QUEUE_PROGRAM = 5  # one file for all filters: its content is run in qmail-queue's place
OWN_TEXT = 6  # descriptor for the text of status 82; 4 will do as well


class Dropped(Exception):
    """A filter has accepted the message and wants nothing more done with it."""


# What keeps a message from the queue; see status_of.
TROUBLE = (Dropped, Failure, own.Refused, envelope.EnvelopeError, OSError)


def qmail_qfilter(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-qfilter filter [ -- filter ... ]``; return an exit status of qmail-queue."""
    filters: list[list[str]] = [[]]
    for word in argv[1:]:
        if word == "--":
            filters.append([])
        else:
            filters[-1].append(word)
    if not all(filters):
        log.event(env, "usage: qmail-qfilter filter [ -- filter ... ]")
        return errors.BUG
    return run(filters, env)


def qmail_qfilter_queue(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-qfilter-queue``: the filters are the lines of a file.

    ``QMAILQUEUEFILTERS`` names it, relative to the qmail home; a line is a program and
    its arguments, split at blanks. Without the file nothing is queued, for what it
    lists may be there to keep viruses out.
    """
    env = session_of(env, os.getppid())
    error_text = own_error_descriptor()
    choose_place(env)
    try:
        filters, users = configuration(env)
        if not filters and users is None:
            return queue_program.main(["qmail-queue"], env)
        return pass_through(receive(), filters, users, env, error_text).status
    except TROUBLE as trouble:
        return status_of(trouble, env, error_text)


def session_of(env: dict[str, str], pid: int) -> dict[str, str]:
    """Return env with the process that queues, such as qmail-smtpd, for filters to log."""
    return {**env, "QMAILPPID": str(pid)}


def preload(argv: list[str], env: dict[str, str]) -> None:
    """Load the filters before processes are forked for connections."""
    try:
        path = os.path.join(env.get("QMAIL_HOME", control.QMAIL_HOME), env["QMAILQUEUEFILTERS"])
        for command in read_filters(path):
            chain.load(command, env)
    except (OSError, KeyError):
        pass  # each message looks again


def configuration(env: dict[str, str]) -> tuple[list[list[str]], own.Filters | None]:
    """Return the system's filters and, in a user's session, the user's; enter the qmail home.

    Raises:
        Failure: the list cannot be read.
        Refused: the user's is not one that may be believed.
    """
    try:
        control.enter_home(env)
        filters = read_filters(env.get("QMAILQUEUEFILTERS", ""))
    except (OSError, control.ControlError) as error:
        log.event(env, f"qmail-qfilter-queue: unable to read QMAILQUEUEFILTERS: {error}")
        raise Failure(errors.NO_CONTROL) from error
    return filters, own.find(env)


def read_filters(path: str) -> list[list[str]]:
    """Return the command lines in the file at path.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        lines = control.parse_lines(file.read())
    return [os.fsdecode(line).split() for line in lines if line.strip()]


def run(filters: list[list[str]], env: dict[str, str]) -> int:
    """Pass the message on descriptors 0 and 1 through filters into the queue.

    Returns:
        The exit status of a filter in qmail-queue's terms, or that of queueing.
    """
    env = session_of(env, os.getppid())
    error_text = own_error_descriptor()
    choose_place(env)
    try:
        return pass_through(receive(), filters, None, env, error_text).status
    except TROUBLE as trouble:
        return status_of(trouble, env, error_text)


def pass_through(
    mail: Mail,
    filters: list[list[str]],
    users: own.Filters | None,
    env: dict[str, str],
    error_text: int | None,
) -> errors.Result:
    """Pass mail through a user's filters and the system's into the queue.

    Raises:
        TROUBLE: see there.
    """
    if users is not None:
        mail = apply_own(users, mail, env, error_text)
    queue_program_file = spool(False)
    try:
        for command in filters:
            mail = apply(command, mail, env, error_text, queue_program_file)
        return inject(mail, env, queue_program_file, error_text)
    finally:
        os.close(queue_program_file)
        os.close(mail.message)


def status_of(trouble: Exception, env: dict[str, str], error_text: int | None) -> int:
    """Return the exit status for what kept a message from the queue."""
    if isinstance(trouble, Dropped):
        return errors.QUEUED
    if isinstance(trouble, Failure | envelope.EnvelopeError):
        return trouble.status
    if isinstance(trouble, own.Refused):
        log.event(env, f"qmail-qfilter-queue: {log.printable(trouble.text[1:])}")
        return say(trouble.text, error_text)
    log.event(env, f"qmail-qfilter: {trouble}")
    return errors.WRITE_ERROR


def own_error_descriptor() -> int | None:
    """Return where our caller reads the text of status 82, None if it does not.

    Must come before any file is opened, or one might sit on the number.
    """
    for number in (OWN_TEXT, NEW_ENVELOPE):
        try:
            if stat.S_ISFIFO(os.fstat(number).st_mode):
                return os.dup(number)
        except OSError:
            continue
    return None


def apply(
    command: list[str],
    mail: Mail,
    env: dict[str, str],
    error_text: int | None,
    queue_program_file: int,
) -> Mail:
    """Run one filter of the system's; return what the mail is after it.

    Raises:
        Failure: it refused the message, died or took too long.
        Dropped: see there.
        EnvelopeError: it wrote something that is no envelope.
    """
    with Files(mail) as files:
        descriptors = files.descriptors | {QUEUE_PROGRAM: queue_program_file}
        if error_text is not None:
            descriptors[OWN_TEXT] = error_text
        child = warm.spawn(command, filter_env(env, mail), descriptors)
        status = wait(child, command[0], env)
        if status == errors.CUSTOM:
            pass_on_text(files.new_envelope, error_text)
        if status not in (0, DROP):
            log.event(env, f"qmail-qfilter: {command[0]}: status {status}")
            raise Failure(STATUSES.get(status, status))
        if status == DROP:
            raise Dropped
        return files.after()


def apply_own(users: own.Filters, mail: Mail, env: dict[str, str], error_text: int | None) -> Mail:
    """Run the user's own filters; return what the mail is after them.

    Raises:
        Refused: one of them refused the message, failed, or made it somebody else's.
        Dropped, Failure, EnvelopeError: as for apply.
    """
    original = os.dup(mail.message)
    sender = envelope_fields(mail.envelope)[0]
    try:
        for command in users.commands:
            mail = _apply_own(command, users.home, mail, env, error_text)
        own.check_sender(sender, envelope_fields(mail.envelope)[0], env)
        own.check_author(original, mail.message, env)
        return mail
    finally:
        os.close(original)


def _apply_own(
    command: list[str], home: str, mail: Mail, env: dict[str, str], error_text: int | None
) -> Mail:
    said = spool(False)  # not the log: a user's program could forge lines of it
    try:
        with Files(mail) as files:
            descriptors = files.descriptors | {2: said}
            if error_text is not None:
                descriptors[OWN_TEXT] = error_text
            status = own.run(command, filter_env(env, mail), descriptors, home)
            if status == 0:
                return files.after()
            log.event(env, f"qmail-qfilter-queue: {command[0]}: status {status}")
            if status == DROP:
                raise Dropped
            if status == errors.CUSTOM:
                pass_on_text(files.new_envelope, error_text)
                raise Failure(errors.CUSTOM)
            words = os.pread(said, client.CUSTOM_ERROR_LIMIT, 0)
            raise own.Refused(own.refusal(command[0], status, words))
    finally:
        os.close(said)


def wait(child: warm.Child, name: str, env: dict[str, str]) -> int:
    """Return the exit status of a filter.

    Raises:
        Failure: it died of a signal, or was killed because it took too long.
    """
    code = child.wait(FILTER_SECONDS)
    if code is None:
        child.kill(signal.SIGKILL)
        child.wait()
        log.event(env, f"qmail-qfilter: {name} took more than {FILTER_SECONDS} seconds")
        raise Failure(errors.TIMEOUT)
    if code < 0:
        log.event(env, f"qmail-qfilter: {name} died of signal {-code}")
        raise Failure(errors.BUG)
    return code


def pass_on_text(written: int, error_text: int | None) -> None:
    """Give our caller the words of a filter that wrote them to 4, as netqmail's do."""
    text = os.pread(written, client.CUSTOM_ERROR_LIMIT, 0)
    if text[:1] in (b"D", b"Z"):
        say(text, error_text)


def say(text: bytes, error_text: int | None) -> int:
    """Tell our caller why the message is refused; return the exit status to end with."""
    if error_text is None:
        return errors.REFUSED if text.startswith(b"D") else errors.REFUSED_FOR_NOW
    write_all(error_text, text)
    return errors.CUSTOM


def inject(
    mail: Mail, env: dict[str, str], queue_program_file: int, error_text: int | None
) -> errors.Result:
    """Hand the mail to the queue server, or to the program in its place.

    That is the one a filter has named on descriptor 5, or ``QQF_QMAILQUEUE``.
    """
    named = os.pread(queue_program_file, NAME_LIMIT, 0).split(b"\0", 1)[0]
    program = os.fsdecode(named) or env.get("QQF_QMAILQUEUE")
    if program:
        hidden = {name: value for name, value in env.items() if name not in HIDDEN}
        injection: client.Injection = client.ProgramInjection(program, hidden)
    else:
        injection = client.server_injection(env)
    os.lseek(mail.message, 0, os.SEEK_SET)
    for data in chunks(mail.message):
        injection.write(data)
    if isinstance(injection, client.ServerInjection):
        return injection.finish_raw([mail.envelope])
    sender, *recipients = envelope_fields(mail.envelope)
    result = injection.finish(sender, recipients)
    if result.message:
        say(result.message, error_text)
    return result


class FilteringInjection(client.Injection):
    """qmail-qfilter-queue without a process of its own, for a program of ours that queues."""

    def __init__(self, env: dict[str, str]) -> None:
        """Begin a message; see client.open_queue."""
        self._env = session_of(env, os.getpid())
        self._parts: list[bytes] = []
        self._size = 0
        self._file = -1  # once there is much of it
        self._trouble: Exception | None = None
        choose_place(env)

    def write(self, data: bytes) -> None:
        """Add data to the message. Trouble is remembered for finish."""
        self._parts.append(data)
        self._size += len(data)
        if self._size >= MEMORY_LIMIT:
            self._put(large=True)

    def _put(self, *, large: bool) -> None:
        """Put what has come into the file."""
        if self._trouble is None:
            try:
                if self._file < 0:
                    self._file = spool(large)
                write_all(self._file, b"".join(self._parts))
            except OSError as error:
                self._trouble = error
        self._parts.clear()

    def finish(self, sender: bytes, recipients: Iterable[bytes]) -> errors.Result:
        """End the message, filter it, and wait until it is safe on disk."""
        large = self._file >= 0
        self._put(large=large)
        error_text = spool(False)
        here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if self._trouble is not None:
                raise self._trouble
            content = b"".join(envelope.encode(sender, recipients))
            filters, users = configuration(self._env)
            message, self._file = self._file, -1
            mail = Mail(message, large, content)
            return pass_through(mail, filters, users, self._env, error_text)
        except TROUBLE as trouble:
            status = status_of(trouble, self._env, error_text)
            text = os.pread(error_text, client.CUSTOM_ERROR_LIMIT, 0)
            return errors.Result(status, os.getpid(), text if status == errors.CUSTOM else b"")
        finally:
            os.fchdir(here)
            os.close(here)
            os.close(error_text)
            self.abort()

    def abort(self) -> None:
        """Think better of it: nothing is queued."""
        self._parts.clear()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


injection = FilteringInjection  # how client finds it
