"""checkpasswordd as a process: what it answers, to whom, and what it survives."""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import argon2
import pytest

from acceptutils.checkpassword import daemon, wire
from acceptutils.checkpassword.verifier import Verifier
from acceptutils.checkpassword.wire import Identity, Inquiry, WireError

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="answers root only")

# The fixtures: see conftest
Start = Callable[..., Any]
Store = Any


def alice(store: Store) -> Identity:
    home = str(store.path.parent / "home")
    return Identity("alice@example.org", 20000, 20000, home, "/bin/false")


def test_right_password(start_daemon: Start, store: Store) -> None:
    served = start_daemon()
    assert served.ask() == alice(store)
    assert served.ask(b"Alice@EXAMPLE.org") == alice(store)


@pytest.mark.parametrize(
    ("user", "password"),
    [(b"alice", b"wrong"), (b"alice", b""), (b"bob", b"swordfish"), (b"", b""), (b"\xff", b"\xff")],
)
def test_wrong_password_and_unknown_user(start_daemon: Start, user: bytes, password: bytes) -> None:
    assert start_daemon().ask(user, password) is None


@pytest.mark.parametrize("user", [b"alice", b"nobody"])
def test_where_hashes_differ_in_cost_refusals_come_at_the_same_time(
    user: bytes, start_daemon: Start, store: Store
) -> None:
    def hurry() -> None:
        daemon.REFUSAL_SECONDS = 0.3

    served = start_daemon(hurry)  # the store's hash is cheaper than what is made here
    began = time.monotonic()
    assert served.ask(user, b"wrong") is None
    assert time.monotonic() - began >= 0.3
    assert served.ask() == alice(store)


@pytest.mark.parametrize("kind", ["usual", "*"])
def test_where_hashes_cost_the_same_no_refusal_waits(
    kind: str, start_daemon: Start, store: Store
) -> None:
    def never() -> None:
        daemon.REFUSAL_SECONDS = 1e6

    usual = argon2.PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
    store.write(hash=usual.hash("swordfish") if kind == "usual" else kind)
    served = start_daemon(never)
    assert served.ask(b"alice", b"wrong") is None
    assert served.ask(b"nobody", b"wrong") is None


def test_state_refuses_a_service_and_the_log_says_why(start_daemon: Start, store: Store) -> None:
    served = start_daemon()
    store.write(state="send-only")
    assert served.ask(service=b"pop3") is None
    assert "alice@example.org is send-only: refused for pop3" in served.log()
    assert served.ask(service=b"submission") == alice(store)
    # Also of a password that is remembered.
    assert served.ask(service=b"pop3") is None


def test_changed_password_counts_at_once(start_daemon: Start, store: Store) -> None:
    from argon2 import PasswordHasher

    served = start_daemon()
    assert served.ask() == alice(store)
    store.write(hash=PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("new"))
    assert served.ask() is None
    assert served.ask(password=b"new") == alice(store)


def test_broken_store_leaves_the_former_accounts_and_one_line(
    start_daemon: Start, store: Store
) -> None:
    served = start_daemon()
    store.write_raw('{"version": 2}')
    assert served.ask() == alice(store)
    assert served.ask() == alice(store)
    assert served.log().count("the former accounts stay") == 1
    store.path.unlink()
    assert served.ask() == alice(store)
    assert "No such file or directory; the former accounts stay" in served.log()
    store.write(state="disabled")
    assert served.ask() is None


def test_store_that_was_never_good_is_a_failure_for_now(start_daemon: Start, store: Store) -> None:
    store.path.unlink()
    served = start_daemon()
    with pytest.raises(WireError, match="for now"):
        served.ask()
    store.write()
    assert served.ask() == alice(store)


def test_runs_as_its_own_user(start_daemon: Start) -> None:
    served = start_daemon()
    status = Path(f"/proc/{served.pid}/status").read_text()
    assert "Uid:\t7802\t7802\t7802\t7802\n" in status
    assert "Gid:\t7802\t7802\t7802\t7802\n" in status
    assert "Groups:\t7802 \n" in status


def test_socket_is_root_s_alone(start_daemon: Start) -> None:
    found = start_daemon().path.stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o600)


def test_only_root_is_answered(start_daemon: Start) -> None:
    served = start_daemon()
    served.path.chmod(0o666)
    child = os.fork()
    if child == 0:
        code = 9
        try:
            os.setgid(20000)
            os.setuid(20000)
            with served.connect() as connection:
                try:
                    connection.send(b"pop3\0alice\0swordfish\0")
                    answer = connection.recv(99)
                except ConnectionError:
                    answer = b""
                code = 1 if answer else 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert "turned away a process of uid 20000" in served.log()


@pytest.mark.parametrize("record", [b"x", b"a\0b\0c", b"\0" * 2112, b"x" * 60000])
def test_hostile_question_gets_no_answer_and_does_no_harm(
    start_daemon: Start, store: Store, record: bytes
) -> None:
    served = start_daemon()
    assert served.raw(record) == b""
    assert served.ask() == alice(store)


