"""qmail-local: deliver one message to one user as the user's .qmail file says.

    qmail-local [ -nN ] user homedir local dash ext domain sender aliasempty

The message is on descriptor 0, which must be seekable. See qmail-local(8), dot-qmail(5).
"""

import os
import time

from pyqmail import maildir
from pyqmail.local import dotfile, dotqmail, envelope, forwarding, mbox
from pyqmail.local.dotqmail import Instruction, Kind
from pyqmail.local.envelope import Envelope
from pyqmail.local.failure import PERMANENT, TEMPORARY, Failure, because, permanent, temporary
from pyqmail.queue import client, errors
from ucspi import chain, control

MESSAGE = 0  # the descriptor
OUTPUT = 1
ERRORS = 2

USAGE = (
    "qmail-local: usage: qmail-local [ -nN ] user homedir local dash ext domain sender aliasempty"
)
LOOPING = "This message is looping: it already has my Delivered-To line. (#5.4.6)"
UNABLE_TO_REWIND = "Unable to rewind message. (#4.3.0)"
CHILD_CRASHED = "Aack, child crashed. (#4.3.0)"
STICKY_WARNING = b"Warning: home directory is sticky.\n"

# The first that fits the error counts.
MAILDIR_FAILURES = (
    (maildir.NoMaildirError, TEMPORARY, "Unable to chdir to maildir. (#4.2.1)"),
    (maildir.DeadlineError, TEMPORARY, "Timeout on maildir delivery. (#4.3.0)"),
    (maildir.ReadError, TEMPORARY, "Unable to read message. (#4.3.0)"),
    (
        maildir.OverQuotaError,
        PERMANENT,
        "Recipient's mailbox is full, message returned to sender. (#5.2.2)",
    ),
    (maildir.MaildirError, TEMPORARY, "Temporary error on maildir delivery. (#4.3.0)"),
)

SHELL = b"/bin/sh"
STOP = 99  # a program's exit status: delivered, and no further instruction matters
# Exit statuses of a program that bounce the message; 0 and 99 apart, all others defer it.
HARD_STATUSES = frozenset((100, 64, 65, 70, 76, 77, 78, 112))

HEADER_LIMIT = 1 << 20  # bytes of a header that are searched for our Delivered-To line


def main(argv: list[str], env: dict[str, str]) -> int:
    """Deliver; say ``did FILES+FORWARDS+PROGRAMS`` on descriptor 1, a complaint on 2.

    Changes the working directory and the umask of the process, and reads descriptor 0.

    Returns:
        0 delivered; 100 the message must bounce; 111 try again later.
    """
    os.umask(0o077)
    try:
        flag_do, fields = _arguments(argv)
        return Delivery(Envelope(*fields), env, deliver=flag_do).run()
    except Failure as failure:
        return _complain(failure)


def forward(to: Envelope, address: bytes, env: dict[str, str]) -> int:
    """Forward the message to an address, whatever .qmail files there are; else as main."""
    os.umask(0o077)
    try:
        return Delivery(to, env).forward_to(address)
    except Failure as failure:
        return _complain(failure)


def _complain(failure: Failure) -> int:
    if failure.text:
        _write(ERRORS, failure.text + b"\n")
    return failure.status


def _arguments(argv: list[str]) -> tuple[bool, list[bytes]]:
    deliver = True
    words = argv[1:]
    while words and words[0].startswith("-") and len(words[0]) > 1:
        word = words.pop(0)
        if word == "--":
            break
        for letter in word[1:]:
            if letter not in "nN":
                raise permanent(USAGE)
            deliver = letter == "N"
    if len(words) != len(Envelope._fields) or not words[1].startswith("/"):
        raise permanent(USAGE)
    return deliver, [os.fsencode(word) for word in words]


