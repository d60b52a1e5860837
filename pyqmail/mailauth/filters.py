"""The filters that ask the daemons: qmail-qfilter-dkimsign and qmail-qfilter-authresults.

Both have qmail-qfilter's interface, message on descriptors 0 and 1, and may be given
another filter to become: so one process puts the TLS line and the results into a message.
"""

import os
import re
import stat
import time

from pyqmail.mailauth import received, wire
from pyqmail.mailauth.authservid import claims
from pyqmail.mailauth.fields import Field, split
from pyqmail.mailauth.wire import Answer, Request
from ucspi import chain, control, log

SIGNER = "/run/postern/dkimsign.sock"
VERIFIER = "/run/postern/mailauth.sock"

CHUNK = 65536
HEADER_LIMIT = 1 << 20  # bytes; a header is held in memory until it is whole
OWN_TEXT = 4  # descriptor for the text of status 82, see qmail-qfilter(8)

# A daemon has limits of its own, which are shorter. One that was just restarted, or is new,
# is there within a second.
ANSWER_SECONDS = 60.0
ATTEMPTS = 20
PAUSE_SECONDS = 0.1

EXIT_CUSTOM = 82
EXIT_REFUSED = 31
EXIT_DEFERRED = 71
EXIT_WRITE = 53
EXIT_READ = 54
EXIT_NO_CONTROL = 55

END_OF_HEADER = re.compile(rb"(?:\A|(?<=\n))\r?\n")

NOT_SIGNED = Answer(wire.DEFERRED, b"mail cannot be signed right now (#4.3.0)")
NOT_VERIFIED = Answer(wire.DEFERRED, b"mail cannot be authenticated right now (#4.3.0)")
HEADER_TOO_BIG = Answer(wire.REFUSED, b"sorry, that message header is too big (#5.3.4)")


