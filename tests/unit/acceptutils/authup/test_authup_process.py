"""authup from connect to exit status, as a process."""

import base64
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

GREETING = b"220 mail.example.org ESMTP\r\n"
BAD_AUTH = b"535 authup authorization failed (#5.7.0)\r\n"
POP3_BAD_AUTH = b"-ERR authup authorization failed\r\n"
CRASH = b"454 authup aack, child crashed (#4.3.0)\r\n"
CONTROLS = b"421 authup unable to read controls (#4.3.0)\r\n"
TIMEOUT = b"451 authup timeout (#4.4.2)\r\n"

Start = Any  # the fixture authup: see conftest

root_only = pytest.mark.skipif(os.getuid() != 0, reason="changes its uid")


def plain(password: bytes, user: bytes = b"alice") -> bytes:
    return b"AUTH PLAIN " + base64.b64encode(b"\0" + user + b"\0" + password)


# The session


def test_session_gets_the_client_and_its_status_is_ours(authup: Start) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "42")
    client.expect(GREETING)
    client.says(plain(b"right"), b"ready\r\n")
    client.says(b"hello", b"<hello\r\n>")
    client.half_close()
    client.expect_end()
    assert client.status() == 42


def test_session_over_pop3(authup: Start) -> None:
    client = authup("pop3", "checkpw", "session", "echo", "0")
    client.expect(b"+OK <%d." % client.pid)
    stamp = client.receive().split(b"@")[0]
    client.says(b"USER alice", b"+OK \r\n")
    client.says(b"PASS right", b"ready\r\n")
    client.half_close()
    client.expect_end()
    assert client.status() == 0
    blob = f"blob b'alice' b'<{client.pid}.{stamp.decode()}@mail.example.org>'"
    assert blob in client.log()


def test_timestamp_is_empty_over_smtp(authup: Start) -> None:
    client = authup("smtp", "checkpw", "session", "exit", "0")
    client.send(plain(b"right") + b"\r\n")
    client.expect_end(GREETING)
    assert "blob b'alice' b''" in client.log()


def test_session_knows_the_user(authup: Start) -> None:
    client = authup("smtp", "checkpw", "session", "env", "AUTHUP_USER", "0")
    client.send(plain(b"right", b"Al ice\xff") + b"\r\n")
    client.expect_end(GREETING + b"Al ice\xff\r\n")


@pytest.mark.parametrize("name", ["UCSPITLS", "DISABLETLS", "SSLCTLFD", "SSLREADFD", "SSLWRITEFD"])
def test_session_is_offered_no_tls_of_ours(authup: Start, name: str) -> None:
    client = authup(
        "smtp", "checkpw", "session", "env", name, "0", tls=True, UCSPITLS="", DISABLETLS=""
    )
    client.send(plain(b"right") + b"\r\n")
    client.expect_end(GREETING + b"(unset)\r\n")


@root_only
@pytest.mark.parametrize("status", [1, 2])
def test_session_s_own_failure_is_not_a_wrong_password(authup: Start, status: int) -> None:
    client = authup("smtp", "checkpw", "session", "exit", str(status))
    client.send(plain(b"right") + b"\r\n")
    client.expect_end(GREETING)
    assert client.status() == status


@root_only
def test_session_that_cannot_begin_is_not_a_wrong_password(authup: Start) -> None:
    client = authup("smtp", "checkpw", "session", "exit", "111")
    client.send(plain(b"right") + b"\r\n")
    client.expect_end(GREETING + CRASH)
    assert client.status() == 1


@pytest.mark.parametrize("how", ["kill", "raise"])
def test_crash_behind_a_right_password_is_a_crash(authup: Start, how: str) -> None:
    client = authup("smtp", "checkpw", "session", how, "0")
    client.send(plain(b"right") + b"\r\n")
    client.expect_end(GREETING + CRASH)
    assert client.status() == 1