def test_inquiry_is_about_state_and_not_the_password(start_daemon: Start, store: Store) -> None:
    served = start_daemon()

    def whose(service: bytes, user: bytes) -> object:
        return wire.parse_answer(served.raw(wire.pack_inquiry(Inquiry(service, user))))

    assert whose(b"pop3", b"ALICE@example.org") == alice(store)
    assert whose(b"pop3", b"bob") is None
    store.write(state="send-only", hash="*")
    assert whose(b"submission", b"alice") == alice(store)
    assert whose(b"pop3", b"alice") is None
    assert "alice@example.org is send-only: refused for pop3" in served.log()
    assert served.ask(service=b"submission") is None


def test_silent_peer_is_dropped(start_daemon: Start) -> None:
    def hurry() -> None:
        daemon.QUESTION_SECONDS = 0.05

    with start_daemon(hurry).connect() as connection:
        assert connection.recv(99) == b""


def test_peer_that_leaves_before_its_answer_does_no_harm(start_daemon: Start, store: Store) -> None:
    served = start_daemon()
    with served.connect() as connection:
        connection.send(b"pop3\0alice\0wrong\0")
    assert served.ask() == alice(store)


def test_remembered_password_costs_no_hash(
    start_daemon: Start, store: Store, open_dir: Path
) -> None:
    counter = open_dir / "counter"
    counter.touch()
    counter.chmod(0o666)

    def count() -> None:
        original = Verifier.verify

        def counting(self: Verifier, *arguments: Any) -> bool:
            with counter.open("a") as file:
                file.write(".")
            return original(self, *arguments)

        Verifier.verify = counting  # type: ignore[method-assign]

    served = start_daemon(count)
    for _ in range(3):
        assert served.ask() == alice(store)
    assert counter.read_text() == "."
    for _ in range(2):
        assert served.ask(password=b"wrong") is None
    assert counter.read_text() == "..."


def test_queue_is_bounded_and_says_later(start_daemon: Start) -> None:
    gate, opener = os.pipe()  # one byte lets one password be checked

    def narrow() -> None:
        daemon.QUEUE_LIMIT = 3
        original = Verifier.verify

        def waiting(self: Verifier, *arguments: Any) -> bool:
            os.read(gate, 1)
            return original(self, *arguments)

        Verifier.verify = waiting  # type: ignore[method-assign]

    served = start_daemon(narrow)
    held = [served.connect() for _ in range(3)]
    for connection in held:
        connection.send(b"pop3\0alice\0swordfish\0")
    assert served.raw(b"pop3\0alice\0swordfish\0") == wire.TEMPORARY
    os.write(opener, b"...")
    assert [connection.recv(99)[:1] for connection in held] == [b"0"] * 3
    for connection in held:
        connection.close()
    os.close(gate)
    os.close(opener)


def test_connections_are_bounded(start_daemon: Start) -> None:
    def narrow() -> None:
        daemon.CONNECTION_LIMIT = 2

    served = start_daemon(narrow)
    held = [served.connect() for _ in range(2)]
    with served.connect() as third:
        assert third.recv(99) == wire.TEMPORARY
    for connection in held:
        connection.close()


def test_stale_socket_is_replaced_and_a_living_one_is_not(
    start_daemon: Start, store: Store, open_dir: Path
) -> None:
    path = str(open_dir / "checkpassword.sock")
    daemon.listen(path).close()
    served = start_daemon()
    assert served.ask() == alice(store)
    with pytest.raises(OSError, match="in use"):
        daemon.listen(path)
    assert served.ask() == alice(store)


def test_file_in_the_socket_s_place_is_left_alone(open_dir: Path) -> None:
    path = open_dir / "precious"
    path.write_text("x")
    with pytest.raises(OSError, match="in use"):
        daemon.listen(str(path))
    assert path.read_text() == "x"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["store"],
        ["a", "b", "c"],
        ["-n", "x", "a", "b"],
        ["-n"],
        ["-u", "1", "a", "b"],
        ["-g", "1", "a", "b"],
        ["-u", "0", "-g", "0", "a", "b"],
        ["-x", "a", "b"],
    ],
)
def test_misuse(arguments: list[str]) -> None:
    assert daemon.main(["checkpasswordd", *arguments], {}) == daemon.EXIT_USAGE


def test_root_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    assert daemon.main(["checkpasswordd", "store", str(path)], {}) == daemon.EXIT_USAGE
    assert not path.exists()


def test_socket_that_cannot_be_made(tmp_path: Path) -> None:
    path = str(tmp_path / "none" / "sock")
    arguments = ["checkpasswordd", "-u", "7802", "-g", "7802", "store", path]
    assert daemon.main(arguments, {}) == daemon.EXIT_TEMPORARY
