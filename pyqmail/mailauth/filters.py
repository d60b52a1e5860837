"""The filters that ask the daemons: qmail-qfilter-dkimsign and qmail-qfilter-authresults.

Both have qmail-qfilter's interface, message on descriptors 0 and 1, and may be given
another filter to become: so one process puts the TLS line and the results into a message.
"""

import os
import time

from pyqmail.mailauth import received, wire
from pyqmail.mailauth.authservid import claims
from pyqmail.mailauth.fields import Field, split
from pyqmail.mailauth.wire import Answer, Request
from pyqmail.qfilter.prepending import (
    HEADER_TOO_BIG,
    Refusal,
    broken,
    go_on,
    read_header,
    refuse,
    regular_file,
)
from ucspi import control, log

SIGNER = "/run/postern/dkimsign.sock"
VERIFIER = "/run/postern/mailauth.sock"

# A daemon has limits of its own, which are shorter. One that was just restarted, or is new,
# is there within a second.
ANSWER_SECONDS = 60.0
ATTEMPTS = 20
PAUSE_SECONDS = 0.1

EXIT_NO_CONTROL = 55

NOT_SIGNED = Answer(wire.DEFERRED, b"mail cannot be signed right now (#4.3.0)")
NOT_VERIFIED = Answer(wire.DEFERRED, b"mail cannot be authenticated right now (#4.3.0)")


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
            return refuse(argv[0], refusal_in(answer), env)
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
        return refuse(argv[0], refusal_in(answer), env)
    try:
        kept = without_claims(header, identity)
        return go_on(argv, env, message, answer.lines, None if kept == header else (kept, rest))
    except OSError as error:
        return broken(argv[0], error, env)


def refusal_in(answer: Answer) -> Refusal:
    """Return why an answer does not let the message go on."""
    return Refusal(answer.verdict == wire.REFUSED, answer.text)


def sender(env: dict[str, str]) -> bytes:
    """Return the envelope's sender from a filter's environment."""
    user, host = os.fsencode(env.get("QMAILUSER", "")), os.fsencode(env.get("QMAILHOST", ""))
    return user + b"@" + host if host else user


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
    why: Exception | None = None
    unanswered = 0
    for _ in range(ATTEMPTS):
        try:
            return wire.ask(path, request, message, ANSWER_SECONDS)
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError) as error:
            why = error
        except TimeoutError as error:
            why = error
            break
        except (OSError, wire.WireError) as error:
            why = error
            unanswered += 1
            if unanswered > 1:
                break  # the first time it may have been restarted meanwhile
        time.sleep(PAUSE_SECONDS)
    log.event(env, f"{name}: {path}: {why}")
    return None