@pytest.mark.parametrize("how", [b"kill", b"raise"])
def test_crash_of_checkpassword_is_a_crash(authup: Start, how: bytes) -> None:
    client = authup("smtp", "checkpw", "session", "exit", "0")
    client.send(plain(how) + b"\r\n")
    client.expect_end(GREETING + CRASH)
    assert client.status() == 1


@pytest.mark.parametrize(("status", "reply"), [(16, TIMEOUT), (18, CONTROLS)])
@pytest.mark.parametrize("password", [b"right", b"root"])
def test_statuses_of_fixsmtpio(authup: Start, status: int, reply: bytes, password: bytes) -> None:
    client = authup("smtp", "checkpw", "session", "exit", str(status))
    client.send(plain(password) + b"\r\n")
    client.expect_end(GREETING + reply)
    assert client.status() == 1


def test_client_that_vanishes_does_not_end_the_wait_for_the_session(authup: Start) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "7")
    client.expect(GREETING)
    client.says(plain(b"right"), b"ready\r\n")
    client.hang_up()
    assert client.status() == 7


def test_input_behind_auth_never_reaches_the_session(authup: Start) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0")
    client.expect(GREETING)
    client.send(plain(b"right") + b"\r\nMAIL FROM:<>\r\n")
    client.expect(b"ready\r\n")
    client.says(b"NOOP", b"<NOOP\r\n>")


def test_input_behind_a_failed_auth_is_answered(authup: Start) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0")
    client.send(plain(b"wrong") + b"\r\nNOOP\r\nQUIT\r\n")
    client.expect_end(GREETING + BAD_AUTH + b"250 ok\r\n221 mail.example.org\r\n")
    assert client.status() == 0


# Tries


@pytest.mark.parametrize("status", [b"exit 1", b"exit 2", b"exit 111"])
def test_smtp_refuses_five_times_and_disconnects(authup: Start, status: bytes) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0")
    client.expect(GREETING)
    for _ in range(5):
        client.says(plain(status), BAD_AUTH)
    client.expect_end()
    assert client.status() == 1


def test_pop3_refuses_once_and_disconnects(authup: Start) -> None:
    client = authup("pop3", "checkpw", "session", "echo", "0")
    client.receive()
    client.says(b"USER alice", b"+OK \r\n")
    client.send(b"PASS wrong\r\n")
    client.expect_end(POP3_BAD_AUTH)
    assert client.status() == 1


@pytest.mark.parametrize("option", [("-t", "2"), ("-t2",)])
def test_tries_can_be_set(authup: Start, option: tuple[str, ...]) -> None:
    client = authup(*option, "pop3", "checkpw", "session", "echo", "0")
    client.receive()
    for _ in range(2):
        client.says(b"USER alice", b"+OK \r\n")
        client.says(b"PASS wrong", POP3_BAD_AUTH)
    client.expect_end()


def test_right_password_after_wrong_ones(authup: Start) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0")
    client.expect(GREETING)
    for _ in range(4):
        client.says(plain(b"wrong"), BAD_AUTH)
    client.says(plain(b"right"), b"ready\r\n")


def test_cancelled_and_malformed_exchanges_are_no_tries(authup: Start) -> None:
    client = authup("-t", "1", "smtp", "checkpw", "session", "echo", "0")
    client.expect(GREETING)
    for _ in range(3):
        client.says(b"AUTH LOGIN", b"334 VXNlcm5hbWU6\r\n")
        client.says(b"*", b"501 authup auth exchange cancelled (#5.0.0)\r\n")
        client.says(b"AUTH PLAIN =", b"501 authup malformed auth input (#5.5.4)\r\n")
    client.says(plain(b"right"), b"ready\r\n")


# A foreign checkpassword

FOREIGN = 'IFS= read -r all <<X\n$(tr "\\0" "|" <&3)\nX\n'


def test_foreign_checkpassword_gets_bernstein_s_blob(authup: Start) -> None:
    client = authup("pop3", "sh", "-c", FOREIGN + 'echo "$all $AUTHUP_USER"; exit 3')
    stamp = client.receive()[4:-2]
    client.send(b"USER alice\r\n")
    client.expect(b"+OK \r\n")
    client.send(b"PASS sword fish\r\n")
    client.expect_end(b"alice|sword fish|" + stamp + b"| alice\n")
    assert client.status() == 3