class Delivery:
    """One run of qmail-local."""

    def __init__(self, to: Envelope, env: dict[str, str], *, deliver: bool = True) -> None:
        """Prepare the delivery; with deliver False it is only described."""
        self.envelope = to
        self.deliver = deliver
        now = time.time()
        self.environment: dict[bytes, bytes] = {
            os.fsencode(name): os.fsencode(value) for name, value in env.items()
        }
        self.environment |= envelope.environment(to, now)
        self.delivered_to = self.environment[b"DTLINE"]
        self.return_path = self.environment[b"RPLINE"]
        self.mbox_from = self.environment[b"UFLINE"]
        self.new_sender = to.sender
        self.counts = dict.fromkeys(Kind, 0)
        self.forwards: list[bytes] = []
        self.queued_as: list[int] = []

    def run(self) -> int:
        """Follow the instructions.

        Raises:
            Failure: one of them failed; those before it have been followed.
        """
        self._enter_home()
        if self.deliver:
            refuse_loop(self.delivered_to)
        found = dotfile.find(self.envelope.dash, self.envelope.ext)
        if found is not None and found.default is not None:
            self.environment[b"DEFAULT"] = found.default
        self._choose_new_sender()
        content = found.content if found is not None else b""
        forward_only = found is not None and found.forward_only
        if not content:
            content, forward_only = self.envelope.default_delivery, False
        for instruction in dotqmail.instructions(content, forward_only=forward_only):
            self.counts[instruction.kind] += 1
            if not self.deliver:
                _write(OUTPUT, instruction.kind.value + b" " + instruction.text + b"\n")
            elif self._follow(instruction) == STOP:
                break
        if self.forwards:
            self._forward()
        self._say_what_was_done()
        return 0

    def forward_to(self, address: bytes) -> int:
        """Forward the message to an address, and do nothing else.

        Raises:
            Failure: it has been here before, or could not be forwarded.
        """
        os.chdir("/")  # out of the queue, where we could not come back to
        refuse_loop(self.delivered_to)
        self.counts[Kind.FORWARD] = 1
        self.forwards = [address]
        self._forward()
        self._say_what_was_done()
        return 0

    def _enter_home(self) -> None:
        home = self.envelope.home
        try:
            os.chdir(home)
        except OSError as error:
            raise temporary(because(b"Unable to switch to ", home, error, "(#4.3.0)")) from error
        if dotfile.check_home(editing_allowed=not self.deliver):
            _write(ERRORS, STICKY_WARNING)

    def _choose_new_sender(self) -> None:
        to = self.envelope
        if to.sender not in envelope.BOUNCE_SENDERS:
            owner, owner_default = dotqmail.owner_names(to.dash, to.ext)
            has_owner = dotfile.exists(owner)
            self.new_sender = envelope.new_sender(
                to, owner=has_owner, owner_default=has_owner and dotfile.exists(owner_default)
            )
        self.environment[b"NEWSENDER"] = self.new_sender

    def _follow(self, instruction: Instruction) -> int:
        """Follow one instruction; return STOP or 0."""
        if instruction.kind is Kind.MAILDIR:
            self._into_maildir(instruction.text)
        elif instruction.kind is Kind.MBOX:
            heading = self.mbox_from + self.return_path + self.delivered_to
            mbox.deliver(instruction.text, heading, MESSAGE)
        elif instruction.kind is Kind.PROGRAM:
            return run_program(instruction.text, self.environment)
        else:
            self.forwards.append(instruction.text)
        return 0

    def _into_maildir(self, directory: bytes) -> None:
        try:
            maildir.deliver(directory, self.return_path + self.delivered_to, MESSAGE)
        except maildir.MaildirError as error:
            for kind, status, text in MAILDIR_FAILURES:
                if isinstance(error, kind):
                    raise Failure(status, text) from error
            raise

    def _forward(self) -> None:
        """Queue the message, without our Return-Path line, for all forward addresses."""
        env = {os.fsdecode(k): os.fsdecode(v) for k, v in self.environment.items()}
        try:
            found = forwarding.envelopes(self.new_sender, self.envelope.sender, self.forwards, env)
        except control.ControlError as error:
            raise temporary(f"Unable to forward message: {error}. (#4.3.0)") from error
        for sender, recipients in found:
            self._queue(sender, recipients, env)

    def _queue(self, sender: bytes, recipients: list[bytes], env: dict[str, str]) -> None:
        injection = client.open_queue(env)
        try:
            injection.write(self.delivered_to)
            for chunk in maildir.chunks(MESSAGE):
                injection.write(chunk)
        except maildir.ReadError as error:
            injection.abort()
            raise temporary(f"Unable to read message: {error}. (#4.3.0)") from error
        result = injection.finish(sender, recipients)
        self.queued_as.append(result.pid)
        text = errors.text_for(result)
        if text:
            make = permanent if text.startswith(b"D") else temporary
            raise make(b"Unable to forward message: " + text[1:] + b".")

    def _say_what_was_done(self) -> None:
        files = self.counts[Kind.MBOX] + self.counts[Kind.MAILDIR]
        said = b"did %d+%d+%d\n" % (files, self.counts[Kind.FORWARD], self.counts[Kind.PROGRAM])
        said += b"".join([b"qp %d\n" % number for number in self.queued_as])
        _write(OUTPUT, said)


def refuse_loop(delivered_to: bytes) -> None:
    """Refuse a message that has been delivered to this address before.

    Raises:
        Failure: permanent when the header has the line; temporary when it is unreadable.
    """
    header = b"\n"
    try:
        for chunk in maildir.chunks(MESSAGE):
            header += chunk
            end = header.find(b"\n\n")
            if end >= 0 or len(header) > HEADER_LIMIT:
                header = header[: end + 1] if end >= 0 else header
                break
    except maildir.ReadError as error:
        raise temporary(f"Unable to read message: {error}. (#4.3.0)") from error
    if b"\n" + delivered_to in header:
        raise permanent(LOOPING)


def run_program(command: bytes, environment: dict[bytes, bytes]) -> int:
    """Give the message to a command of the shell; return 0 or STOP.

    Raises:
        Failure: with the command's verdict. What to say about it, it has said itself.
    """
    try:
        os.lseek(MESSAGE, 0, os.SEEK_SET)
    except OSError as error:
        raise temporary(UNABLE_TO_REWIND) from error
    try:
        pid = os.posix_spawn(
            SHELL, (SHELL, b"-c", command), environment, setsigdef=chain.RESTORED_SIGNALS
        )
    except OSError as error:
        raise temporary(because(b"Unable to run ", SHELL, error, "(#4.3.0)")) from error
    _, wait_status = os.waitpid(pid, 0)
    status = os.waitstatus_to_exitcode(wait_status)
    if status < 0:
        raise temporary(CHILD_CRASHED)
    if status in (0, STOP):
        return status
    raise SilentFailure(PERMANENT if status in HARD_STATUSES else TEMPORARY)


class SilentFailure(Failure):
    """A failure that a program has already explained."""

    def __init__(self, status: int) -> None:
        super().__init__(status, b"")


def _write(descriptor: int, text: bytes) -> None:
    """Write text; nobody may be reading, and that changes nothing about the delivery."""
    try:
        maildir.write_all(descriptor, text)
    except OSError:
        pass
