"""Who runs as whom, holds what, reaches what: read from /proc while sessions are open."""

import base64
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from harness import appliance as harness
from harness import wait
from harness.appliance import Appliance, Process
from harness.clients import Account, Endpoint
from harness.dialogue import Dialogue

AUTHUP, UCSPITLS, CHECKPW, QMAILD = 7800, 7801, 7802, 7791
METRICS, QMAILS, QMAIL = 7805, 7796, 2107
SERVICES = ("mx", "submission", "submissions", "pop3", "pop3s")
WITH_LOGIN = SERVICES[1:]
CAPABILITIES = 0x4E1  # CHOWN, KILL, SETGID, SETUID, NET_BIND_SERVICE


def uids(process: Process) -> set[int]:
    """Return the real, effective, saved and file system uid of a process."""
    return set(_status(process, "Uid"))


def groups(process: Process) -> set[int]:
    """Return every group of a process."""
    return {*_status(process, "Gid"), *_status(process, "Groups")}


def _status(process: Process, field: str) -> list[int]:
    text = (process.folder / "status").read_text()
    found = re.search(rf"^{field}:(.*)$", text, re.MULTILINE)
    assert found
    return [int(number) for number in found[1].split()]


def capabilities(process: Process) -> int:
    """Return the effective and permitted capabilities of a process, as one set of bits."""
    text = (process.folder / "status").read_text()
    return int(re.findall(r"^CapEff:\s*(\w+)$", text, re.MULTILINE)[0], 16) | int(
        re.findall(r"^CapPrm:\s*(\w+)$", text, re.MULTILINE)[0], 16
    )


def status_word(process: Process, field: str) -> str:
    """Return what /proc says of one field of a process."""
    text = (process.folder / "status").read_text()
    return str(re.findall(rf"^{field}:\s*(\w+)", text, re.MULTILINE)[0])


def kinds(process: Process) -> list[str]:
    """Return what the descriptors of a process are: socket, pipe, or a path."""
    return sorted(target.split(":")[0] for target in _descriptors(process).values())


def account_uid(appliance: Appliance, account: Account) -> int:
    """Return the uid of an account's home."""
    status, printed = appliance.run(
        ["stat", "-c", "%u", "/home/{1}/{0}".format(*account.address.split("@"))]
    )
    assert status == 0, printed
    return int(printed)


@pytest.fixture
def before(appliance: Appliance) -> set[int]:
    """The processes that were there before the test's sessions."""
    return {process.pid for process in appliance.processes()}


def sessions(appliance: Appliance, before: set[int]) -> list[Process]:
    """Return the processes that the test's sessions brought, on ports with a login.

    Those of port 25 stay for other clients, and a health check may bring a new one.
    The engine's health check is root, and has sessions of its own: it is waited for, and
    for what is just ending.
    """
    seen: list[Process] = []

    def found() -> list[list[Process]] | None:
        nonlocal seen
        running = [one for one in appliance.processes() if one.pid not in before]
        others = {one.pid for one in appliance.processes_of("mx")}
        last, seen = seen, [one for one in running if one.pid not in others]
        if last != seen or any("postern health" in process.command for process in seen):
            return None
        return [seen]

    return wait.until("the end of a health check", found)[0]


def login(at: Endpoint, service: str, account: Account) -> Dialogue:
    """Return a dialogue with a session of account going on."""
    dialogue = Dialogue(at, service)
    if service in ("submission", "pop3"):
        if service == "submission":
            dialogue.say(b"EHLO client.example")
        dialogue.start_tls()
    if service.startswith("pop3"):
        dialogue.say(b"USER " + account.address.encode())
        assert dialogue.code(b"PASS " + account.password.encode()) == b"+OK"
        assert dialogue.code(b"NOOP") == b"+OK"
    else:
        dialogue.say(b"EHLO client.example")
        secret = base64.b64encode(f"\0{account.address}\0{account.password}".encode())
        assert dialogue.code(b"AUTH PLAIN " + secret) == b"235"
        assert dialogue.code(b"EHLO client.example") == b"250"
    return dialogue


@pytest.mark.parametrize("service", WITH_LOGIN)
def test_an_authenticated_session_has_the_users_uid_and_no_root(
    service: str, appliance: Appliance, at: Endpoint, account: Account, before: set[int]
) -> None:
    uid = account_uid(appliance, account)
    with login(at, service, account):
        running = sessions(appliance, before)
        seen = {process.pid: uids(process) for process in running}
        assert {uid} in seen.values(), running
        assert set().union(*seen.values()) <= {uid, AUTHUP, UCSPITLS}, (seen, running)
        for process in running:
            assert capabilities(process) == 0, process
            assert groups(process) <= {uid, AUTHUP, UCSPITLS}, process