@pytest.mark.parametrize("status", [1, 2, 111])
def test_foreign_checkpassword_that_refuses(authup: Start, status: int) -> None:
    client = authup("-t", "2", "smtp", "sh", "-c", f"exit {status}")
    client.expect(GREETING)
    client.says(plain(b"x"), BAD_AUTH)
    client.says(plain(b"x"), BAD_AUTH)
    client.expect_end()
    assert client.status() == 1


def test_foreign_checkpassword_that_crashes(authup: Start) -> None:
    client = authup("smtp", "sh", "-c", "kill -SEGV $$")
    client.send(plain(b"x") + b"\r\n")
    client.expect_end(GREETING + CRASH)


@root_only
def test_foreign_session_s_own_failure_is_not_a_wrong_password(authup: Start) -> None:
    become = "import os; os.setuid(20000); os._exit(1)"
    client = authup("smtp", "python3", "-ISc", become)
    client.send(plain(b"x") + b"\r\n")
    client.expect_end(GREETING)
    assert client.status() == 1


def test_program_that_does_not_exist_is_no_wrong_password(authup: Start) -> None:
    client = authup("smtp", "/nonexistent/checkpassword", "session")
    client.send(plain(b"x") + b"\r\n")
    client.expect_end(GREETING + b"454 authup unable to fork (#4.3.0)\r\n")
    assert client.status() == 1
    assert "/nonexistent/checkpassword: not found" in client.log()


def test_foreign_session_behind_our_checkpassword(authup: Start) -> None:
    client = authup("smtp", "checkpw", "sh", "-c", "echo $AUTHUP_USER; read x; exit 9")
    client.expect(GREETING)
    client.says(plain(b"right"), b"alice\n")
    client.send(b"\n")
    client.expect_end()
    assert client.status() == 9


# Starting


@pytest.mark.parametrize(
    ("protocol", "greeting"),
    [("smtp", b"220 hello.example ESMTP\r\n"), ("pop3", b"@hello.example>\r\n")],
)
def test_greeting_control_file(authup: Start, home: Path, protocol: str, greeting: bytes) -> None:
    (home / "control" / f"{protocol}greeting").write_text("hello.example \t\nmore\n")
    assert authup(protocol, "checkpw").receive().endswith(greeting)


def test_protocol_s_name_in_capitals(authup: Start) -> None:
    authup("SMTP", "checkpw").expect(GREETING)


@pytest.mark.parametrize(
    ("remove", "write"),
    [
        ("me", {}),
        ("me", {"smtpgreeting": ""}),
        ("smtpcapabilities", {}),
        ("", {"timeoutsmtpd": "soon"}),
        ("", {"smtpgreeting": "x" * 600}),
    ],
)
def test_controls_that_cannot_be_used(
    authup: Start, home: Path, remove: str, write: dict[str, str]
) -> None:
    if remove:
        (home / "control" / remove).unlink()
    for name, content in write.items():
        (home / "control" / name).write_text(content)
    client = authup("smtp", "checkpw")
    client.expect_end(CONTROLS)
    assert client.status() == 1


def test_controls_that_cannot_be_used_over_pop3(authup: Start, home: Path) -> None:
    (home / "control" / "pop3capabilities").unlink()
    client = authup("pop3", "checkpw")
    client.expect_end(b"-ERR authup unable to read controls\r\n")
    assert client.status() == 1


@pytest.mark.parametrize(
    "env",
    [
        {"AUTHUP_LINE_SECONDS": "0"},
        {"AUTHUP_PREAUTH_SECONDS": "x"},
        {"QMAIL_HOME": "/nonexistent"},
    ],
)
def test_environment_that_cannot_be_used(authup: Start, env: dict[str, str]) -> None:
    client = authup("smtp", "checkpw", **env)
    client.expect_end(CONTROLS)
    assert client.status() == 1


