"""Answer qmail-smtpd's question whether a mailbox exists, while the client waits.

A process that qmail-lspawn keeps running beside itself, root like itself. It listens on
a Unix socket (SOCK_SEQPACKET): one address per packet, and for each of them one byte
comes back:

    1   there is such a mailbox, or it is not for this host to say
    0   there is none
    t   it cannot be said now

What decides is what a delivery would come upon: control/locals and virtualdomains, the
user look-up, and then, in a child that has become the user, the .qmail files. Only root
and qmaild may ask. Answers are kept for a few seconds, so that a burst of mail does not
cost a fork for each message.
"""

import gc
import os
import select
import signal
import socket
import struct
import time
from collections import OrderedDict, deque
from typing import NoReturn

from pyqmail.local import domains, dotfile, identity, owner
from pyqmail.local.failure import PERMANENT, TEMPORARY, Failure, temporary
from pyqmail.local.returnpath import NoSuchAddress, ReturnPaths
from pyqmail.queue import ids
from pyqmail.send.routing import Routing
from pyqmail.send.schedule import LOCAL
from pyqmail.users import lookup
from pyqmail.users.lookup import Assignment
from ucspi import chain, control, log

SOCKET = "/run/qmail/recipient.sock"

EXISTS = b"1"
NO_MAILBOX = b"0"
CANNOT_SAY = b"t"

ADDRESS_LIMIT = 1024  # bytes; the queue takes 1003
PEER_LIMIT = 400  # connections; the one that has been silent longest makes room
ASKING_LIMIT = 400  # connections that wait for a child's answer
CHECK_LIMIT = 20  # children at once
CHECK_SECONDS = 20.0  # for a child; qmail-smtpd waits 30 for the answer
ANSWER_SECONDS = 5.0  # an answer is kept
ANSWER_LIMIT = 4096  # answers are kept

# Exit status of a child -> answer.
CHILD_ANSWERS = {0: EXISTS, PERMANENT: NO_MAILBOX}

LIFELINE = 3  # descriptor; end of file there means that qmail-lspawn has gone


class Check:
    """A mailbox that a child looks for, and who waits for the answer."""

    __slots__ = ("address", "deadline", "peers", "user")

    def __init__(self, address: bytes, user: Assignment) -> None:
        self.address = address
        self.user = user
        self.peers: list[socket.socket] = []
        self.deadline = 0.0


class Answers:
    """Answers given in the last seconds, as long as nothing they rest on has changed."""

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[float, bytes]] = {}
        self._version: object = None

    def get(self, address: bytes, now: float, version: object) -> bytes | None:
        """Return the answer for an address if there is one that still counts."""
        if version != self._version:
            self._kept.clear()
            self._version = version
        until, answer = self._kept.get(address, (0.0, b""))
        return answer if now < until else None

    def put(self, address: bytes, answer: bytes, now: float) -> None:
        """Keep an answer; that something cannot be said is never kept."""
        if answer == CANNOT_SAY:
            return
        if len(self._kept) >= ANSWER_LIMIT:
            self._kept.clear()
        self._kept[address] = (now + ANSWER_SECONDS, answer)


class Decider:
    """The part of the answer that needs no child."""

    def __init__(self, return_paths: ReturnPaths) -> None:
        """Also know rewritten senders, to whom bounces come."""
        self._return_paths = return_paths
        self._version: domains.Version | None = None
        self._routing: Routing | None = None

    def version(self) -> object:
        """Return something that differs once control files or users/cdb have changed."""
        srs = self._return_paths.version()
        return domains.version(), domains.file_version(lookup.CDB), srs

    def decide(self, address: bytes) -> bytes | Assignment:
        """Return the answer, or the user as whom to look for the mailbox."""
        current = domains.version()
        try:
            if self._return_paths.target_of(address) is not None:
                return EXISTS
            if self._routing is None or current != self._version:
                self._routing = domains.read()
                self._version = current
            channel, rewritten = self._routing.route(address)
            local = rewritten.rpartition(b"@")[0]
            if channel != LOCAL or not local:
                return EXISTS  # not for here, or the empty name, which is a trash address
            return owner.find(local)
        except NoSuchAddress:
            return NO_MAILBOX
        except (control.ControlError, owner.LookupFailure):
            return CANNOT_SAY


