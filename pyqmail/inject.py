"""qmail-inject: queue a message from standard input (qmail-inject(8)).

The header is completed and its addresses are made whole as qmail-header(5) says; fields
that need nothing keep their bytes.
"""

import os
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pyqmail.header import followup, rewriting
from pyqmail.header.addresslist import ListError, mailboxes, quote_phrase, rewrite
from pyqmail.header.fields import Field, HeaderReader, join, make
from pyqmail.header.rewriting import Rewriter
from pyqmail.queue import client, errors
from pyqmail.quote import quote
from pyqmail.received import date822
from pyqmail.smtp.address import has_control
from ucspi import control, log

EXIT_PERMANENT = 100
EXIT_TEMPORARY = 111
CHUNK = 65536

SENDERS = frozenset(
    b"sender from reply-to return-path return-receipt-to errors-to"
    b" resent-sender resent-from resent-reply-to".split()
)
RECIPIENTS = frozenset({b"to", b"cc", b"bcc", b"apparently-to"})
RESENT_RECIPIENTS = frozenset({b"resent-to", b"resent-cc", b"resent-bcc"})
RESENT = RESENT_RECIPIENTS | frozenset(
    b"resent-sender resent-from resent-reply-to resent-date resent-message-id".split()
)
# Where answers go; they need not parse.
REPLY_FIELDS = frozenset({b"mail-reply-to", b"mail-followup-to"})
DROPPED = frozenset({b"bcc", b"resent-bcc", b"return-path", b"content-length"})
NO_RECIPIENTS = b"recipient list not shown: ;"


class Fatal(Exception):
    """The message is not queued; the text is for whoever called, the status for his program."""

    def __init__(self, status: int, text: str) -> None:
        """Name the exit status and the reason."""
        super().__init__(text)
        self.status = status


class Options(NamedTuple):
    """The command line."""

    recipients_from: str = "A"  # a, h, A or H, as in the manual
    sender: str | None = None
    to_queue: bool = True
    recipients: tuple[str, ...] = ()


