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

from pyqmail.qfilter import own
from pyqmail.qfilter.mail import (
    HIDDEN,
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
from pyqmail.queue import client, envelope, errors, wire
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
    try:
        control.enter_home(env)
        filters = read_filters(env.get("QMAILQUEUEFILTERS", ""))
    except (OSError, control.ControlError) as error:
        log.event(env, f"qmail-qfilter-queue: unable to read QMAILQUEUEFILTERS: {error}")
        return errors.NO_CONTROL
    return run(filters, env, with_own=True)


def read_filters(path: str) -> list[list[str]]:
    """Return the command lines in the file at path.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        lines = control.parse_lines(file.read())
    return [os.fsdecode(line).split() for line in lines if line.strip()]


def run(filters: list[list[str]], env: dict[str, str], *, with_own: bool = False) -> int:
    """Pass the message on descriptors 0 and 1 through filters into the queue.

    Args:
        filters: the command lines.
        env: the environment.
        with_own: in a user's session, the user's own filters come first. The working directory
            is the qmail home.

    Returns:
        The exit status of a filter in qmail-queue's terms, or that of queueing.
    """
    error_text = own_error_descriptor()
    choose_place(env)
    try:
        users = own.find(env) if with_own else None
        if not filters and users is None:
            return queue_program.main(["qmail-queue"], env)
        mail = receive()
        if users is not None:
            mail = apply_own(users, mail, env, error_text)
        queue_program_file = spool(False)
        for command in filters:
            mail = apply(command, mail, env, error_text, queue_program_file)
        return inject(mail, env, queue_program_file, error_text)
    except Dropped:
        return errors.QUEUED
    except Failure as failure:
        return failure.status
    except own.Refused as refused:
        log.event(env, f"qmail-qfilter-queue: {log.printable(refused.text[1:])}")
        return say(refused.text, error_text)
    except envelope.EnvelopeError as error:
        return error.status
    except OSError as error:
        log.event(env, f"qmail-qfilter: {error}")
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


def inject(mail: Mail, env: dict[str, str], queue_program_file: int, error_text: int | None) -> int:
    """Hand the mail to the queue server, or to the program in its place; return the status.

    That is the one a filter has named on descriptor 5, or ``QQF_QMAILQUEUE``.
    """
    named = os.pread(queue_program_file, NAME_LIMIT, 0).split(b"\0", 1)[0]
    program = os.fsdecode(named) or env.get("QQF_QMAILQUEUE")
    if program:
        hidden = {name: value for name, value in env.items() if name not in HIDDEN}
        injection: client.Injection = client.ProgramInjection(program, hidden)
    else:
        path = env.get("QMAIL_QUEUE_SOCKET", client.SOCKET)
        injection = client.ServerInjection(path, wire.KIND_PROGRAM)
    os.lseek(mail.message, 0, os.SEEK_SET)
    for data in chunks(mail.message):
        injection.write(data)
    if isinstance(injection, client.ServerInjection):
        return injection.finish_raw([mail.envelope]).status
    sender, *recipients = envelope_fields(mail.envelope)
    result = injection.finish(sender, recipients)
    if result.message:
        say(result.message, error_text)
    return result.status
