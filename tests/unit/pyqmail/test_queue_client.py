"""Queueing from inside a program: the server's trouble, and $QMAILQUEUE's interface."""

import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyqmail.queue import client, errors
from pyqmail.queue.errors import Result, reply_for

Queue = Any  # conftest.py
BIG = b"x" * 300_000  # more than a pipe or a socket holds


def inject(env: dict[str, str], message: bytes = b"hello\n") -> Result:
    injection = client.open_queue(env)
    injection.write(message)
    return injection.finish(b"s@x", [b"a@y", b"b@z"])


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Callable[[str], dict[str, str]]]:
    """Return a function: shell text -> an environment with it as QMAILQUEUE."""
    before = set(os.listdir("/proc/self/fd"))

    def make(text: str) -> dict[str, str]:
        program = tmp_path / "program"
        program.write_text("#!/bin/bash\n" + text)
        program.chmod(0o755)
        return {"QMAILQUEUE": str(program), "PATH": os.environ["PATH"]}

    yield make
    assert set(os.listdir("/proc/self/fd")) == before, "descriptors are left open"


# The server.


@pytest.mark.parametrize("size", [10, 300_000])
def test_no_server_is_temporary_trouble(tmp_path: Path, size: int) -> None:
    env = {"QMAIL_QUEUE_SOCKET": str(tmp_path / "none")}
    result = inject(env, b"x" * size)
    assert result == Result(errors.NO_NETWORK, 0)
    assert reply_for(result).startswith(b"451 ")