def dkimsign(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-qfilter-dkimsign [ filter ]``: put a DKIM signature before the message.

    The environment names the daemon's socket in ``DKIMSIGN_SOCKET``. What the daemon has no
    key for goes on unsigned. Without the daemon nothing does, for now.
    """
    path = env.get("DKIMSIGN_SOCKET", SIGNER)
    try:
        message = regular_file()
        request = Request(wire.SIGN, session=os.fsencode(env.get("SESSION_ID", "")))
        answer = patiently(argv[0], path, request, message, env) or NOT_SIGNED
        if answer.verdict != wire.GO_ON:
            return refuse(argv[0], answer, env)
        return go_on(argv, env, message, answer.lines)
    except OSError as error:
        return broken(argv[0], error, env)


def authresults(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-qfilter-authresults [ filter ]``: see docs/man.

    Environment: ``MAILAUTH_SOCKET`` names the daemon's socket; ``TCPREMOTEIP`` is the client,
    ``QMAILUSER`` and ``QMAILHOST`` the envelope's sender. The name in HELO is read from the
    first line of the message, which our own SMTP server wrote. Without the daemon a message
    goes on without results; with ``MAILAUTH_REQUIRED`` it does not, for now.
    """
    path = env.get("MAILAUTH_SOCKET", VERIFIER)
    try:
        control.enter_home(env)
        identity = control.read_line("me")
        if identity is None:
            raise control.ControlError("control/me does not exist")
        message = regular_file()
        header, rest = read_header(message)
    except control.ControlError as error:
        log.event(env, f"{argv[0]}: {error}")
        return EXIT_NO_CONTROL
    except OSError as error:
        return broken(argv[0], error, env)
    if rest is None:
        return refuse(argv[0], HEADER_TOO_BIG, env)
    request = Request(
        wire.VERIFY,
        address=os.fsencode(env.get("TCPREMOTEIP", "")),
        helo=received.helo(header),
        sender=sender(env),
        session=os.fsencode(env.get("SESSION_ID", "")),
    )
    answer = patiently(argv[0], path, request, message, env) or (
        NOT_VERIFIED if "MAILAUTH_REQUIRED" in env else Answer(wire.GO_ON)
    )
    if answer.verdict != wire.GO_ON:
        return refuse(argv[0], answer, env)
    try:
        kept = without_claims(header, identity)
        return go_on(argv, env, message, answer.lines, None if kept == header else (kept, rest))
    except OSError as error:
        return broken(argv[0], error, env)


def sender(env: dict[str, str]) -> bytes:
    """Return the envelope's sender from a filter's environment."""
    user, host = os.fsencode(env.get("QMAILUSER", "")), os.fsencode(env.get("QMAILHOST", ""))
    return user + b"@" + host if host else user


def regular_file() -> int:
    """Return a descriptor of the message that can be read from any place: 0 or a copy of it.

    Raises:
        OSError: there is no room for a copy.
    """
    if stat.S_ISREG(os.fstat(0).st_mode):
        return 0
    copy = os.memfd_create("message", os.MFD_CLOEXEC)
    while data := os.read(0, CHUNK):
        write_all(copy, data)
    return copy


def read_header(message: int) -> tuple[bytes, int | None]:
    """Return the header and where the rest begins, the empty line; None for one too long.

    Raises:
        OSError: it cannot be read.
    """
    header = b""
    while len(header) <= HEADER_LIMIT:
        data = os.pread(message, CHUNK, len(header))
        header += data
        if found := END_OF_HEADER.search(header):
            return header[: found.start()], found.start()
        if not data:
            return header, len(header)
    return b"", None


def without_claims(header: bytes, identity: bytes) -> bytes:
    """Return a header without the results that claim to be ours (RFC 8601, 5)."""
    if b"authentication-results" not in header.lower():
        return header
    return b"".join(field.raw for field in split(header) if not claimed(field, identity))


def claimed(field: Field, identity: bytes) -> bool:
    """Say whether a field claims to hold our results."""
    return field.name == b"authentication-results" and claims(field.value, identity)


def patiently(
    name: str, path: str, request: Request, message: int, env: dict[str, str]
) -> Answer | None:
    """Ask a daemon that may just be starting; None when it does not answer."""
    attempt = 1
    while True:
        try:
            return wire.ask(path, request, message, ANSWER_SECONDS)
        except (FileNotFoundError, ConnectionRefusedError, wire.WireError) as error:
            if attempt >= ATTEMPTS:
                log.event(env, f"{name}: {path}: {error}")
                return None
        except OSError as error:
            log.event(env, f"{name}: {path}: {error}")
            return None
        attempt += 1
        time.sleep(PAUSE_SECONDS)


def go_on(
    argv: list[str],
    env: dict[str, str],
    message: int,
    lines: bytes,
    replaced: tuple[bytes, int] | None = None,
) -> int:
    """Write lines and the message to descriptor 1, through the next filter if there is one.

    Args:
        argv: our command line; what follows the first word is the next filter's.
        env: the environment.
        message: the message.
        lines: header lines to come first.
        replaced: another header, and where in the message the rest begins.
    """
    following = argv[1:]
    if not (lines or replaced or following or message):
        return 0  # a filter that writes nothing leaves the message as it is
    try:
        if replaced and following:
            message = changed_copy(message, *replaced)
            replaced = None
        write_all(1, lines)
        header, start = replaced or (b"", 0)
        os.lseek(message, start, os.SEEK_SET)
        if following:
            os.dup2(message, 0)
            return chain.run(following, env)
        write_all(1, header)
        copy(message, 1)
    except OSError as error:
        log.event(env, f"{argv[0]}: unable to write: {error.strerror}")
        return EXIT_WRITE
    return 0


def changed_copy(message: int, header: bytes, start: int) -> int:
    """Return a file with another header, and the message from start on."""
    result = os.memfd_create("message", os.MFD_CLOEXEC)
    write_all(result, header)
    os.lseek(message, start, os.SEEK_SET)
    copy(message, result)
    os.lseek(result, 0, os.SEEK_SET)
    return result


def copy(source: int, destination: int) -> None:
    """Copy from where source stands to its end."""
    while data := os.read(source, CHUNK):
        write_all(destination, data)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of data."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def refuse(name: str, answer: Answer, env: dict[str, str]) -> int:
    """Tell our caller why, and return the status that ends the message."""
    what = "refused" if answer.verdict == wire.REFUSED else "deferred"
    log.event(env, f"{name}: {what}: {answer.text.decode('ascii', 'replace')}")
    try:
        write_all(OWN_TEXT, answer.verdict + answer.text)
    except OSError:
        return EXIT_REFUSED if answer.verdict == wire.REFUSED else EXIT_DEFERRED
    return EXIT_CUSTOM


def broken(name: str, error: OSError, env: dict[str, str]) -> int:
    """Log that the message cannot be read, and return the status for that."""
    log.event(env, f"{name}: {error}")
    return EXIT_READ