@pytest.mark.parametrize("service", WITH_LOGIN)
def test_a_session_has_no_way_to_anybody_but_its_client(
    service: str, appliance: Appliance, at: Endpoint, account: Account, before: set[int]
) -> None:
    """Over TLS that is pipes. A socket would lead to authup's parser, or to a TLS zygote."""
    uid = account_uid(appliance, account)
    with login(at, service, account):
        running = sessions(appliance, before)
        users = [process for process in running if uids(process) == {uid}]
        assert users
        for process in users:
            assert set(kinds(process)) == {"pipe"}, (process, _descriptors(process))
        [parser] = [process for process in running if uids(process) == {AUTHUP}]
        assert kinds(parser).count("socket") == 1, _descriptors(parser)


@pytest.mark.parametrize("service", WITH_LOGIN)
def test_the_broker_holds_nothing_of_the_clients(
    service: str, appliance: Appliance, at: Endpoint, before: set[int]
) -> None:
    def let_go() -> list[Process] | None:
        # It does so beside the greeting, which may be here first.
        brokers = [p for p in sessions(appliance, before) if uids(p) == {0}]
        done = all(kinds(p) == ["/dev/null", "/dev/null", "pipe", "socket"] for p in brokers)
        return brokers if brokers and done else None

    with Dialogue(at, service):
        wait.until("a broker with its channel and the log only", let_go)


def test_nobody_looks_into_a_process_that_reads_strangers(
    appliance: Appliance, at: Endpoint, account: Account, before: set[int]
) -> None:
    """Not another of the same uid either: not its memory, nor its descriptors (ptrace(2)).

    The kernel shows what it would refuse to trace as root's.
    """
    with ExitStack() as stack:
        for service in SERVICES:
            dialogue = stack.enter_context(Dialogue(at, service))
            if service == "mx":
                dialogue.say(b"EHLO client.example")
                dialogue.start_tls()
                dialogue.say(b"EHLO client.example")
        for service in WITH_LOGIN:
            stack.enter_context(login(at, service, account))
        running = sessions(appliance, before) + appliance.processes_of("mx")[1:]
        running += [p for p in appliance.processes() if uids(p) <= {UCSPITLS, CHECKPW}]
        assert {uid for p in running for uid in uids(p)} >= {AUTHUP, UCSPITLS, CHECKPW, QMAILD}
        for process in running:
            assert (process.folder / "environ").stat().st_uid == 0, process
            limits = (process.folder / "limits").read_text()
            assert re.search(r"^Max core file size +0 ", limits, re.MULTILINE), process


def test_no_process_can_gain_a_right(appliance: Appliance, engine_filters_calls: bool) -> None:
    looked_at = 0
    for process in appliance.processes():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            assert status_word(process, "NoNewPrivs") == "1", process
            assert int(status_word(process, "CapBnd"), 16) == CAPABILITIES, process
            assert int(status_word(process, "CapAmb"), 16) == 0, process
            if 0 not in uids(process):
                assert capabilities(process) == 0, process
            if engine_filters_calls:
                assert status_word(process, "Seccomp") == "2", process
            looked_at += 1
    assert looked_at > len(SERVICES)


@pytest.fixture
def engine_filters_calls() -> bool:
    """Whether the engine has its default seccomp profile, which the compose file leaves on."""
    options = harness.client().info().get("SecurityOptions") or []
    return any("name=seccomp" in o and "unconfined" not in o for o in options)


USERS = {
    "alias": (7790, 2108),
    "qmaild": (QMAILD, 2108),
    "qmaill": (7792, 2108),
    "qmailq": (7794, 2107),
    "qmailr": (7795, 2107),
    "qmails": (7796, 2107),
    "authup": (AUTHUP, AUTHUP),
    "ucspitls": (UCSPITLS, UCSPITLS),
    "checkpw": (CHECKPW, CHECKPW),
    "metrics": (METRICS, METRICS),
    "account": (20000, 20000),
}
EVERYBODY = frozenset(USERS)
FILES = {
    "/data/tls/key.pem": frozenset(),
    "/data/accounts/accounts.json": frozenset({"checkpw"}),
    "/data/accounts/lock": frozenset(),
    "/data/queue/mess": frozenset({"qmailq", "qmailr", "qmails"}),
    "/data/queue/info": frozenset({"qmails"}),
    "/data/queue/intd": frozenset({"qmailq"}),
    "/data/home": frozenset(),
    "/data/tmp": frozenset(),
    "/data/alias/Maildir": frozenset({"alias"}),
    "/run/postern/metrics": frozenset({"qmaill", "metrics"}),
    "/var/qmail/control/me": EVERYBODY,
}
# Type, what to say, and who gets a word in return.
DOORS = {
    "/run/postern/checkpassword.sock": ("SOCK_SEQPACKET", "x", frozenset()),
    "/run/postern/guard.sock": ("SOCK_SEQPACKET", "x", frozenset()),
    "/run/postern/auth-events.sock": ("SOCK_STREAM", "x", frozenset()),
    "/run/postern/recipient.sock": ("SOCK_SEQPACKET", "x@example.test", frozenset({"qmaild"})),
    "/run/qmail/queue.sock": ("SOCK_STREAM", "x", EVERYBODY),
}
# Runs inside, as root that becomes each user in turn: whom files and sockets let in.
TRY = """
import json, os, socket, sys
users, files, doors = json.load(sys.stdin)

def reads(path):
    if os.path.isdir(path):
        return os.listdir(path) is not None
    return open(path, "rb").read(1) is not None

def speaks(path, kind, word):
    with socket.socket(socket.AF_UNIX, getattr(socket, kind)) as asking:
        asking.settimeout(10)
        asking.connect(path)
        asking.send(word.encode())
        return asking.recv(100) != b""

def attempt(action, *arguments):
    try:
        return action(*arguments)
    except OSError:
        return False

for name, (uid, gid) in users.items():
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setgroups([gid])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        found = [path for path in files if attempt(reads, path)]
        found += [path for path in doors if attempt(speaks, path, *doors[path])]
        os.write(writing, json.dumps([name, found]).encode() + b"\\n")
        os._exit(0)
    os.wait()
    os.close(writing)
    sys.stdout.write(os.read(reading, 65536).decode())
"""