def test_a_dead_servers_socket_is_temporary_trouble(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
    result = inject({"QMAIL_QUEUE_SOCKET": path}, BIG)
    assert result == Result(errors.CONNECTION_REFUSED, 0)


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_server_that_goes_away_is_temporary_trouble(tmp_path: Path, size: int) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        pid = os.fork()
        if not pid:
            try:
                connection = listener.accept()[0]
                connection.recv(20)
                connection.close()
            finally:
                os._exit(0)
        result = inject({"QMAIL_QUEUE_SOCKET": path}, b"x" * size)
        os.waitpid(pid, 0)
    assert result == Result(errors.CONNECTION_LOST, 0)


def test_abort_queues_nothing(server: Queue) -> None:
    injection = client.open_queue(server.env)
    injection.write(BIG)
    injection.abort()
    assert inject(server.env).status == 0
    assert len(server.queued()) == 1
    assert len(server.files()) == 3


def test_a_nul_in_an_address_queues_nothing(server: Queue) -> None:
    injection = client.open_queue(server.env)
    injection.write(b"x\n")
    assert injection.finish(b"s@x", [b"a\0b"]).status == errors.BAD_ENVELOPE
    assert server.queued() == {}


def test_a_small_message_takes_no_place_in_the_server_before_its_end(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
        listener.listen(1)
        listener.setblocking(False)
        injection = client.open_queue({"QMAIL_QUEUE_SOCKET": str(tmp_path / "sock")})
        injection.write(b"small\n")
        with pytest.raises(BlockingIOError):
            listener.accept()
        injection.abort()


# $QMAILQUEUE.


def test_program_gets_message_and_envelope(
    script: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    env = script(f"cat >{tmp_path}/message; cat <&1 >{tmp_path}/envelope\n")
    result = inject(env, BIG)
    assert result.status == 0 and result.pid > 0
    assert (tmp_path / "message").read_bytes() == BIG
    assert (tmp_path / "envelope").read_bytes() == b"Fs@x\0Ta@y\0Tb@z\0\0"


def test_program_gets_the_whole_environment_and_no_descriptor_of_ours(
    script: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    env = script(
        "cat >/dev/null; cat <&1 >/dev/null\n"
        f"env >{tmp_path}/env; ls -l /proc/$$/fd >{tmp_path}/descriptors\n"
    )
    env["TCPREMOTEIP"] = "192.0.2.1"
    secret = tmp_path / "secret"
    secret.touch()
    held = os.open(secret, os.O_RDONLY)
    assert inject(env).status == 0
    os.close(held)
    assert "TCPREMOTEIP=192.0.2.1\n" in (tmp_path / "env").read_text()
    assert "QMAILQUEUE=" in (tmp_path / "env").read_text()
    listing = (tmp_path / "descriptors").read_text()
    assert " 6 -> pipe:" in listing
    assert "secret" not in listing


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("exit 31", 31),
        ("cat >/dev/null; exit 71", 71),
        ("exit 0", errors.READ_ERROR),  # it cannot have queued what it did not read
        ("kill -9 $$", errors.CRASHED),
        ("cat >/dev/null; cat <&1 >/dev/null; exit 0", 0),
    ],
)
def test_exit_status(script: Callable[[str], dict[str, str]], text: str, status: int) -> None:
    assert inject(script(text + "\n"), BIG).status == status


@pytest.mark.parametrize("descriptor", [4, 6])
def test_custom_error_text(script: Callable[[str], dict[str, str]], descriptor: int) -> None:
    env = script(f"cat >/dev/null; printf 'Dno thanks (#5.7.1)' >&{descriptor}; exit 82\n")
    result = inject(env)
    assert (result.status, result.message) == (82, b"Dno thanks (#5.7.1)")
    assert reply_for(result) == b"554 no thanks (#5.7.1)"


def test_custom_error_text_is_not_waited_for(script: Callable[[str], dict[str, str]]) -> None:
    env = script("cat >/dev/null; sleep 60 0<&- 1<&- 2>&- & exit 82\n")
    assert inject(env).message == b""


def test_a_program_that_is_not_there(script: Callable[[str], dict[str, str]]) -> None:
    env = script("") | {"QMAILQUEUE": "/nonexistent/queue"}
    result = inject(env)
    assert result.status == errors.NOT_EXECUTED
    assert reply_for(result) == b"451 unable to exec qq (#4.3.0)"


def test_abort_gives_the_program_no_end_of_envelope(
    script: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    env = script(f"cat >/dev/null; cat <&1 >{tmp_path}/envelope\n")
    injection = client.open_queue(env)
    injection.write(b"x\n")
    injection.abort()
    assert (tmp_path / "envelope").read_bytes() == b""


def test_registered_program_runs_in_process_and_reports_its_pid(server: Queue) -> None:
    env = server.env | {"QMAILQUEUE": "qmail-queue"}
    result = inject(env, BIG)
    assert result.status == 0
    ((message, envelope),) = server.queued().values()
    assert message.endswith(BIG)
    assert b"\0p%d\0F" % result.pid in envelope


# The program.


def run_queue(queue: Queue, message: bytes, envelope: bytes, *, keep_open: bool = False) -> int:
    """Run qmail-queue as any program would, and return its exit status."""
    message_read, message_write = os.pipe()
    envelope_read, envelope_write = os.pipe()
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "ucspi", "qmail-queue"],
        queue.env,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, message_read, 0),
            (os.POSIX_SPAWN_DUP2, envelope_read, 1),
        ],
    )
    os.close(message_read)
    os.close(envelope_read)
    os.write(message_write, message)
    os.close(message_write)
    os.write(envelope_write, envelope)
    if not keep_open:
        os.close(envelope_write)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if keep_open:
        os.close(envelope_write)
    return status


def test_qmail_queue_queues(server: Queue) -> None:
    assert run_queue(server, b"hello\n", b"Fs@x\0Ta@y\0\0") == 0
    ((message, envelope),) = server.queued().values()
    assert message.endswith(b" -0000\nhello\n")
    assert envelope.endswith(b"\0Fs@x\0Ta@y\0")


def test_qmail_queue_does_not_wait_for_the_end_of_descriptor_1(server: Queue) -> None:
    assert run_queue(server, b"hello\n", b"Fs@x\0Ta@y\0\0", keep_open=True) == 0


@pytest.mark.parametrize(
    ("envelope", "status"),
    [
        (b"", 54),
        (b"Fs@x\0Ta@y\0", 54),
        (b"Ts@x\0\0", 91),
        (b"F" + b"x" * 1003 + b"\0\0", 11),
    ],
)
def test_qmail_queue_refuses(server: Queue, envelope: bytes, status: int) -> None:
    assert run_queue(server, b"hello\n", envelope) == status
    assert server.files() == []


def test_qmail_queue_without_server(queue: Queue) -> None:
    assert run_queue(queue, b"hello\n", b"Fs@x\0Ta@y\0\0") == errors.NO_NETWORK
