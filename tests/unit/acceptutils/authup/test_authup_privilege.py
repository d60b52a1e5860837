"""Who runs as whom, who holds what, and who outlives whom."""

import ctypes
import os
import select
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from acceptutils.authup import broker as broker_module
from acceptutils.authup import program, record
from acceptutils.authup.credentials import Credentials, Secret
from acceptutils.authup.record import REQUEST_SIZE
from ucspi import chain

GREETING = b"220 mail.example.org ESMTP\r\n"
BAD_AUTH = b"535 authup authorization failed (#5.7.0)\r\n"
CRASH = b"454 authup aack, child crashed (#4.3.0)\r\n"
RIGHT = b"AUTH PLAIN AGEAcmlnaHQ="  # a, right
WRONG = b"AUTH PLAIN AGEAd3Jvbmc="  # a, wrong

PARSER = 7800
ACCOUNT = 20000

Start = Any  # the fixture authup: see conftest

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="changes its uid")


def status_field(pid: int, name: str) -> list[str]:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return line.split()[1:]
    raise AssertionError(name)


def descriptors(pid: int) -> dict[int, str]:
    """Return what each descriptor of a process is; only its first word of a socket."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[int(entry.name)] = str(entry.readlink()).split(":")[0]
        except FileNotFoundError:  # just closed
            pass
    return found


def test_parser_is_nobody(authup: Start) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0")
    client.expect(GREETING)
    assert status_field(client.pid, "Uid") == [str(PARSER)] * 4
    assert status_field(client.pid, "Gid") == [str(PARSER)] * 4
    assert status_field(client.pid, "Groups") == [str(PARSER)]
    for capabilities in ("CapPrm", "CapEff", "CapAmb", "CapInh"):
        assert int(status_field(client.pid, capabilities)[0], 16) == 0


def test_parser_cannot_be_looked_into_by_its_own_uid(authup: Start) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0")
    client.expect(GREETING)
    peeper = os.fork()
    if peeper == 0:
        code = 9
        try:
            os.setgroups([])
            os.setresgid(PARSER, PARSER, PARSER)
            os.setresuid(PARSER, PARSER, PARSER)
            try:
                os.listdir(f"/proc/{client.pid}/fd")
            except PermissionError:
                attach = 16
                code = 0 if ctypes.CDLL(None).ptrace(attach, client.pid, 0, 0) == -1 else 1
        finally:
            os._exit(code)
    assert os.waitpid(peeper, 0)[1] == 0


def test_parser_holds_the_client_the_log_and_the_broker_only(authup: Start) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0")
    client.expect(GREETING)
    held = descriptors(client.pid)
    assert held[2] == str(client.log_path)
    assert sorted(held.values()) == sorted(["socket"] * 3 + [str(client.log_path)])


def test_broker_holds_nothing_of_the_client_s(authup: Start) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0", tls=True, UCSPITLS="")
    client.expect(GREETING)
    broker = client.broker()
    allowed = ["/dev/null", "/dev/null", str(client.log_path), "socket"]

    def holds_no_more() -> bool:
        held = descriptors(broker)
        return held[0] == held[1] == "/dev/null" and sorted(held.values()) == allowed

    for _ in range(2):
        # It lets go beside the conversation: soon, not before a certain reply.
        client.wait_until(holds_no_more)
        client.says(WRONG, BAD_AUTH)


def test_session_runs_as_the_user_and_no_root_process_is_left(authup: Start) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0")
    client.expect(GREETING)
    broker = client.broker()
    assert status_field(broker, "Uid") == ["0"] * 4
    client.says(WRONG, BAD_AUTH)
    client.says(RIGHT, b"ready\r\n")
    assert client.broker() == broker
    assert status_field(broker, "Uid") == [str(ACCOUNT)] * 4
    assert status_field(broker, "Groups") == [str(ACCOUNT)]
    assert int(status_field(broker, "CapEff")[0], 16) == 0
    assert Path(f"/proc/{broker}/task/{broker}/children").read_text() == ""
    # Not the channel to P either, who would believe what the user says there.
    held = descriptors(broker)
    assert held == {0: "socket", 1: "socket", 2: str(client.log_path)}


def test_foreign_checkpassword_leaves_a_root_process_and_the_log_says_so(authup: Start) -> None:
    client = authup("smtp", "sh", "-c", "exit 1")
    client.expect(GREETING)
    client.says(WRONG, BAD_AUTH)
    client.says(WRONG, BAD_AUTH)
    said = "authup PID sh is foreign: a root process stays for the session"
    assert client.log_lines().count(said) == 1


def test_parser_s_user_is_looked_up_when_the_environment_names_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(program, "PARSER_USER", "nobody")
    assert program.parser_ids({}) == (65534, 65534)
    monkeypatch.setattr(program, "PARSER_USER", "no-such-user")
    assert program.parser_ids({}) is None


def test_without_a_user_to_become_it_stays_root_and_says_so(
    authup: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "parser_ids", lambda env: None)
    client = authup("smtp", "checkpw", "session", "echo", "0")
    client.expect(GREETING)
    assert status_field(client.pid, "Uid") == ["0"] * 4
    assert any("stays root" in line for line in client.log_lines())
    client.says(RIGHT, b"ready\r\n")


def test_started_as_somebody_it_changes_nothing(authup: Start) -> None:
    client = authup("-t", "2", "smtp", "checkpw", "session", "exit", "3", uid=ACCOUNT)
    client.expect(GREETING)
    assert status_field(client.pid, "Uid") == [str(ACCOUNT)] * 4
    client.says(WRONG, BAD_AUTH)
    client.send(RIGHT + b"\r\n")
    client.expect_end()
    assert client.status() == 3


def test_started_as_somebody_it_takes_the_statuses_as_they_are(authup: Start) -> None:
    # Nobody changes his uid here: a session's 1 cannot be told from a refusal.
    client = authup("smtp", "checkpw", "sh", "-c", "exit 1", uid=ACCOUNT)
    client.expect(GREETING)
    client.send(RIGHT + b"\r\n")
    client.expect_end(BAD_AUTH)
    assert client.status() == 1


def test_password_is_in_no_environment_and_on_no_command_line(authup: Start) -> None:
    script = "exec sleep 30"
    client = authup("smtp", "sh", "-c", script)
    client.expect(GREETING)
    client.send(b"AUTH PLAIN AGEAc3dvcmRmaXNo\r\n")  # a, swordfish
    sleeper = client.wait_until(
        lambda: [
            child
            for child in map(
                int,
                Path(f"/proc/{client.broker()}/task/{client.broker()}/children")
                .read_text()
                .split(),
            )
            if b"sleep" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
    )[0]
    for pid in (client.pid, client.broker(), sleeper):
        for file in ("environ", "cmdline"):
            assert b"swordfish" not in Path(f"/proc/{pid}/{file}").read_bytes()
    os.kill(sleeper, signal.SIGKILL)
    client.expect_end(CRASH)


def test_killed_parser_ends_the_broker(authup: Start) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0")
    client.expect(GREETING)
    broker = os.pidfd_open(client.broker())
    os.kill(client.pid, signal.SIGKILL)
    client.wait_until(lambda: _ended(broker))
    os.close(broker)


def test_killed_broker_is_a_crash(authup: Start) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0")
    client.expect(GREETING)
    os.kill(client.broker(), signal.SIGKILL)
    client.says(b"NOOP", b"250 ok\r\n")
    client.send(RIGHT + b"\r\n")
    client.expect_end(CRASH)
    assert client.status() == 1


def test_killed_session_is_a_crash(authup: Start) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0")
    client.expect(GREETING)
    client.says(RIGHT, b"ready\r\n")
    os.kill(client.broker(), signal.SIGKILL)
    client.expect_end(CRASH)
    assert client.status() == 1


def test_session_s_straggler_does_not_hold_up_the_connection_s_end(authup: Start) -> None:
    client = authup("smtp", "checkpw", "session", "straggle", "5")
    client.expect(GREETING)
    client.says(RIGHT, b"left behind\r\n")
    assert client.status() == 5


def test_ended_connection_leaves_no_process(authup: Start) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0")
    client.expect(GREETING)
    broker = os.pidfd_open(client.broker())
    client.send(b"QUIT\r\n")
    client.expect(b"221 mail.example.org\r\n")
    client.status()
    assert _ended(broker)
    os.close(broker)


def _ended(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], 0)[0])


def test_broker_stops_after_its_tries_whatever_the_parser_wants() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        chain._targets, chain._loaded["no"] = {"no": ""}, lambda argv, env: 1
        broker_module.serve(theirs, ["no"], {}, 2)
    theirs.close()
    request = record.Request(Credentials(b"a", Secret(b"b"), b""), {})
    for _ in range(2):
        socket.send_fds(ours, [record.pack(request)], [0, 1])
        assert record.unpack_reply(ours.recv(99)) == record.Started(pid)
        assert record.unpack_reply(ours.recv(99)) == record.Ended(1, False)
    assert ours.recv(99) == b""
    assert os.waitpid(pid, 0)[1] == 0
    ours.close()


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"x", 2),
        (bytes(REQUEST_SIZE), 2),
        (b"a" * REQUEST_SIZE, 0),
        (b"a" * REQUEST_SIZE, 1),
        (b"a" * (REQUEST_SIZE + 1), 2),
        (b"a" * REQUEST_SIZE, 3),
    ],
)
def test_broker_ends_when_asked_in_bad_form(data: bytes, count: int, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    marker = tmp_path / "ran"
    pid = os.fork()
    if pid == 0:
        ours.close()
        chain._targets = {"no": ""}
        chain._loaded["no"] = lambda argv, env: (marker.touch(), 1)[1]
        broker_module.serve(theirs, ["no"], {}, 2)
    theirs.close()
    socket.send_fds(ours, [data], [0, 1, 2][:count])
    assert ours.recv(99) == b""
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert not marker.exists()
    ours.close()