@root_only
@pytest.mark.parametrize("uid", ["0", "", "-1", "root", "4294967295"])
def test_parser_uid_that_cannot_be_used(authup: Start, uid: str) -> None:
    client = authup("smtp", "checkpw", AUTHUP_UID=uid)
    client.expect_end(CONTROLS)
    assert client.status() == 1


@pytest.mark.parametrize(
    "arguments",
    [(), ("smtp",), ("imap", "checkpw"), ("-x", "smtp", "checkpw"), ("-t", "x", "smtp", "checkpw")],
)
def test_misuse(authup: Start, arguments: tuple[str, ...]) -> None:
    client = authup(*arguments)
    client.expect_end()
    assert client.status() == 1
    assert "authup: usage: authup [ -t tries ] <smtp|pop3> prog\n" in client.log()


# Ends


def test_quit(authup: Start) -> None:
    client = authup("smtp", "checkpw")
    client.expect(GREETING)
    client.send(b"QUIT\r\n")
    client.expect_end(b"221 mail.example.org\r\n")
    assert client.status() == 0


def test_half_closed_client_gets_every_reply(authup: Start) -> None:
    client = authup("smtp", "checkpw")
    client.send(b"NOOP\r\nHELO x\r\nNOO")
    client.half_close()
    client.expect_end(
        GREETING
        + b"250 ok\r\n250 mail.example.org\r\n501 authup protocol exchange ended (#5.0.0)\r\n"
    )
    assert client.status() == 1


def test_client_that_vanishes(authup: Start) -> None:
    client = authup("smtp", "checkpw")
    client.expect(GREETING)
    client.hang_up()
    assert client.status() == 1


@pytest.mark.parametrize(
    "data", [b"x" * 4097, b"NOOP " + b"x" * 4096 + b"\r\n", b"NO\0OP\r\n", b"\0"]
)
def test_line_too_long_or_with_nul_ends_the_connection(authup: Start, data: bytes) -> None:
    client = authup("smtp", "checkpw")
    client.expect(GREETING)
    client.send(b"NOOP\r\n" + data)
    client.expect(b"250 ok\r\n500 line too long (#5.5.2)\r\n")
    client.half_close()
    assert client.status() == 1


