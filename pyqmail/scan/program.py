"""qmail-qfilter-scan: keep viruses out, and mark or refuse spam.

A filter with qmail-qfilter's interface. It may be given another filter to become.
"""

import os

from pyqmail.header.fields import field_name
from pyqmail.mailauth import received
from pyqmail.mailauth.fields import split
from pyqmail.qfilter.prepending import (
    HEADER_TOO_BIG,
    Refusal,
    broken,
    go_on,
    read_header,
    refuse,
    regular_file,
)
from pyqmail.scan import address, clamd, rspamd
from pyqmail.scan.address import ScannerError, TooLargeError
from ucspi import log

SECONDS = 120.0  # for each scanner
DROP = 99  # see qmail-qfilter(8)
EXIT_MISUSE = 55

MARK = b"X-Spam: Yes\n"
SCORE = b"X-Spam-Score: %.2f / %.2f\n"
# From a stranger these mean nothing, and would look like ours.
OURS = frozenset(field_name(line) for line in (MARK, SCORE))

DOWN = Refusal(False, b"sorry, that message cannot be scanned right now (#4.3.0)")
TOO_LARGE = Refusal(True, b"sorry, that message is too large to be scanned (#5.3.4)")
VIRUS = b"sorry, there is a virus in that message: %b (#5.7.1)"
SPAM = b"sorry, that message looks like spam (#5.7.1)"
LATER = b"sorry, try again later (#4.7.1)"

MARKED = ("add header", "rewrite subject", "quarantine")
DEFERRED = ("greylist", "soft reject")


class _Dropped(Exception):
    """The scanner wants the message to be taken and forgotten."""


class _Refused(Exception):
    """The message does not go on."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


def main(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-qfilter-scan [ filter ]``.

    Environment: ``VIRUS_SCANNER`` and ``SPAM_SCANNER`` name the scanners, see
    `pyqmail.scan.address`; without the first no virus is looked for, without the second
    no spam. With ``SCANNER_DOWN=accept`` a message that cannot be scanned goes on; else it
    does not.
    """
    try:
        virus, spam = (
            address.parse(env[name]) if env.get(name) else None
            for name in ("VIRUS_SCANNER", "SPAM_SCANNER")
        )
    except ValueError as error:
        log.event(env, f"{argv[0]}: {error}")
        return EXIT_MISUSE
    try:
        message = regular_file()
        header, rest = read_header(message)
        if rest is None:
            return refuse(argv[0], HEADER_TOO_BIG, env)
        if virus:
            look_for_virus(argv[0], virus, message, env)
        lines = look_for_spam(argv[0], spam, message, header, env) if spam else b""
        kept = b"".join(f.raw for f in split(header) if not (spam and f.name in OURS))
        return go_on(argv, env, message, lines, None if kept == header else (kept, rest))
    except _Refused as refused:
        return refuse(argv[0], refused.refusal, env)
    except _Dropped:
        log.event(env, f"{argv[0]}: dropped, as the scanner says")
        return DROP
    except OSError as error:
        return broken(argv[0], error, env)


def look_for_virus(name: str, place: address.Place, message: int, env: dict[str, str]) -> None:
    """Ask clamd.

    Raises:
        _Refused: there is a virus; or the message cannot be scanned, and must be.
        OSError: the message cannot be read.
    """
    try:
        found = clamd.scan(place, message, SECONDS)
    except (ScannerError, TooLargeError) as error:
        _without(name, error, env)
        return
    if found is not None:
        raise _Refused(Refusal(True, VIRUS % found))


def look_for_spam(
    name: str, place: address.Place, message: int, header: bytes, env: dict[str, str]
) -> bytes:
    """Ask rspamd; return the lines to put in front of the message.

    Raises:
        _Refused: it is spam, or suspect for now; or it cannot be scanned, and must be.
        _Dropped: it is to be dropped.
        OSError: it cannot be read.
    """
    try:
        told = rspamd.scan(place, message, facts(header, env), SECONDS)
    except ScannerError as error:
        _without(name, error, env)
        return b""
    log.event(env, f"{name}: {told.action}, {told.score:.2f} of {told.required:.2f}")
    text = told.text.encode("ascii", "replace")
    if told.action == "reject":
        raise _Refused(Refusal(True, text or SPAM))
    if told.action in DEFERRED:
        raise _Refused(Refusal(False, text or LATER))
    if told.action == "discard":
        raise _Dropped
    mark = MARK if told.action in MARKED else b""
    return mark + SCORE % (told.score, told.required)


def _without(name: str, error: Exception, env: dict[str, str]) -> None:
    """Go on without a scanner's word, if that may be.

    Raises:
        _Refused: it may not.
    """
    log.event(env, f"{name}: not scanned: {error or 'too large'}")
    if env.get("SCANNER_DOWN") != "accept":
        raise _Refused(TOO_LARGE if isinstance(error, TooLargeError) else DOWN)


def facts(header: bytes, env: dict[str, str]) -> list[tuple[str, bytes]]:
    """Return what is known of how a message came, as rspamd wants to have it."""
    user, host = os.fsencode(env.get("QMAILUSER", "")), os.fsencode(env.get("QMAILHOST", ""))
    found = [
        ("IP", os.fsencode(env.get("TCPREMOTEIP", ""))),
        ("Helo", received.helo(header)),
        ("Hostname", os.fsencode(env.get("TCPREMOTEHOST", ""))),
        ("From", user + b"@" + host if host else user),
        ("User", os.fsencode(env.get("AUTHUP_USER", ""))),
        ("Queue-Id", os.fsencode(env.get("SESSION_ID", ""))),
    ]
    recipients = os.fsencode(env.get("QMAILRCPTS", "")).split(b"\n")
    return found + [("Rcpt", recipient) for recipient in recipients if recipient]