class Server:
    """Peers, questions, children."""

    def __init__(
        self, listener: socket.socket, allowed: frozenset[int], return_paths: ReturnPaths
    ) -> None:
        """Serve listener for peers whose uid is among allowed."""
        self.listener = listener
        self.allowed = allowed
        self.decider = Decider(return_paths)
        self.answers = Answers()
        self.peers: OrderedDict[int, socket.socket] = OrderedDict()  # the silent ones first
        self.checks: dict[bytes, Check] = {}  # by address, running or waiting
        self.waiting: deque[Check] = deque()
        self.running: dict[int, Check] = {}  # by process id
        self.asking = 0  # peers that wait for an answer
        self.poller = select.poll()
        self.wake_read, self.wake_write = os.pipe()
        os.set_blocking(self.wake_read, False)
        os.set_blocking(self.wake_write, False)

    def serve(self) -> None:
        """Answer until qmail-lspawn has gone."""
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        self.listener.setblocking(False)
        for descriptor in (self.listener.fileno(), self.wake_read, LIFELINE):
            self.poller.register(descriptor, select.POLLIN)
        while True:
            for descriptor, _ in self.poller.poll(self._timeout()):
                if descriptor == LIFELINE:
                    return
                if descriptor == self.wake_read:
                    self._reap()
                elif descriptor == self.listener.fileno():
                    self._accept()
                elif descriptor in self.peers:
                    self._read(self.peers[descriptor])
            self._give_up_on_slow_checks()
            self._start_waiting()

    def _timeout(self) -> float | None:
        """Return how long nothing has to be done, in milliseconds."""
        deadlines = [check.deadline for check in self.running.values() if check.peers]
        return max(0.0, min(deadlines) - time.monotonic()) * 1000 + 1 if deadlines else None

    def _accept(self) -> None:
        try:
            peer, _ = self.listener.accept()
        except BlockingIOError:
            return
        except OSError:  # no descriptor is left
            if self.peers:
                self._drop(next(iter(self.peers.values())))
            return
        peer.setblocking(False)
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _, uid, _ = struct.unpack("3i", credentials)
        if uid not in self.allowed:
            peer.close()
            return
        while len(self.peers) >= PEER_LIMIT:
            self._drop(next(iter(self.peers.values())))
        self.peers[peer.fileno()] = peer
        self.poller.register(peer, select.POLLIN)

    def _drop(self, peer: socket.socket) -> None:
        if self.peers.pop(peer.fileno(), None):
            self.poller.unregister(peer)
        peer.close()

    def _read(self, peer: socket.socket) -> None:
        try:
            address = peer.recv(ADDRESS_LIMIT + 1)
        except BlockingIOError:
            return
        except OSError:
            address = b""
        if not address:
            self._drop(peer)
            return
        self.peers.move_to_end(peer.fileno())
        if len(address) > ADDRESS_LIMIT:
            self._answer(peer, NO_MAILBOX)
            return
        now = time.monotonic()
        kept = self.answers.get(address, now, self.decider.version())
        decision = kept or self._decide(address)
        if isinstance(decision, bytes):
            self._answer(peer, decision)
            return
        if self.asking >= ASKING_LIMIT:
            self._answer(peer, CANNOT_SAY)
            return
        check = self.checks.get(address)
        if check is None:
            check = self.checks[address] = Check(address, decision)
            self.waiting.append(check)
        check.peers.append(peer)
        self.asking += 1
        # One question at a time: the peer is not listened to until it has its answer.
        self.poller.unregister(peer)
        del self.peers[peer.fileno()]

    def _decide(self, address: bytes) -> bytes | Assignment:
        try:
            return self.decider.decide(address)
        except Exception as error:  # one question must not end the service
            log.event({}, f"qmail-lspawn: recipient check: {type(error).__name__}: {error}")
            return CANNOT_SAY

    def _answer(self, peer: socket.socket, answer: bytes) -> bool:
        """Send the answer; a peer that does not take it is dropped, and False returned."""
        try:
            peer.send(answer, socket.MSG_NOSIGNAL)
        except OSError:
            self._drop(peer)
            return False
        return True

    def _start_waiting(self) -> None:
        while self.waiting and len(self.running) < CHECK_LIMIT:
            check = self.waiting.popleft()
            try:
                pid = os.fork()
            except OSError:
                self._finish(check, CANNOT_SAY)
                continue
            if not pid:
                look(check.user)
            check.deadline = time.monotonic() + CHECK_SECONDS
            self.running[pid] = check

    def _reap(self) -> None:
        try:
            while os.read(self.wake_read, 4096):
                pass
        except BlockingIOError:
            pass
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            check = self.running.pop(pid, None)
            if check is not None and check.peers:
                status = os.waitstatus_to_exitcode(wait_status)
                self._finish(check, CHILD_ANSWERS.get(status, CANNOT_SAY))

    def _give_up_on_slow_checks(self) -> None:
        now = time.monotonic()
        for pid, check in self.running.items():
            if check.peers and check.deadline <= now:
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass  # without CAP_KILL it goes on until it ends by itself
                self._finish(check, CANNOT_SAY)

    def _finish(self, check: Check, answer: bytes) -> None:
        del self.checks[check.address]
        self.answers.put(check.address, answer, time.monotonic())
        peers, check.peers = check.peers, []
        self.asking -= len(peers)
        for peer in peers:
            if self._answer(peer, answer):
                self.peers[peer.fileno()] = peer
                self.poller.register(peer, select.POLLIN)


