"""mailauthd: says who stands behind a message that a stranger brought.

    mailauthd [ -n fd ] [ -u uid -g gid ] [ -p uid ] [ -e ] [ -t seconds ] socket

SPF of the client, DKIM of the message, DMARC of both, and the answer is an
Authentication-Results field under the name in control/me. With -e what fails DMARC is
refused where the author's domain asks for it. It holds no secrets, and can write nothing.
"""

import os
import time
from typing import NamedTuple

from pyqmail.mailauth import dkimverify, dmarc, results, service, spfcheck, wire
from pyqmail.mailauth.dkimverify import DkimResult
from pyqmail.mailauth.dmarc import DmarcResult
from pyqmail.mailauth.lookups import Lookups, Resolver, TroubleError
from pyqmail.mailauth.message import Message, MessageError
from pyqmail.mailauth.spfcheck import SpfResult
from pyqmail.mailauth.wire import Answer, Request
from ucspi import control, log

USAGE = (
    "mailauthd: usage: mailauthd [ -n fd ] [ -u uid -g gid ] [ -p uid ] [ -e ] [ -t seconds ] "
    "socket"
)

SECONDS = 10.0  # for all look-ups of a message
MOST_AUTHORS = 3  # whose domains are looked at
NO_AUTHOR = b"sorry, that message does not say clearly who it is from (#5.7.1)"
REFUSAL = b"sorry, %s asks to refuse mail that is not its own: DMARC (#5.7.1)"


class Verdict(NamedTuple):
    """Everything that was found out about a message."""

    spf: SpfResult
    dkim: list[DkimResult]
    dmarc: list[DmarcResult]


class Verifier:
    """Answers requests.

    Args:
        identity: our authserv-id.
        resolver: of all look-ups.
        enforce: whether mail is refused where DMARC says so.
        seconds: for the look-ups of a message.
    """

    def __init__(
        self,
        identity: str,
        resolver: Resolver,
        *,
        enforce: bool = False,
        seconds: float = SECONDS,
    ) -> None:
        self._identity = identity
        self._resolver = resolver
        self._enforce = enforce
        self._seconds = seconds

    def answer(self, request: Request, descriptor: int, _uid: int) -> Answer:
        """Return what is to become of a message, and its Authentication-Results."""
        if request.verb != wire.VERIFY:
            raise wire.WireError("not a request to verify")
        began = time.monotonic()
        lookups = Lookups(self._resolver, self._seconds)
        address, helo, sender = (_text(part) for part in request[1:4])
        spf = spfcheck.check(address, helo, sender, self._identity, lookups)
        trouble = ""
        signatures: list[DkimResult] = []
        authors: list[DmarcResult] = []
        try:
            message = Message(descriptor)
            signatures = dkimverify.verify(message, lookups)
            authors = judge(message, spf, signatures, lookups)
        except MessageError as error:
            trouble = str(error)
            authors = [DmarcResult("permerror", "")]
        verdict = Verdict(spf, signatures, authors)
        self._log(request, verdict, trouble, time.monotonic() - began)
        if self._enforce and (refusal := refusal_of(verdict)):
            return Answer(wire.REFUSED, refusal)
        return Answer(
            wire.GO_ON, lines=results.field(self._identity, spf, sender, signatures, authors)
        )

    def _log(self, request: Request, verdict: Verdict, trouble: str, seconds: float) -> None:
        words = [f"spf={verdict.spf.result}"]
        words += [f"dkim={one.result}:{one.domain}" for one in verdict.dkim]
        words += [f"dmarc={one.result}:{one.domain}" for one in verdict.dmarc]
        known = {"TCPREMOTEIP": _text(request.address), "SESSION_ID": _text(request.session)}
        words += [trouble] if trouble else []
        log.event(known, f"mailauthd: {' '.join(words)} ({seconds:.2f} s)")


def _text(raw: bytes) -> str:
    return raw.decode("ascii", "replace")


def judge(
    message: Message, spf: SpfResult, signatures: list[DkimResult], lookups: Lookups
) -> list[DmarcResult]:
    """Return what DMARC says about each author's domain.

    Raises:
        MessageError: the message does not say who its authors are.
    """
    domains = list(dict.fromkeys(map(_domain, message.authors())))
    if len(domains) > MOST_AUTHORS:
        raise MessageError("too many authors")
    passed = [one.domain for one in signatures if one.result == "pass"]
    by_spf = spf.domain if spf.result == "pass" else None
    uncertain = spf.result == "temperror" or any(one.result == "temperror" for one in signatures)
    found = []
    for domain in domains:
        try:
            one = dmarc.evaluate(domain, by_spf, passed, lookups.texts, lookups.exists)
            if one.result == "fail" and uncertain:
                one = one._replace(result="temperror")
        except TroubleError:
            one = DmarcResult("temperror", domain)
        found.append(one)
    return found


def _domain(address: bytes) -> str:
    """Return the domain of an address as it is in the DNS.

    Raises:
        MessageError: it can be none.
    """
    raw = address.rpartition(b"@")[2].rstrip(b".")
    try:
        name = raw.decode("utf-8").encode("idna").decode("ascii").lower()
    except UnicodeError as error:
        raise MessageError("a From whose domain is none") from error
    if not name or len(name) > 253:
        raise MessageError("a From whose domain is none")
    return name


def refusal_of(verdict: Verdict) -> bytes | None:
    """Return why a message is refused, None if it is not.

    A message without one clear author is refused as well: nobody could be held to account
    for it, and DMARC would be got round by a second From.
    """
    for one in verdict.dmarc:
        if one.result == "permerror":
            return NO_AUTHOR
        if one.result == "fail" and one.policy == "reject":
            return REFUSAL % one.domain.encode()
    return None


def main(argv: list[str], env: dict[str, str]) -> int:
    """Serve until killed; see the module.

    Returns:
        100 misuse (also: root without -u and -g), 111 the socket cannot be made, or there is
        no control/me.
    """
    enforce = "-e" in argv
    try:
        given, words = service.options([word for word in argv[1:] if word != "-e"], "nugpt")
        if len(words) != 1:
            raise service.UsageError("wrong arguments")
        numbers = {letter: service.number(given[letter]) for letter in "npt" if letter in given}
        control.enter_home(env)
        identity = control.read_line("me")
        if not identity:
            raise control.ControlError("control/me does not exist")
        listener = service.prepare(given, words[0])
    except service.UsageError as error:
        log.event(env, f"mailauthd: {error}; {USAGE}")
        return service.EXIT_USAGE
    except (OSError, control.ControlError) as error:
        log.event(env, f"mailauthd: {error}")
        return service.EXIT_TEMPORARY
    verifier = Verifier(
        _text(identity),
        Resolver(),
        enforce=enforce,
        seconds=numbers.get("t", SECONDS),
    )
    # Root sees whether we are here, and could become whom it likes.
    peers = frozenset((numbers["p"], os.geteuid(), 0)) if "p" in numbers else None
    service.serve("mailauthd", listener, verifier.answer, numbers.get("n"), peers=peers)
    return 0
