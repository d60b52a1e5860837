"""qmail-lspawn: the whole program over its two pipes, delivering as other users."""

import os
import select
import shutil
import signal
import socket
import stat
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyqmail.local import exitcodes
from pyqmail.local.deliverer import Deliverer
from pyqmail.send.spawnprotocol import Report, ReportReader, Request, encode_request
from pyqmail.users import newu
from ucspi import cdb

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users")

DEADLINE = 20  # seconds within which anything that is waited for must happen
JOE, ANN = 20001, 20002
QUEUE_OWNER = 7794
MESSAGE = b"Received: x\nSubject: hello\n\nbody\n"


class Lspawn:
    """A running qmail-lspawn and our ends of its pipes."""

    def __init__(self, home: Path, env: dict[str, str]) -> None:
        self.home = home
        request_read, self.requests = os.pipe()
        self.reports, report_write = os.pipe()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        actions = [
            (os.POSIX_SPAWN_DUP2, request_read, 0),
            (os.POSIX_SPAWN_DUP2, report_write, 1),
            (os.POSIX_SPAWN_OPEN, 2, str(home / "log"), flags, 0o600),
        ]
        argv = [sys.executable, "-m", "ucspi", "qmail-lspawn", "./Maildir/"]
        self.pid = os.posix_spawn(sys.executable, argv, env, file_actions=actions)
        os.close(request_read)
        os.close(report_write)
        self.reader = ReportReader()
        self.found: list[Report] = []

    def read_more(self) -> bool:
        """Read from the spawner; return False at its end of file."""
        readable, _, _ = select.select([self.reports], [], [], DEADLINE)
        assert readable, f"no report; log: {(self.home / 'log').read_text()}"
        data = os.read(self.reports, 4096)
        self.found += self.reader.feed(data)
        return bool(data)

    def ask(self, recipient: bytes, sender: bytes = b"sam@x", message: bytes = b"1/1") -> bytes:
        """Ask for one delivery and return the report's text."""
        os.write(self.requests, encode_request(Request(0, message, sender, recipient)))
        while not self.found:
            assert self.read_more(), "qmail-lspawn ended"
        return self.found.pop().text

    def end(self) -> int:
        """Close the requests, read all reports, and return the exit status."""
        if self.requests >= 0:
            os.close(self.requests)
            self.requests = -1
        while self.read_more():
            pass
        os.close(self.reports)
        _, wait_status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(wait_status)