def look(user: Assignment) -> NoReturn:
    """Become the user, look for the mailbox, and end this process with the answer."""
    status = TEMPORARY
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        gc.disable()
        chain.close_all_but({0, 1, 2})
        identity.become(user.uid, user.gid)
        status = mailbox_status(user)
    except identity.IdentityError:
        pass
    except BaseException as error:
        log.event({}, f"qmail-lspawn: recipient check: {type(error).__name__}: {error}")
    finally:
        os._exit(status)


def mailbox_status(user: Assignment) -> int:
    """Return 0 if qmail-local would find a mailbox, else the status it would fail with.

    Changes to the user's home.
    """
    try:
        try:
            os.chdir(user.home)
        except OSError as error:
            raise temporary(str(error)) from error
        dotfile.check_home(editing_allowed=True)  # an edited mailbox is still there
        dotfile.find(user.dash, user.ext)
    except Failure as failure:
        return failure.status
    return 0


def listen(path: str) -> socket.socket:
    """Return a listening socket at path, in the place of one that was left over.

    Everybody may connect; who may ask is decided by the peer's uid.

    Raises:
        OSError: it cannot be made there.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        before = os.umask(0o111)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        listener.listen(PEER_LIMIT)
    except OSError:
        listener.close()
        raise
    return listener


def run(home: str, path: str, env: dict[str, str], lifeline: int) -> NoReturn:
    """Be the recipient check: this process was just forked from qmail-lspawn.

    Args:
        home: the qmail home.
        path: where to listen.
        env: for the log.
        lifeline: descriptor that reaches its end of file when qmail-lspawn ends.
    """
    status = TEMPORARY
    try:
        signal.set_wakeup_fd(-1)
        _keep_only(lifeline)
        os.chdir(home)
        allowed = frozenset((0, os.geteuid(), ids.lookup().qmaild))
        Server(listen(path), allowed, ReturnPaths(home, env)).serve()
        status = 0
    except OSError as error:
        log.event(env, f"qmail-lspawn: recipient check at {path}: {error.strerror}")
    except BaseException as error:
        log.event(env, f"qmail-lspawn: recipient check: {type(error).__name__}: {error}")
    finally:
        os._exit(status)


def _keep_only(lifeline: int) -> None:
    """Close what is qmail-lspawn's: above all its descriptors 0 and 1, qmail-send's pipes."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(null, 1)
    if lifeline != LIFELINE:
        os.dup2(lifeline, LIFELINE, inheritable=False)
    chain.close_all_but({0, 1, 2, LIFELINE})