def scan(
    words: Iterable[str], flags: str, with_value: str, swallowing: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield option letter and value as getopt(3) does, then ``("", word)`` for each other word.

    Args:
        words: the command line without the program's name.
        flags: letters of options without a value.
        with_value: letters of options with a value, in the same word or the next.
        swallowing: letters of options that may have a value, in the same word only.

    Raises:
        Fatal: an unknown option, or one without its value.
    """
    rest = iter(words)
    for word in rest:
        if word == "--":
            break
        if not word.startswith("-") or word == "-":
            yield "", word
            break
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in with_value:
                value = letters or next(rest, None)
                if value is None:
                    raise Fatal(EXIT_PERMANENT, f"option -{letter} needs a value")
                yield letter, value
                break
            if letter in swallowing:
                yield letter, letters
                break
            if letter not in flags:
                raise Fatal(EXIT_PERMANENT, f"unknown option -{letter}")
            yield letter, ""
    for word in rest:
        yield "", word


def parse_options(words: Iterable[str]) -> Options:
    """Return the options of qmail-inject.

    Raises:
        Fatal: misuse.
    """
    options = Options()
    for letter, value in scan(words, "aAhHnN", "f"):
        if not letter:
            options = options._replace(recipients=(*options.recipients, value))
        elif letter == "f":
            options = options._replace(sender=value)
        elif letter in "nN":
            options = options._replace(to_queue=letter == "N")
        else:
            options = options._replace(recipients_from=letter)
    return options


class Person:
    """Who sends, according to the environment."""

    def __init__(self, env: dict[str, str], rewriter: Rewriter, now: float) -> None:
        def first(*names: str) -> bytes | None:
            return next((os.fsencode(env[name]) for name in names if name in env), None)

        user = first("QMAILUSER", "MAILUSER", "USER", "LOGNAME") or b"anonymous"
        host = first("QMAILHOST", "MAILHOST")
        self.name = first("QMAILNAME", "MAILNAME", "NAME")
        self.address = _joined(user, host, rewriter)
        letters = env.get("QMAILINJECT", "")
        self.comment_style = "c" in letters
        self.ignores_return_path = "s" in letters
        self.drops_from = "f" in letters
        self.drops_message_id = "i" in letters
        bounce_user = first("QMAILSUSER") or user
        bounce_host = first("QMAILSHOST") or host
        if "m" in letters:
            bounce_user += b"-%d.%d" % (now, os.getpid())
        if "r" in letters:
            bounce_user += b"-"
        self.verp_suffix = b"-@[]" if "r" in letters else b""
        self.bounce_address = _joined(bounce_user, bounce_host, rewriter) + self.verp_suffix

    def author(self) -> bytes:
        """Return the value of a From field."""
        address = quote(self.address)
        if not self.name:
            return address
        if self.comment_style:
            comment = quote_phrase(self.name)[1:-1]
            return address + b" (" + comment.replace(b"(", b"\\(").replace(b")", b"\\)") + b")"
        return quote_phrase(self.name) + b" <" + address + b">"


def _joined(user: bytes, host: bytes | None, rewriter: Rewriter) -> bytes:
    """Return user@host whole, where the user may have any character, also an @."""
    return user + b"@" + rewriter.host(host or b"")


class Envelope(NamedTuple):
    """Where a message goes, and where its bounces go."""

    sender: bytes
    recipients: list[bytes]


def addresses(value: bytes, rewriter: Rewriter) -> list[bytes]:
    """Return the whole addresses in a list.

    Raises:
        Fatal: it is none.
    """
    try:
        return [rewriter.address(one.address) for one in mailboxes(value)]
    except ListError as error:
        shown = log.printable(value.strip()[:200])
        raise Fatal(EXIT_PERMANENT, f"unable to parse this address list: {shown}") from error


def given_address(word: str, rewriter: Rewriter) -> bytes:
    """Return the whole address for one of the command line, as it is in an envelope: unquoted.

    Scripts pass on what they find in SENDER or RECIPIENT; read as a list, that could name
    somebody else. Only angle brackets around all of it do not count.

    Raises:
        Fatal: there are control characters in it.
    """
    address = os.fsencode(word)
    if address.startswith(b"<") and address.endswith(b">"):
        address = address[1:-1]
    if has_control(address):
        shown = log.printable(address[:200])
        raise Fatal(EXIT_PERMANENT, f"unable to parse address: {shown}")
    return rewriter.address(address)


def address_envelope(
    fields: list[Field], options: Options, person: Person, rewriter: Rewriter
) -> Envelope:
    """Return the envelope that options and the header as it came ask for.

    Raises:
        Fatal: an address list does not parse, or nobody is to get the message.
    """
    resent = any(field.name in RESENT for field in fields)
    found: list[bytes] = []
    if options.recipients_from != "h":
        found += [given_address(word, rewriter) for word in options.recipients]
    from_header = options.recipients_from in "hH" or (
        options.recipients_from == "A" and not options.recipients
    )
    wanted = RESENT_RECIPIENTS if resent else RECIPIENTS
    for field in fields:
        if field.name in SENDERS | RECIPIENTS | RESENT_RECIPIENTS:
            listed = addresses(field.value, rewriter)  # a field that does not parse is an error
            if from_header and field.name in wanted:
                found += listed
    found = [recipient for recipient in found if recipient]
    if not found and options.to_queue:
        raise Fatal(EXIT_PERMANENT, "no recipients were supplied")
    return Envelope(envelope_sender(fields, options, person, rewriter), found)


def envelope_sender(
    fields: list[Field], options: Options, person: Person, rewriter: Rewriter
) -> bytes:
    """Return the sender: -f, else Return-Path, else what the environment says.

    Raises:
        Fatal: that of -f or Return-Path does not parse.
    """
    if options.sender is not None:
        return given_address(options.sender, rewriter)
    if not person.ignores_return_path:
        for field in fields:
            if field.name == b"return-path":
                return next(iter(addresses(field.value, rewriter)), b"") + person.verp_suffix
    return person.bounce_address


def answers(fields: list[Field], rewriter: Rewriter, lists: frozenset[bytes]) -> list[Field]:
    """Return the Mail-Followup-To field that is to be added, see `followup`; else nothing.

    Raises:
        Fatal: To or Cc is no address list.
    """
    if not lists or any(field.name in RESENT for field in fields):
        return []
    values = [field.value for field in fields if field.name in (b"to", b"cc")]
    readers = [one for value in values for one in addresses(value, rewriter) if one]
    return followup.added(fields, readers, lists)


def complete(
    fields: list[Field], person: Person, rewriter: Rewriter, now: float, id_host: bytes
) -> list[Field]:
    """Return the header as it is queued: what is missing first, then the rest, made whole."""
    resent = b"resent-" if any(field.name in RESENT for field in fields) else b""
    kept = [field for field in fields if field.name not in DROPPED]
    if person.drops_from:
        kept = [field for field in kept if field.name != b"from"]
    if person.drops_message_id:
        kept = [field for field in kept if field.name != b"message-id"]
    names = {field.name for field in kept}
    prefix = b"Resent-" if resent else b""
    added = []
    if resent + b"date" not in names:
        added.append(make(prefix + b"Date", date822(now)))
    if resent + b"message-id" not in names:
        stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(now)).encode("ascii")
        unique = b"<%s.%d.qmail@%s>" % (stamp, os.getpid(), id_host)
        added.append(make(prefix + b"Message-ID", unique))
    if resent + b"from" not in names:
        added.append(make(prefix + b"From", person.author()))
    if not names & {resent + b"to", resent + b"cc"}:
        added.append(make(prefix + b"Cc", NO_RECIPIENTS))
    listed = SENDERS | RECIPIENTS | RESENT_RECIPIENTS | REPLY_FIELDS
    return added + [
        field.with_value(rewrite(field.value, rewriter.host)) if field.name in listed else field
        for field in kept
    ]


def main(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-inject``: 0 queued or printed, 100 misuse or refused, 111 try again."""
    try:
        options = parse_options(argv[1:])
        lists = followup.mailing_lists(env)  # its name is relative to the caller's directory
        control.enter_home(env)
        inject(options, lists, env)
        return 0
    except Fatal as error:
        status, text = error.status, str(error)
    except control.ControlError as error:
        status, text = EXIT_TEMPORARY, str(error)
    except OSError as error:
        status, text = EXIT_TEMPORARY, f"unable to read or write: {error.strerror}"
    log.event(env, f"qmail-inject: fatal: {text}")
    return status


def inject(options: Options, lists: frozenset[bytes], env: dict[str, str]) -> None:
    """Read the message, complete it, and queue or print it.

    Args:
        options: the command line.
        lists: the addresses of mailing lists, in lower case.
        env: the environment.

    Raises:
        Fatal: see there.
        ControlError: a control file cannot be read.
        OSError: the message cannot be read or printed.
    """
    now = time.time()
    rewriter = rewriting.read(env)
    id_host = rewriting.setting("idhost", env)
    person = Person(env, rewriter, now)
    header = HeaderReader(mbox=True)
    body = b""
    while not header.whole and (data := os.read(0, CHUNK)):
        body = header.feed(data)
    if not header.whole:
        body = header.finish()
    envelope = address_envelope(header.fields, options, person, rewriter)
    fields = header.fields + answers(header.fields, rewriter, lists)
    top = join(complete(fields, person, rewriter, now, id_host))
    if options.to_queue:
        queue(top, _body(body), envelope, env)
    else:
        _print(b"Return-Path: <" + quote(envelope.sender) + b">\n" + top)
        for part in _body(body):
            _print(part)


def _body(first: bytes) -> Iterator[bytes]:
    """Yield the body, and a line end if it lacks its last one."""
    last = b"\n"
    data = first or os.read(0, CHUNK)
    while data:
        last = data[-1:]
        yield data
        data = os.read(0, CHUNK)
    if last != b"\n":
        yield b"\n"


def _print(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def queue(top: bytes, body: Iterable[bytes], envelope: Envelope, env: dict[str, str]) -> None:
    """Queue a message.

    Raises:
        Fatal: it was refused.
        OSError: the body cannot be read; nothing is queued.
    """
    injection = client.open_queue(env)
    finished = False
    try:
        injection.write(top)
        for part in body:
            injection.write(part)
        finished = True
        result = injection.finish(envelope.sender, envelope.recipients)
    finally:
        if not finished:
            injection.abort()
    if result.status != errors.QUEUED:
        text = errors.text_for(result)
        status = EXIT_PERMANENT if text.startswith(b"D") else EXIT_TEMPORARY
        raise Fatal(status, log.printable(text[1:]))