def make_home(path: Path, uid: int) -> Path:
    for name in ("tmp", "new", "cur"):
        (path / "Maildir" / name).mkdir(parents=True)
    for directory, names, _ in os.walk(path):
        os.chown(directory, uid, uid)
        os.chmod(directory, 0o700)
        assert names is not None
    return path


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory that other users may pass through; pytest's own one shuts them out."""
    path = Path(tempfile.mkdtemp(prefix="postern-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A qmail home with one message, two users in users/cdb, and an alias user."""
    home = tmp_path / "qmail"
    for name in ("control", "users", "queue/mess/1", "run"):
        (home / name).mkdir(parents=True)
    (home / "queue/mess/1/1").write_bytes(MESSAGE)
    for name in ("mess", "mess/1", "mess/1/1"):
        os.chown(home / "queue" / name, QUEUE_OWNER, 2107)
    (home / "queue/mess").chmod(0o750)
    (home / "queue/mess/1").chmod(0o750)
    make_home(tmp_path / "joe", JOE)
    make_home(tmp_path / "ann", ANN)
    make_home(home / "alias", 7790)
    (home / "control/me").write_text("mx.example.org\n")
    (home / "control/locals").write_text("Example.org\n")
    (home / "control/virtualdomains").write_text("virtual.example:joe-v\n")
    assign(
        home,
        f"=joe:joe:{JOE}:{JOE}:{tmp_path}/joe:::\n"
        f"+joe-:joe:{JOE}:{JOE}:{tmp_path}/joe:-::\n"
        f"=ann:ann:{ANN}:{ANN}:{tmp_path}/ann:::\n"
        f"=admin:root:0:0:{tmp_path}:::\n"
        f"+:alias:7790:2108:{home}/alias:-::\n",
    )
    return home


def assign(home: Path, text: str) -> None:
    cdb.write(str(home / "users/cdb"), newu.records(text.encode() + b".\n"))


@pytest.fixture
def env(home: Path) -> dict[str, str]:
    return {
        "QMAIL_HOME": str(home),
        "QMAIL_RECIPIENT_SOCKET": "",
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }


@pytest.fixture
def start(home: Path, env: dict[str, str]) -> Iterator[Callable[[], Lspawn]]:
    started: list[Lspawn] = []

    def begin() -> Lspawn:
        started.append(Lspawn(home, env))
        return started[-1]

    yield begin
    for lspawn in started:
        if lspawn.requests >= 0:
            assert lspawn.end() == 0


@pytest.fixture
def lspawn(start: Callable[[], Lspawn]) -> Lspawn:
    return start()


def wait_for_process(pid: int) -> None:
    """Wait until a process, no child of ours, has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([descriptor], [], [], DEADLINE)[0], "it stays for ever"
    os.close(descriptor)


def dot(home: Path, user: str, name: str, content: str) -> Path:
    path = home.parent / user / name
    path.write_text(content)
    owner = path.parent.stat()
    os.chown(path, owner.st_uid, owner.st_gid)
    path.chmod(0o600)
    return path


def test_the_limit_is_announced_and_end_of_file_ends_it(lspawn: Lspawn) -> None:
    assert lspawn.end() == 0
    assert lspawn.reader.limit == 120


def test_a_message_is_delivered_as_its_user(lspawn: Lspawn, tmp_path: Path) -> None:
    assert lspawn.ask(b"joe@example.org") == b"Kdid 1+0+0\n"
    (file,) = (tmp_path / "joe/Maildir/new").iterdir()
    status = file.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (JOE, JOE, 0o600)
    heading = b"Return-Path: <sam@x>\nDelivered-To: joe@example.org\n"
    assert file.read_bytes() == heading + MESSAGE


def test_the_delivery_has_the_users_ids_and_no_others(lspawn: Lspawn, home: Path) -> None:
    dot(home, "ann", ".qmail", "|grep -E '^(Uid|Gid|Groups|CapEff):' /proc/self/status\n")
    text = lspawn.ask(b"ann@example.org")
    assert text.split() == (
        b"KUid: %d %d %d %d Gid: %d %d %d %d Groups: %d CapEff: 0000000000000000 did 0+0+1"
        % ((ANN,) * 9)
    ).split()  # fmt: skip


def test_one_user_cannot_read_anothers_mail(lspawn: Lspawn, home: Path) -> None:
    dot(home, "ann", ".qmail", f"|cat {home.parent}/joe/Maildir || exit 100\n")
    assert lspawn.ask(b"ann@example.org").startswith(b"D")


def test_the_queue_is_out_of_reach_of_a_user(lspawn: Lspawn, home: Path) -> None:
    dot(home, "ann", ".qmail", f"|ls {home}/queue/mess || exit 100\n")
    assert lspawn.ask(b"ann@example.org").startswith(b"D")


def test_an_address_that_is_not_listed_is_alias_business(lspawn: Lspawn, home: Path) -> None:
    text = b"DSorry, no mailbox here by that name. (#5.1.1)\n"
    assert lspawn.ask(b"nobody@example.org") == text
    dot(home, "qmail/alias", ".qmail-somebody", "./Maildir/\n")
    assert lspawn.ask(b"somebody@example.org") == b"Kdid 1+0+0\n"


def test_no_delivery_is_made_as_root(lspawn: Lspawn) -> None:
    text = b"ZNot allowed to perform deliveries as root.\n"
    assert lspawn.ask(b"admin@example.org") == text


def test_an_empty_mailbox_name_is_a_trash_address(lspawn: Lspawn) -> None:
    assert lspawn.ask(b"@example.org") == b"K"


def test_the_host_is_what_follows_the_last_at(lspawn: Lspawn, home: Path) -> None:
    dot(home, "joe", ".qmail-default", '|echo "$LOCAL|$HOST"\n')
    assert lspawn.ask(b"joe-a@b@example.org") == b"Kjoe-a@b|example.org\ndid 0+0+1\n"


def test_a_recipient_that_looks_like_an_option_is_none(lspawn: Lspawn) -> None:
    text = b"DSorry, no mailbox here by that name. (#5.1.1)\n"
    assert lspawn.ask(b"-n@example.org") == text


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (b"1/2", b"Zqmail-spawn unable to open message. (#4.3.0)\n"),
        (b"../1", b"DInternal error: messid has nonnumerics. (#5.3.5)\n"),
        (b"", b"DInternal error: messid too short. (#5.3.5)\n"),
        (b"1/7", b"ZSorry, message has wrong owner. (#4.3.5)\n"),
        (b"1/8", b"ZSorry, message has wrong type. (#4.3.5)\n"),
    ],
)
def test_messages_that_are_none_of_the_queues(
    lspawn: Lspawn, home: Path, message: bytes, text: bytes
) -> None:
    (home / "queue/mess/1/7").write_bytes(b"foreign")
    os.mkfifo(home / "queue/mess/1/8")
    assert lspawn.ask(b"joe@example.org", message=message) == text
    assert lspawn.ask(b"joe@example.org") == b"Kdid 1+0+0\n"


def test_damaged_user_database_defers(lspawn: Lspawn, home: Path) -> None:
    (home / "users/cdb").write_bytes(b"garbage")
    text = b"ZTrouble reading users/cdb in qmail-lspawn.\n"
    assert lspawn.ask(b"joe@example.org") == text


def test_a_new_user_database_counts_at_once(lspawn: Lspawn, home: Path) -> None:
    assign(home, f"=new:ann:{ANN}:{ANN}:{home.parent}/ann:::\n")
    assert lspawn.ask(b"new@example.org") == b"Kdid 1+0+0\n"


def test_a_report_that_is_too_long_is_cut(lspawn: Lspawn, home: Path) -> None:
    dot(home, "joe", ".qmail", "|yes | head -c 200000; exit 100\n")
    text = lspawn.ask(b"joe@example.org")
    assert len(text) <= 3000
    assert text.startswith(b"Dy\ny\n")
    assert text.endswith(b"\nError report too long, sorry.\n")


def test_a_zero_byte_in_the_output_ends_the_report_and_not_the_protocol(
    lspawn: Lspawn, home: Path
) -> None:
    dot(home, "joe", ".qmail", "|printf 'one\\0two'\n")
    assert lspawn.ask(b"joe@example.org") == b"Kone"
    assert lspawn.ask(b"ann@example.org") == b"Kdid 1+0+0\n"


def test_a_delivery_that_leaves_a_process_behind_is_over(lspawn: Lspawn, home: Path) -> None:
    fifo = home.parent / "joe" / "fifo"
    os.mkfifo(fifo)
    os.chown(fifo, JOE, JOE)
    dot(home, "joe", ".qmail", "|cat fifo &\n")
    assert lspawn.ask(b"joe@example.org") == b"Kdid 0+0+1\n"
    fifo.write_text("now end\n")


def test_a_process_left_behind_that_never_stops_writing_holds_nothing_up(
    lspawn: Lspawn, home: Path
) -> None:
    dot(home, "joe", ".qmail", "|yes &\n")
    assert lspawn.ask(b"joe@example.org").startswith(b"K")
    assert lspawn.ask(b"ann@example.org") == b"Kdid 1+0+0\n"


def test_successive_deliveries_to_a_user_are_made_by_one_process(
    lspawn: Lspawn, home: Path
) -> None:
    dot(home, "joe", ".qmail", "|echo $PPID\n./Maildir/\n")
    dot(home, "ann", ".qmail", "|echo $PPID\n")
    first = lspawn.ask(b"joe@example.org")
    pid = int(first[1:].split()[0])
    descriptors = os.listdir(f"/proc/{pid}/fd")
    for _ in range(5):
        assert lspawn.ask(b"joe@example.org") == first
    assert os.listdir(f"/proc/{pid}/fd") == descriptors == ["0", "1", "2", "3", "4"]
    assert lspawn.ask(b"ann@example.org").split()[0] != first.split()[0]
    assert len(os.listdir(home.parent / "joe/Maildir/new")) == 6


def test_only_listed_users_other_than_root_share_a_process(home: Path) -> None:
    deliverer = Deliverer(str(home), b"./Maildir/", {})

    def key(recipient: bytes) -> object:
        return deliverer.plan(Request(0, b"1/1", b"sam@x", recipient)).key

    assert key(b"joe@example.org") == key(b"Joe-list@example.org") == (JOE, JOE)
    assert key(b"admin@example.org") is None
    assert key(b"@example.org") is None
    assign(home, f"=ann:ann:{ANN}:{ANN}:{home.parent}/ann:::\n")
    assert key(b"ann@example.org") == (ANN, ANN)
    assert key(b"joe@example.org") is None
    (home / "users/cdb").write_bytes(b"garbage")
    assert key(b"ann@example.org") is None
    (home / "users/cdb").unlink()
    assert key(b"ann@example.org") is None


def test_a_process_without_work_ends(lspawn: Lspawn, home: Path) -> None:
    dot(home, "joe", ".qmail", "|echo $PPID\n")
    pid = int(lspawn.ask(b"joe@example.org")[1:].split()[0])
    wait_for_process(pid)


def test_a_process_that_was_killed_while_it_waited_costs_no_delivery(
    lspawn: Lspawn, home: Path
) -> None:
    dot(home, "joe", ".qmail", "|echo $PPID\n")
    pid = int(lspawn.ask(b"joe@example.org")[1:].split()[0])
    os.kill(pid, signal.SIGKILL)
    wait_for_process(pid)
    assert lspawn.ask(b"joe@example.org").endswith(b"\ndid 0+0+1\n")


def test_a_process_that_is_killed_at_work_defers(lspawn: Lspawn, home: Path) -> None:
    dot(home, "joe", ".qmail", "|kill -9 $PPID\n")
    for _ in range(2):
        assert lspawn.ask(b"joe@example.org") == b"Zqmail-local crashed.\n"


def test_after_a_failure_the_process_is_good_for_another_delivery(
    lspawn: Lspawn, home: Path
) -> None:
    path = dot(home, "joe", ".qmail", "|echo no; exit 100\n")
    assert lspawn.ask(b"joe@example.org") == b"Dno\n"
    path.unlink()
    assert lspawn.ask(b"joe@example.org") == b"Kdid 1+0+0\n"


def test_a_slow_delivery_does_not_hold_up_others_and_is_finished_after_end_of_file(
    lspawn: Lspawn, home: Path
) -> None:
    fifo = home.parent / "joe" / "fifo"
    os.mkfifo(fifo)
    os.chown(fifo, JOE, JOE)
    dot(home, "joe", ".qmail", "|cat fifo\n")
    slow = Request(7, b"1/1", b"", b"joe@example.org")
    os.write(lspawn.requests, encode_request(slow))
    assert lspawn.ask(b"ann@example.org") == b"Kdid 1+0+0\n"
    again = encode_request(slow)
    os.write(lspawn.requests, again)
    while not lspawn.found:
        lspawn.read_more()
    assert lspawn.found.pop() == Report(7, b"ZInternal error: delnum in use. (#4.3.5)\n")
    os.close(lspawn.requests)
    lspawn.requests = -1
    fifo.write_text("late\n")
    assert lspawn.end() == 0
    assert lspawn.found == [Report(7, b"Klate\ndid 0+0+1\n")]


def test_requests_may_arrive_in_pieces(lspawn: Lspawn) -> None:
    data = encode_request(Request(0, b"1/1", b"s@x", b"ann@example.org"))
    for start in range(len(data)):
        os.write(lspawn.requests, data[start : start + 1])
    while not lspawn.found:
        lspawn.read_more()
    assert lspawn.found == [Report(0, b"Kdid 1+0+0\n")]


def test_without_a_reader_deliveries_are_finished(lspawn: Lspawn, home: Path) -> None:
    fifo = home.parent / "joe" / "fifo"
    os.mkfifo(fifo)
    os.chown(fifo, JOE, JOE)
    dot(home, "joe", ".qmail", "|cat fifo\n./Maildir/\n")
    os.write(lspawn.requests, encode_request(Request(7, b"1/1", b"", b"joe@example.org")))
    with fifo.open("w"):
        os.close(lspawn.requests)
        os.close(lspawn.reports)
        lspawn.requests = -1
    _, wait_status = os.waitpid(lspawn.pid, 0)
    assert wait_status == 0
    assert len(os.listdir(home.parent / "joe/Maildir/new")) == 1


def test_it_wants_a_default_delivery(home: Path, env: dict[str, str]) -> None:
    argv = [sys.executable, "-m", "ucspi", "qmail-lspawn"]
    pid = os.posix_spawn(sys.executable, argv, env)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 100


@pytest.mark.parametrize(
    ("wait_status", "output", "text"),
    [
        (0, b"did 1+0+0\n", b"Kdid 1+0+0\n"),
        (100 << 8, b"no\n", b"Dno\n"),
        (111 << 8, b"later\n", b"Zlater\n"),
        (71 << 8, b"", b"Z"),
        (74 << 8, b"", b"Z"),
        (75 << 8, b"", b"Z"),
        (1 << 8, b"?\n", b"D?\n"),
        (9, b"did", b"Zqmail-local crashed.\n"),
        (11 | 128, b"", b"Zqmail-local crashed.\n"),
        (113 << 8, b"x", b"ZNot allowed to perform deliveries as root.\n"),
        (116 << 8, b"x", b"ZUnable to find alias user!\n"),
        (117 << 8, b"x", b"ZTrouble reading users/cdb in qmail-lspawn.\n"),
        (118 << 8, b"x", b"ZTemporary failure in qmail-lspawn.\n"),
        (126 << 8, b"x", b"DUnable to run qmail-local.\n"),
    ],
)
def test_what_an_exit_status_means(wait_status: int, output: bytes, text: bytes) -> None:
    assert exitcodes.report(wait_status, output) == text


# --- the recipient check -------------------------------------------------------------


@pytest.fixture
def ask(
    home: Path, env: dict[str, str], start: Callable[[], Lspawn]
) -> Iterator[Callable[[bytes], bytes]]:
    path = str(home / "run" / "recipient.sock")
    env["QMAIL_RECIPIENT_SOCKET"] = path
    start()
    connection = connect(path)

    def question(address: bytes) -> bytes:
        connection.send(address)
        return connection.recv(16)

    yield question
    connection.close()


def connect(path: str) -> socket.socket:
    until = time.monotonic() + DEADLINE
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(DEADLINE)
        try:
            connection.connect(path)
            return connection
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            assert time.monotonic() < until, "no recipient check"
            time.sleep(0.01)


def wait_for_end(connection: socket.socket) -> None:
    try:
        assert connection.recv(16) == b""
    except ConnectionResetError:
        pass
    connection.close()


Ask = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    ("address", "answer"),
    [
        (b"joe@example.org", b"1"),
        (b"JOE@EXAMPLE.ORG", b"1"),
        (b"joe-list@example.org", b"1"),
        (b"joe-nolist@example.org", b"0"),
        (b"nobody@example.org", b"0"),
        (b"nobody@elsewhere.example", b"1"),
        (b"list@virtual.example", b"1"),
        (b"nobody@virtual.example", b"0"),
        (b"admin@example.org", b"t"),
        (b"nobody", b"1"),  # at envnoathost, which is not local here
        (b"x" * 1500 + b"@example.org", b"0"),
    ],
)
def test_whether_a_mailbox_exists(ask: Ask, home: Path, address: bytes, answer: bytes) -> None:
    dot(home, "joe", ".qmail-list", "./Maildir/\n")
    dot(home, "joe", ".qmail-v-list", "./Maildir/\n")
    assert ask(address) == answer
    assert ask(address) == answer


def test_a_missing_home_is_temporary(ask: Ask, home: Path) -> None:
    (home.parent / "ann").rename(home.parent / "away")
    assert ask(b"ann@example.org") == b"t"
    (home.parent / "away").rename(home.parent / "ann")
    assert ask(b"ann@example.org") == b"1"


def test_a_changed_user_database_counts_at_once(ask: Ask, home: Path) -> None:
    assert ask(b"new@example.org") == b"0"
    assign(home, f"=new:ann:{ANN}:{ANN}:{home.parent}/ann:::\n")
    assert ask(b"new@example.org") == b"1"


def test_changed_control_files_count_at_once(ask: Ask, home: Path) -> None:
    assert ask(b"nobody@another.example") == b"1"
    (home / "control/locals").write_text("example.org\nanother.example\n")
    assert ask(b"nobody@another.example") == b"0"


def test_a_stranger_is_not_answered(ask: Ask, home: Path) -> None:
    assert ask(b"joe@example.org") == b"1"
    pid = os.fork()
    if not pid:
        status = 70
        try:
            os.setresuid(JOE, JOE, JOE)
            stranger = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stranger.settimeout(DEADLINE)
            stranger.connect(str(home / "run/recipient.sock"))
            try:
                stranger.send(b"joe@example.org")
                status = 1 if stranger.recv(16) else 0
            except (BrokenPipeError, ConnectionResetError):
                status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_client_that_hangs_up_harms_nobody(ask: Ask, home: Path) -> None:
    other = connect(str(home / "run/recipient.sock"))
    other.send(b"joe@example.org")
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other.close()
    assert ask(b"ann@example.org") == b"1"


def test_the_check_is_started_again_and_ends_with_lspawn(
    home: Path, env: dict[str, str], start: Callable[[], Lspawn]
) -> None:
    path = str(home / "run" / "recipient.sock")
    env["QMAIL_RECIPIENT_SOCKET"] = path
    lspawn = start()
    connection = connect(path)
    pid, _, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    )
    os.kill(pid, signal.SIGKILL)
    wait_for_end(connection)
    connection = connect(path)
    connection.send(b"nobody@example.org")
    assert connection.recv(16) == b"0"
    assert lspawn.end() == 0
    wait_for_end(connection)