def test_who_can_read_and_reach_what(appliance: Appliance) -> None:
    doors = {path: (kind, word) for path, (kind, word, _) in DOORS.items()}
    task = json.dumps([USERS, list(FILES), doors]).encode()
    status, printed = appliance.run(["python3", "-c", TRY], data=task)
    assert status == 0, printed
    found = dict(json.loads(line) for line in printed.splitlines())
    assert found.keys() == USERS.keys()
    welcome = FILES | {path: users for path, (_, _, users) in DOORS.items()}
    for path, users in welcome.items():
        assert {user for user in USERS if path in found[user]} == users, path


@pytest.mark.parametrize("service", WITH_LOGIN)
def test_before_auth_no_process_that_reads_the_client_is_root(
    service: str, appliance: Appliance, at: Endpoint, before: set[int]
) -> None:
    with Dialogue(at, service):
        running = sessions(appliance, before)
        holders = [process for process in running if _holds_client(process)]
        assert holders
        unprivileged = [p for p in holders if uids(p) <= {AUTHUP, UCSPITLS}]
        assert unprivileged, running
        for process in running:
            if uids(process) == {0}:
                # The broker: blocked on the parser's records, never on the client.
                assert not _waits_for_client(process), process


def _holds_client(process: Process) -> bool:
    return any(str(target).startswith("socket:") for target in _descriptors(process).values())


def _waits_for_client(process: Process) -> bool:
    """Say whether the process is in a read of descriptor 0 right now."""
    words = (process.folder / "syscall").read_text().split()
    return words[0] == "0" and int(words[1], 16) == 0


def _descriptors(process: Process) -> dict[int, str]:
    found = {}
    for entry in (process.folder / "fd").iterdir():
        try:
            found[int(entry.name)] = str(entry.readlink())
        except FileNotFoundError:
            continue
    return found


def test_what_serves_metrics_has_no_right(measured: Appliance) -> None:
    """And what looks at the queue for it hears nobody else."""
    server, looker = measured.processes_of("metrics")
    assert (uids(server), groups(server)) == ({METRICS}, {METRICS})
    assert (uids(looker), groups(looker)) == ({QMAILS}, {QMAIL})
    for process in (server, looker):
        assert capabilities(process) == 0
        assert (process.folder / "environ").stat().st_uid == 0
    assert kinds(looker) == ["/dev/null", "/dev/null", "pipe", "socket"]
    # Its input, its log, the port, and the way to the looker; at times a client or a service.
    assert kinds(server).count("pipe") <= 2
    assert not [kind for kind in kinds(server) if kind.startswith(("/data", "/run"))]


def test_the_mx_runs_as_qmaild_from_the_first_byte(appliance: Appliance, at: Endpoint) -> None:
    # Whoever serves this client may have served another before.
    with Dialogue(at, "mx") as dialogue:
        for is_secure in (False, True):
            if is_secure:
                dialogue.start_tls()
            dialogue.say(b"EHLO client.example")
            server, *others = appliance.processes_of("mx")
            assert uids(server) == {0}
            assert {uid for process in others for uid in uids(process)} == {QMAILD, UCSPITLS}


