"""checkpassword as a process: Bernstein's interface on descriptor 3."""

import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acceptutils.checkpassword import program
from ucspi import chain

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")

# The fixtures: see conftest
Start = Callable[..., Any]
Store = Any

REPORT = 'echo "$(id -u) $(id -g) $(id -G) $PWD $USER $AUTHUP_USER $HOME $SHELL"; ls /proc/$$/fd'
GOOD = b"alice\0swordfish\0\0"


def checkpassword(
    blob: bytes | None,
    *command: str,
    **env: str,
) -> tuple[int, str, str]:
    """Run checkpassword with blob on descriptor 3; return its status, output and log."""
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    blob_read, blob_write = os.pipe()
    if blob is not None:
        os.write(blob_write, blob)
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            given = {1: out_write, 2: err_write}
            if blob is not None:
                given[3] = blob_read
            chain.place(given)
            chain.close_all_but({0, *given})
            full = {"PATH": "/usr/bin:/bin", **env}
            status = program.main(["checkpassword", *command], full)
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)
    for descriptor in (out_write, err_write, blob_read, blob_write):
        os.close(descriptor)
    with open(out_read) as out, open(err_read) as err:
        output, log = out.read(), err.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output, log


def test_right_password_becomes_the_user(start_daemon: Start, store: Store) -> None:
    served = start_daemon()
    status, output, log = checkpassword(
        GOOD, "sh", "-c", REPORT + "; exit 42", CHECKPASSWORD_SOCKET=str(served.path)
    )
    home = store.path.parent / "home"
    who, *descriptors = output.splitlines()
    name = "alice@example.org"
    assert who == f"20000 20000 20000 {home} {name} {name} {home} /bin/false"
    assert "3" not in descriptors
    assert (status, log) == (42, "")


@pytest.mark.parametrize(
    "blob", [b"alice\0wrong\0\0", b"bob\0swordfish\0\0", b"\0swordfish\0\0", b"alice\0\0\0"]
)
def test_refused(start_daemon: Start, blob: bytes) -> None:
    served = start_daemon()
    env = {"CHECKPASSWORD_SOCKET": str(served.path)}
    assert checkpassword(blob, "echo", "hello", **env) == (1, "", "")


@pytest.mark.parametrize(
    "blob", [None, b"", b"alice\0swordfish\0", b"alice\0swordfish\0\0" + b"x" * 2048]
)
def test_misused_descriptor(blob: bytes | None) -> None:
    status, output, log = checkpassword(blob, "echo", "hello")
    assert (status, output) == (2, "")
    assert "descriptor 3" in log
    assert "swordfish" not in log


def test_misused_command_line() -> None:
    assert checkpassword(GOOD)[0] == 2


def test_service_is_told(start_daemon: Start, store: Store) -> None:
    store.write(state="receive-only")
    socket_path = str(start_daemon().path)

    def status(service: str) -> int:
        env = {"CHECKPASSWORD_SOCKET": socket_path, "CHECKPASSWORD_SERVICE": service}
        return checkpassword(GOOD, "true", **env)[0]

    assert [status("pop3"), status("submission"), status("")] == [0, 1, 1]


def test_no_verifier_is_a_failure_for_now(tmp_path: Path) -> None:
    path = str(tmp_path / "none")
    status, output, log = checkpassword(GOOD, "echo", "hello", CHECKPASSWORD_SOCKET=path)
    assert (status, output) == (111, "")
    assert path in log


def test_verifier_that_is_not_there_any_more_is_a_failure_for_now(
    tmp_path: Path, store: Store
) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as gone:
        gone.bind(path)
    # The store is for where there is no verifier at all.
    env = {"CHECKPASSWORD_SOCKET": path, "CHECKPASSWORD_STORE": str(store.path)}
    assert checkpassword(GOOD, "echo", "hello", **env)[:2] == (111, "")


@pytest.mark.parametrize(
    "answer",
    [
        b"t",
        b"x",
        b"0root\x000\x000\0/root\0/bin/sh\0",
        b"0a\x0020000\x000\0/\0/bin/sh\0",
    ],
)
def test_hostile_verifier(tmp_path: Path, answer: bytes) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        child = os.fork()
        if child == 0:
            try:
                connection, _ = listener.accept()
                connection.recv(9999)
                connection.send(answer)
            finally:
                os._exit(0)
        got = checkpassword(GOOD, "echo", "hello", CHECKPASSWORD_SOCKET=path)
        os.waitpid(child, 0)
    assert got[:2] == (111, "")


def test_store_without_a_verifier(store: Store, tmp_path: Path) -> None:
    env = {
        "CHECKPASSWORD_SOCKET": str(tmp_path / "none"),
        "CHECKPASSWORD_STORE": str(store.path),
    }
    assert checkpassword(GOOD, "id", "-u", **env) == (0, "20000\n", "")
    assert checkpassword(b"alice\0wrong\0\0", "id", "-u", **env)[:2] == (1, "")
    store.write_raw("{")
    assert checkpassword(GOOD, "id", "-u", **env)[:2] == (111, "")


def test_missing_home_is_a_failure_for_now(start_daemon: Start, store: Store) -> None:
    store.write(home="/nonexistent/home")
    env = {"CHECKPASSWORD_SOCKET": str(start_daemon().path)}
    status, output, log = checkpassword(GOOD, "echo", "hello", **env)
    assert (status, output) == (111, "")
    assert "/nonexistent/home" in log


def test_home_that_is_not_the_user_s_is_a_failure_for_now(
    start_daemon: Start, store: Store, tmp_path: Path
) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    store.write(home=str(private))
    env = {"CHECKPASSWORD_SOCKET": str(start_daemon().path)}
    assert checkpassword(GOOD, "echo", "hello", **env)[:2] == (111, "")


def test_rehearsal_asks_nobody_and_changes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.getresuid(), os.getresgid(), os.getgroups()
    opened = set(os.listdir("/proc/self/fd"))
    program.rehearse(["checkpassword", "prog"], {"CHECKPASSWORD_SERVICE": "pop3"})
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before
    assert set(os.listdir("/proc/self/fd")) == opened
