"""Who runs as whom, and who can see the key: read from /proc while sessions are open."""

import base64
import re
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from harness import wait
from harness.appliance import Appliance, Process
from harness.clients import Account, Endpoint
from harness.dialogue import Dialogue

AUTHUP, UCSPITLS, QMAILD = 7800, 7801, 7791


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
    """Return the processes that the test's sessions brought."""
    return [process for process in appliance.processes() if process.pid not in before]


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


@pytest.mark.parametrize("service", ["submission", "submissions", "pop3", "pop3s"])
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


@pytest.mark.parametrize("service", ["submission", "submissions", "pop3", "pop3s"])
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


def test_the_mx_runs_as_qmaild_from_the_first_byte(
    appliance: Appliance, at: Endpoint, before: set[int]
) -> None:
    with Dialogue(at, "mx") as dialogue:
        running = sessions(appliance, before)
        assert running
        assert {uid for process in running for uid in uids(process)} == {QMAILD}
        dialogue.say(b"EHLO client.example")
        dialogue.start_tls()
        dialogue.say(b"EHLO client.example")
        running = sessions(appliance, before)
        assert {uid for process in running for uid in uids(process)} == {QMAILD, UCSPITLS}


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


def test_the_key_file_is_closed_to_every_user(appliance: Appliance) -> None:
    for user in ("qmaild", "authup", "qmails", "checkpw", "ucspitls"):
        status, _ = appliance.run(["cat", "/data/tls/key.pem"], user=user)
        assert status != 0, user


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