def test_the_key_is_in_no_process_but_the_tls_ones(
    appliance: Appliance, at: Endpoint, account: Account
) -> None:
    status, pem = appliance.run(["cat", "/data/tls/key.pem"])
    assert status == 0
    key = load_pem_private_key(pem.encode(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    secret = key.private_numbers().private_value.to_bytes(32, "big")
    needles = (secret, secret[::-1])
    with ExitStack() as stack:
        for service in ("mx", "submission", "pop3"):
            stack.enter_context(Dialogue(at, service))
        for service in ("submission", "submissions", "pop3", "pop3s"):
            stack.enter_context(login(at, service, account))
        holders = [p for p in appliance.processes() if _memory_has(p, needles)]
        assert holders, "not even the TLS processes hold the key: the search is broken"
        assert [p for p in holders if uids(p) != {UCSPITLS}] == []
        for process in appliance.processes():
            files = list(_descriptors(process).values())
            assert not [name for name in files if "key.pem" in name], process


def _memory_has(process: Process, needles: tuple[bytes, ...]) -> bool:
    try:
        regions = list(_writable_regions(process))
        with (process.folder / "mem").open("rb", buffering=0) as memory:
            for start, end in regions:
                memory.seek(start)
                try:
                    content = memory.read(end - start)
                except OSError:
                    continue
                if any(needle in content for needle in needles):
                    return True
    except (FileNotFoundError, ProcessLookupError):
        return False
    return False


def _writable_regions(process: Process) -> Iterator[tuple[int, int]]:
    for line in (process.folder / "maps").read_text().splitlines():
        span, mode = line.split()[:2]
        if mode.startswith("rw"):
            start, _, end = span.partition("-")
            yield int(start, 16), int(end, 16)


def test_one_account_cannot_read_anothers_mail(appliance: Appliance, account: Account) -> None:
    other = appliance.add_account()
    uid = account_uid(appliance, other)
    name, domain = account.address.split("@")
    status, _ = appliance.run(["ls", f"/home/{domain}/{name}"], user=f"{uid}:{uid}")
    assert status != 0


def test_passwords_are_in_no_log_environment_or_command_line(
    appliance: Appliance, at: Endpoint, account: Account
) -> None:
    secrets = [account.password, base64.b64encode(account.password.encode()).decode().rstrip("=")]
    with ExitStack() as stack:
        for service in ("submission", "pop3s"):
            stack.enter_context(login(at, service, account))
        for process in appliance.processes():
            for name in ("environ", "cmdline"):
                try:
                    content = (process.folder / name).read_bytes()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                assert not [s for s in secrets if s.encode() in content], (process, name)
    log = appliance.logs()
    assert account.address in log
    assert not [secret for secret in secrets if secret in log]


ROOT_KNOWS = """#!/bin/sh
# A checkpassword that knows two users: root, whose password is "right", and nobody else.
given=$(tr '\\0' '\\n' <&3 | head -n 2 | tr '\\n' ':')
exec 3<&-
[ "$given" = root:right: ] || exit 1
exec "$@"
"""


def test_roots_correct_password_looks_like_any_wrong_one(appliance: Appliance) -> None:
    place = "/run/checkpassword-that-knows-root"
    install = f"cat >{place} && chmod 755 {place}"
    assert appliance.run(["sh", "-c", install], data=ROOT_KNOWS.encode())[0] == 0
    chain = f"authup smtp {place} checknotroot fixsmtpio ofmipd"
    appliance.container.exec_run(
        ["sh", "-c", f"PATH=/usr/bin:/bin:/var/qmail/bin acceptserver 0 2525 {chain}"], detach=True
    )
    inside = Endpoint(appliance.address, {"submission": 2525})

    def greeted() -> Dialogue | None:
        try:
            return Dialogue(inside, "submission")
        except ConnectionRefusedError:
            return None

    try:
        with wait.until("a server on port 2525", greeted) as dialogue:
            dialogue.say(b"EHLO client.example")
            replies = [
                dialogue.say(b"AUTH PLAIN " + base64.b64encode(b"\0root\0" + password))
                for password in (b"right", b"wrong")
            ]
        assert replies[0] == replies[1] == [b"535 authup authorization failed (#5.7.0)"]
        assert "checknotroot: WAS RUNNING AS ROOT" not in str(replies)
    finally:
        for process in appliance.processes():
            if "2525" in process.command:
                appliance.run(["sh", "-c", "kill $(pgrep -f 'acceptserver 0 2525')"])
                break


def test_every_root_process_is_one_that_must_be(appliance: Appliance) -> None:
    allowed = re.compile(
        r"s6-svscan|s6-supervise|acceptserver|qmail-lspawn|qmail-start|/launch |postern"
    )
    strangers = [
        process
        for process in appliance.processes()
        if 0 in uids(process) and not allowed.search(process.command)
    ]
    assert strangers == []


def test_the_key_file_is_roots_and_read_only(appliance: Appliance) -> None:
    status, printed = appliance.run(["stat", "-L", "-c", "%u %a", "/data/tls/key.pem"])
    assert (status, printed.split()) == (0, ["0", "400"])
