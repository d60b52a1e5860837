"""checkpassword: whoever's password is on descriptor 3, become them and go on.

    checkpassword prog [ args ... ]

Bernstein's interface. Exit 1: refused. 2: misused. 111: failed for now.
"""

import os
import socket
import struct

from acceptutils import identity
from acceptutils.checkpassword import wire
from acceptutils.checkpassword.wire import Identity, Inquiry, Question, WireError
from ucspi import chain, log

BLOB_DESCRIPTOR = 3
SOCKET = "/run/postern/checkpassword.sock"
TIMEOUT = struct.pack("ll", 60, 0)  # struct timeval; the verifier's queue is far shorter

EXIT_REFUSED = 1
EXIT_MISUSED = 2
EXIT_TEMPORARY = 111


class Unavailable(Exception):
    """Nobody can say now whether the password is right."""


def main(argv: list[str], env: dict[str, str]) -> int:
    """Check descriptor 3; become the user; run the rest of the command line.

    Environment read: CHECKPASSWORD_SERVICE (submission, pop3, or empty: only accounts
    that may do everything), CHECKPASSWORD_SOCKET (the verifier's), CHECKPASSWORD_STORE
    (the accounts file, read here when there is no such socket).
    Environment set: AUTHUP_USER and USER to the account's name, HOME, SHELL.

    Returns:
        1, 2 or 111 (see the module), else what the rest of the command line returns.
    """
    if not argv[1:]:
        log.event(env, "checkpassword: usage: checkpassword prog")
        return EXIT_MISUSED
    try:
        user, password = wire.parse_blob(read_blob())
    except (OSError, WireError) as error:
        log.event(env, f"checkpassword: descriptor 3: {error}")
        return EXIT_MISUSED
    if not user or not password:
        return EXIT_REFUSED
    question = Question(os.fsencode(env.get("CHECKPASSWORD_SERVICE", "")), user, password)
    try:
        found = ask(question, env)
        if found is None:
            return EXIT_REFUSED
        become(found, env)
    except Unavailable as error:
        log.event(env, f"checkpassword: {error}")
        return EXIT_TEMPORARY
    return chain.run(argv[1:], env)


def rehearse(argv: list[str], env: dict[str, str]) -> None:
    """Check a password of nobody's, and ask nobody; see ucspi.rehearsal."""
    user, password = wire.parse_blob(b"rehearsal\0rehearsal\0\0")
    service = os.fsencode(env.get("CHECKPASSWORD_SERVICE", ""))
    try:
        ask(Question(service, user, password), {"CHECKPASSWORD_SOCKET": os.devnull})
    except Unavailable:
        pass  # nobody listens there
    wire.parse_answer(wire.pack_right(Identity("rehearsal", 65000, 65000, "/", "")))


def read_blob() -> bytes:
    """Read descriptor 3 to its end, or to one byte above the limit, and close it.

    Raises:
        OSError: there is no descriptor 3.
    """
    blob = b""
    try:
        while len(blob) <= wire.BLOB_LIMIT:
            chunk = os.read(BLOB_DESCRIPTOR, wire.BLOB_LIMIT + 1 - len(blob))
            if not chunk:
                break
            blob += chunk
    finally:
        try:
            os.close(BLOB_DESCRIPTOR)
        except OSError:
            pass
    return blob


def ask(question: Question | Inquiry, env: dict[str, str]) -> Identity | None:
    """Return whom the user name and password belong to, None when they are refused.

    Raises:
        Unavailable: that cannot be found out now.
    """
    path = env.get("CHECKPASSWORD_SOCKET", SOCKET)
    if isinstance(question, Inquiry):
        record = wire.pack_inquiry(question)
    else:
        record = wire.pack_question(question)
    try:
        answer = exchange(path, record)
    except FileNotFoundError as error:
        if store := env.get("CHECKPASSWORD_STORE"):
            return verify_here(question, store)
        raise Unavailable(f"{path}: {error.strerror}") from error
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror or error}") from error
    try:
        return wire.parse_answer(answer)
    except WireError as error:
        raise Unavailable(f"{path}: {error}") from error


def exchange(path: str, question: bytes) -> bytes:
    """Put one record to the socket at path and return the one that comes back.

    Raises:
        OSError: no such socket, nobody behind it, no answer in time.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        # Not settimeout: that makes the socket non-blocking, and connect then fails at
        # once where others are waiting for the verifier to accept them.
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, option, TIMEOUT)
        connection.connect(path)
        connection.send(question)
        return connection.recv(wire.ANSWER_LIMIT)


def verify_here(question: Question | Inquiry, path: str) -> Identity | None:
    """Answer the question in this process, from the accounts file at path.

    Raises:
        Unavailable: the file cannot be used.
    """
    from acceptutils.checkpassword import store, verifier

    try:
        accounts = store.load(path)
        if isinstance(question, Inquiry):
            return verifier.conclude(accounts.find(question.user), question.service, True)
        return verifier.Verifier().check(accounts, question)
    except (store.StoreError, verifier.CannotVerify) as error:
        raise Unavailable(f"{path}: {error}") from error


def become(found: Identity, env: dict[str, str], *, enter: bool = True) -> None:
    """Be the user, in the home directory unless enter is False; env says who that is.

    Raises:
        Unavailable: that did not work. The process may be the user's already and can
            only end.
    """
    try:
        identity.become(found.uid, found.gid)
        if enter:
            os.chdir(found.home)
    except identity.IdentityError as error:
        raise Unavailable(str(error)) from error
    except OSError as error:
        raise Unavailable(f"home {found.home}: {error.strerror}") from error
    env.update(AUTHUP_USER=found.name, USER=found.name, HOME=found.home, SHELL=found.shell)