def test_client_that_floods_still_sees_why_it_is_cut_off(authup: Start, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        flood = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    client = authup("smtp", "checkpw", connection=accepted.fileno())
    accepted.close()
    flood.settimeout(20)
    sender = os.fork()
    if sender == 0:
        try:
            flood.sendall(b"x" * (2 << 20))
        except OSError:
            pass
        finally:
            os._exit(0)
    received = b""
    while chunk := flood.recv(4096):
        received += chunk
    assert received == GREETING + b"500 line too long (#5.5.2)\r\n"
    flood.close()
    os.waitpid(sender, 0)
    assert client.status() == 1


def test_line_too_long_over_pop3(authup: Start) -> None:
    client = authup("pop3", "checkpw")
    client.receive()
    client.send(b"USER " + b"x" * 4096)
    client.expect(b"-ERR line too long\r\n")
    client.half_close()
    assert client.status() == 1


def test_longest_lines_pass(authup: Start) -> None:
    client = authup("smtp", "checkpw", "session", "echo", "0")
    client.expect(GREETING)
    client.says(b"NOOP " + b"x" * (4096 - 7), b"250 ok\r\n")
    password = b"x" * 12250
    client.says(plain(password), BAD_AUTH)
    client.says(b"AUTH LOGIN YQ==", b"334 UGFzc3dvcmQ6\r\n")
    client.says(base64.b64encode(password), BAD_AUTH)
    client.send(b"AUTH PLAIN " + b"A" * 16384)
    client.expect(b"500 line too long (#5.5.2)\r\n")
    client.half_close()
    client.expect_end()


def test_ten_thousand_pipelined_commands_are_all_answered(authup: Start) -> None:
    client = authup("smtp", "checkpw")
    client.expect(GREETING)
    sender = os.fork()
    if sender == 0:  # send and receive at once
        try:
            client.send(b"NOOP\r\n" * 10000 + b"QUIT\r\n")
        finally:
            os._exit(0)
    client.expect_end(b"250 ok\r\n" * 10000 + b"221 mail.example.org\r\n")
    os.waitpid(sender, 0)
    assert client.status() == 0


# Time


def test_read_timeout(authup: Start, home: Path) -> None:
    (home / "control" / "timeoutsmtpd").write_text("1\n")
    client = authup("smtp", "checkpw")
    client.expect_end(GREETING + TIMEOUT)
    assert client.status() == 1


def test_absolute_deadline_for_everything_before_auth(authup: Start) -> None:
    client = authup("smtp", "checkpw", AUTHUP_PREAUTH_SECONDS="1")
    client.expect_end(GREETING + TIMEOUT)
    assert client.status() == 1


def test_absolute_deadline_for_a_command_line(authup: Start) -> None:
    client = authup("smtp", "checkpw", AUTHUP_LINE_SECONDS="1")
    client.expect(GREETING)
    client.send(b"NOO")
    client.expect_end(TIMEOUT)
    assert client.status() == 1


def test_pop3_timeout(authup: Start) -> None:
    client = authup("pop3", "checkpw", AUTHUP_PREAUTH_SECONDS="1")
    client.receive()
    client.expect_end(b"-ERR authup timeout\r\n")


def test_deadlines_end_with_the_session_s_begin(authup: Start) -> None:
    client = authup(
        "smtp", "checkpw", "sh", "-c", "sleep 1.2; echo late", AUTHUP_PREAUTH_SECONDS="1"
    )
    client.send(plain(b"right") + b"\r\n")
    client.expect_end(GREETING + b"late\n")
    assert client.status() == 0


def test_client_that_does_not_read_is_not_waited_for_for_ever(authup: Start) -> None:
    client = authup("smtp", "checkpw", AUTHUP_PREAUTH_SECONDS="1")
    client.expect(GREETING)
    flood = os.fork()
    if flood == 0:
        try:
            client.send(b"HELP\r\n" * 200000)
        except OSError:
            pass
        finally:
            os._exit(0)
    assert client.status() == 1
    client.hang_up()
    os.kill(flood, signal.SIGKILL)
    os.waitpid(flood, 0)


# Log


def test_log_of_a_session(authup: Start) -> None:
    client = authup(
        "smtp", "checkpw", "session", "exit", "0", TCPREMOTEIP="192.0.2.1", SESSION_ID="ab12"
    )
    client.send(plain(b"wrong") + b"\r\n")
    client.expect(GREETING + BAD_AUTH)
    broker = client.broker()
    client.send(plain(b"right") + b"\r\n")
    client.status()
    suffix = " ip=192.0.2.1 session=ab12"
    assert client.log_lines() == [
        f"authup PID protocol smtp{suffix}",
        f"authup PID checkpassword {broker} attempt for alice{suffix}",
        f"authup PID checkpassword {broker} failed, 4 remaining{suffix}",
        f"authup PID checkpassword {broker} attempt for alice{suffix}",
        f"authup PID checkpassword {broker} succeeded, child completed{suffix}",
    ]


def test_log_line_cannot_be_forged(authup: Start) -> None:
    client = authup("smtp", "checkpw", "session", "exit", "0")
    client.send(plain(b"wrong", b"x\nauthup 1 forged\x1b[2J") + b"\r\n")
    client.expect(GREETING + BAD_AUTH)
    assert any(line.endswith("for x\\x0aauthup 1 forged\\x1b[2J") for line in client.log_lines())


@pytest.mark.parametrize("password", [b"swordfish", b"exit 111", b"raise", b"kill"])
def test_password_is_in_no_log_line(authup: Start, password: bytes) -> None:
    client = authup("-t1", "smtp", "checkpw", "session", "raise", "0")
    client.send(plain(password) + b"\r\n")
    client.status()
    for form in (password, base64.b64encode(password), base64.b64encode(b"\0alice\0" + password)):
        assert form.decode() not in client.log().replace("child crashed", "")
