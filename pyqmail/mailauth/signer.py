"""dkimsignd: signs what users send, with keys that they cannot read.

    dkimsignd [ -n fd ] [ -u uid -g gid ] [ -s senders -a assign ] keys socket

It reads the message itself and signs only for the domain in its From, and only for a
process of a user to whom the address in From belongs: it signs nothing that its client
could not have sent.
"""

import os
import time

from pyqmail.mailauth import service, signing, wire
from pyqmail.mailauth.bodyhash import BodyHash
from pyqmail.mailauth.keys import KeyStore
from pyqmail.mailauth.message import Message, MessageError
from pyqmail.mailauth.owners import Logins
from pyqmail.mailauth.wire import Answer, Request
from pyqmail.ofmipd.senders import Ownership
from ucspi import control, log

USAGE = (
    "dkimsignd: usage: dkimsignd [ -n fd ] [ -u uid -g gid ] [ -s senders -a assign ] keys socket"
)

FIRST_USER = 1000  # below are the system's users
MAILER = range(7790, 7810)  # users of the appliance's own programs

UNSIGNED = Answer(wire.GO_ON)
TROUBLE = Answer(wire.DEFERRED, b"mail cannot be signed right now (#4.3.0)")


class Signer:
    """Answers requests.

    Args:
        keys: the keys of each domain.
        logins: of each uid; None lets every user sign for every domain that has a key, as is
            right where every user may send as anybody.
        senders: path of the map of senders, see ofmipd.
    """

    def __init__(self, keys: KeyStore, logins: Logins | None, senders: str) -> None:
        self._keys = keys
        self._logins = logins
        self._senders = senders

    def answer(self, request: Request, descriptor: int, uid: int) -> Answer:
        """Return the signatures of a message, as header lines."""
        if request.verb != wire.SIGN:
            raise wire.WireError("not a request to sign")
        session = os.fsdecode(request.session)
        try:
            message = Message(descriptor)
            authors = [author.lower() for author in message.authors()]
            domain = authors[0].rpartition(b"@")[2]
            if not (keys := self._keys.of(domain)):
                return UNSIGNED
            if not self._may_send(uid, message.claims()):
                _log(f"uid {uid} does not own {os.fsdecode(authors[0])}: not signed", session)
                return UNSIGNED
            body = BodyHash(relaxed=True)
            message.hash_body(body)
            digest, now = body.digest(), int(time.time())
            lines = (signing.sign(message.fields, digest, key, now) for key in keys)
            return Answer(wire.GO_ON, lines=b"".join(lines))
        except MessageError as error:
            _log(f"not signed: {error}", session)
            return UNSIGNED
        except (OSError, control.ControlError) as error:
            _log(str(error), session)
            return TROUBLE

    def _may_send(self, uid: int, authors: list[bytes]) -> bool:
        """Say whether a process of uid may send mail of all authors.

        Raises:
            OSError, ControlError: what says so cannot be read.
        """
        if uid < FIRST_USER or uid in MAILER:
            return False
        if self._logins is None:
            return True
        owned = [Ownership(login, self._senders) for login in self._logins.of(uid)]
        return all(any(one.holds(author) for one in owned) for author in authors)


def main(argv: list[str], env: dict[str, str]) -> int:
    """Serve until killed; see the module.

    Returns:
        100 misuse (also: root without -u and -g), 111 the socket cannot be made.
    """
    try:
        given, words = service.options(argv[1:], "nugsa")
        if len(words) != 2 or ("s" in given) != ("a" in given):
            raise service.UsageError("wrong arguments")
        keys, path = words
        notify = service.number(given["n"]) if "n" in given else None
        listener = service.prepare(given, path)
    except service.UsageError as error:
        log.event(env, f"dkimsignd: {error}; {USAGE}")
        return service.EXIT_USAGE
    except OSError as error:
        log.event(env, f"dkimsignd: {error}")
        return service.EXIT_TEMPORARY
    logins = Logins(given["a"]) if "a" in given else None
    signer = Signer(KeyStore(keys, _log), logins, given.get("s", ""))
    service.serve("dkimsignd", listener, signer.answer, notify, service.PER_USER)
    return 0


def _log(text: str, session: str = "") -> None:
    log.event({"SESSION_ID": session} if session else {}, f"dkimsignd: {text}")
