"""The queue server over its socket: what is queued, what is refused, what remains."""

import os
import signal
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

from pyqmail.queue import client, envelope, errors, layout, store, wire

Queue = Any  # the fixture's class, in conftest.py
Raw = Callable[[], socket.socket]

MESSAGE = b"Subject: hello\n\nbody\n"
ENVELOPE = b"".join(envelope.encode(b"joe@example.org", [b"ann@example.net"]))


def frames(message: bytes, addresses: bytes) -> bytes:
    return wire.KIND_IN_PROCESS + wire.chunk(message) + wire.END + wire.chunk(addresses) + wire.END


def reply(connection: socket.socket) -> tuple[int, int, int]:
    data = connection.recv(wire.REPLY_SIZE, socket.MSG_WAITALL)
    status, pid, number = struct.unpack(">BQQ", data)
    return status, pid, number


def inject(queue: Queue, message: bytes = MESSAGE, *recipients: bytes) -> client.Result:
    injection = client.open_queue(queue.env)
    injection.write(message)
    return injection.finish(b"joe@example.org", recipients or (b"ann@example.net",))


def test_files_are_netqmails_byte_for_byte(server: Queue) -> None:
    result = inject(server, MESSAGE, b"ann@example.net", b"bob@example.com")
    assert result.status == 0
    ((number, (message, addresses)),) = server.queued().items()
    split = f"mess/{number % 23}/{number}"
    assert server.files() == [f"intd/{number}", split, f"todo/{number}"]
    assert os.stat(server.directory / split).st_ino == number
    assert addresses == (
        b"u%d\0p%d\0Fjoe@example.org\0Tann@example.net\0Tbob@example.com\0"
        % (os.getuid(), result.pid)
    )
    received, _, rest = message.partition(b"\n")
    by = b"Received: (qmail %d invoked by uid %d); " % (result.pid, os.getuid())
    assert received.startswith(by) and received.endswith(b" -0000")
    assert rest == MESSAGE
    assert (os.stat(server.directory / split).st_mode & 0o777) == 0o644


def test_message_split_anyhow_is_one_message(raw: Raw, server: Queue) -> None:
    with raw() as connection:
        for byte in frames(MESSAGE, ENVELOPE):
            connection.sendall(bytes([byte]))
        assert reply(connection)[0] == 0
    ((message, addresses),) = server.queued().values()
    assert message.endswith(b"\n" + MESSAGE)
    assert addresses.endswith(b"\0Fjoe@example.org\0Tann@example.net\0")


def test_large_message_in_many_chunks(server: Queue) -> None:
    injection = client.open_queue(server.env)
    line = b"0123456789" * 100 + b"\n"
    for _ in range(2000):
        injection.write(line)
    assert injection.finish(b"", [b"a@b"]).status == 0
    ((message, _),) = server.queued().values()
    assert message.partition(b"\n")[2] == line * 2000


def test_no_recipients_and_no_bytes_are_a_message(server: Queue) -> None:
    injection = client.open_queue(server.env)
    assert injection.finish(b"", []).status == 0
    ((message, addresses),) = server.queued().values()
    assert message.count(b"\n") == 1
    assert addresses.endswith(b"\0F\0")


@pytest.mark.parametrize("cut", [1, 3, 5, 20, 40, -1])
def test_client_that_vanishes_leaves_nothing(raw: Raw, server: Queue, cut: int) -> None:
    with raw() as connection:
        connection.sendall(frames(MESSAGE, ENVELOPE)[:cut])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
    assert server.files() == []


@pytest.mark.parametrize(
    ("addresses", "status"),
    [
        (b"Fa\0Tb\0", errors.READ_ERROR),  # no second NUL at the end
        (b"", errors.READ_ERROR),
        (b"Tb\0\0", errors.BAD_ENVELOPE),
        (b"Fa\0Xb\0\0", errors.BAD_ENVELOPE),
        (b"F" + b"x" * 1003 + b"\0\0", errors.TOO_LONG),
        (b"Fa\0T" + b"x" * 1003 + b"\0\0", errors.TOO_LONG),
        (b"Fa\0T" + b"x" * 100_000, errors.TOO_LONG),
    ],
)
def test_bad_envelope_is_refused_and_leaves_nothing(
    raw: Raw, server: Queue, addresses: bytes, status: int
) -> None:
    with raw() as connection:
        connection.sendall(frames(MESSAGE, addresses))
        assert reply(connection)[0] == status
    assert server.files() == []


def test_longest_address_is_taken(server: Queue) -> None:
    assert inject(server, MESSAGE, b"x" * 1002).status == 0


def test_noise_is_a_bug_of_the_client_and_leaves_nothing(raw: Raw, server: Queue) -> None:
    with raw() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert reply(connection)[0] == errors.BUG
    assert server.files() == []
    assert inject(server).status == 0


def test_early_refusal_reaches_a_client_that_is_still_sending(server: Queue) -> None:
    connection = client.ServerInjection(server.socket)
    connection.write(MESSAGE)
    result = connection.finish_raw([b"X" + b"\0" * 5_000_000])
    assert result.status == errors.BAD_ENVELOPE


def test_number_is_the_pid_of_a_program_and_unique_in_process(raw: Raw, server: Queue) -> None:
    with raw() as connection:
        connection.sendall(wire.KIND_PROGRAM + frames(MESSAGE, ENVELOPE)[1:])
        assert reply(connection)[1] == os.getpid()
    numbers = [inject(server).pid for _ in range(3)]
    assert len(set(numbers)) == 3
    assert all(number > 4_194_304 for number in numbers)  # above every pid


@pytest.mark.skipif(os.getuid() != 0, reason="becomes other users")
@pytest.mark.parametrize(
    ("uid", "by"),
    [
        (7790, b"invoked by alias); "),
        (7791, b"invoked from network); "),
        (7796, b"invoked for bounce); "),
        (20000, b"invoked by uid 20000); "),
    ],
)
def test_the_kernel_says_who_queues(server: Queue, uid: int, by: bytes) -> None:
    pid = os.fork()
    if not pid:
        try:
            os.setgid(20000)
            os.setuid(uid)
            os._exit(inject(server).status)
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    ((message, addresses),) = server.queued().values()
    assert by in message.partition(b"\n")[0]
    assert addresses.startswith(b"u%d\0" % uid)


def test_one_user_cannot_take_all_places(queue: Queue) -> None:
    if os.getuid() != 0:
        pytest.skip("becomes another user")
    queue.start_server("-u", "2")
    pid = os.fork()
    if not pid:
        try:
            os.setuid(20000)
            held = [client.ServerInjection(queue.socket) for _ in range(2)]
            for injection in held:
                injection.write(b"x" * client.BUFFER)
            refused = inject(queue).status
            queued = [i.finish(b"", [b"a@b"]).status for i in held]
            os._exit(refused if queued == [0, 0] else 98)
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == errors.REFUSED_FOR_NOW
    assert inject(queue).status == 0


def test_full_server_lets_clients_wait(queue: Queue) -> None:
    queue.start_server("-c", "1")
    first = client.ServerInjection(queue.socket)
    first.write(b"x" * client.BUFFER)
    second = client.ServerInjection(queue.socket)
    second.write(b"y" * client.BUFFER)  # connected by the kernel, not yet served
    assert first.finish(b"", [b"a@b"]).status == 0
    assert second.finish(b"", [b"a@b"]).status == 0


def test_commits_of_many_clients_are_answered_each(server: Queue) -> None:
    held = [client.ServerInjection(server.socket) for _ in range(40)]
    for number, injection in enumerate(held):
        injection.write(b"x" * client.BUFFER + b"%d\n" % number)
    sockets = []
    for injection in held:
        injection._send(injection._message() + wire.END + wire.chunk(ENVELOPE) + wire.END)
        sockets.append(injection._socket)
    answers = [reply(connection) for connection in sockets if connection is not None]
    assert [status for status, _, _ in answers] == [0] * 40
    queued = server.queued()
    assert {number for _, _, number in answers} == set(queued)
    texts = {message.rsplit(b"x", 1)[1] for message, _ in queued.values()}
    assert texts == {b"%d\n" % number for number in range(40)}


def test_the_trigger_is_pulled(server: Queue) -> None:
    trigger = os.open(server.directory / "lock/trigger", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert inject(server).status == 0
        assert os.read(trigger, 10) != b""
    finally:
        os.close(trigger)


def test_term_lets_a_running_client_finish(queue: Queue) -> None:
    pid = queue.start_server()
    injection = client.ServerInjection(queue.socket)
    injection.write(b"x" * client.BUFFER)
    inject(queue)  # the server has certainly seen the first one now
    os.kill(pid, signal.SIGTERM)
    assert injection.finish(b"", [b"a@b"]).status == 0
    assert queue.wait(pid) == 0
    assert len(queue.queued()) == 2


def test_a_new_server_takes_the_socket_of_a_killed_one(queue: Queue) -> None:
    queue.stop(queue.start_server(), signal.SIGKILL)
    assert inject(queue).status == errors.CONNECTION_REFUSED
    queue.start_server()
    assert inject(queue).status == 0


@pytest.mark.skipif(os.getuid() != 0, reason="users differ only for root")
def test_the_server_is_qmailq_and_its_socket_everybodys(queue: Queue) -> None:
    pid = queue.start_server()
    with open(f"/proc/{pid}/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file)
    assert status["Uid"].split() == ["7794"] * 4
    assert status["Gid"].split() == ["2107"] * 4
    assert status["Groups"].split() == []
    assert int(status["CapEff"], 16) == 0
    assert os.stat(queue.socket).st_mode & 0o777 == 0o666


@pytest.mark.parametrize("arguments", [[], ["-n"], ["-n", "x", "sock"], ["-z", "sock"], ["a", "b"]])
def test_wrong_usage(queue: Queue, arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    from pyqmail.queue import server as program

    assert program.main(["qmail-queue-server", *arguments], queue.env) == 100
    assert "usage: qmail-queue-server" in capfd.readouterr().err


@pytest.mark.parametrize("left", [("mess",), ("intd",), ("todo",), ("mess", "todo", "intd")])
def test_a_number_that_a_restored_message_has_is_not_given_again(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, left: tuple[str, ...]
) -> None:
    monkeypatch.chdir(queue.directory)
    for used in (store.Incoming("pid/a", 0, 1) for _ in range(2)):
        used.discard()
    # Whatever number the system hands out next, something has it already: three times.
    occupied: list[int] = []
    fstat = os.fstat

    def taken(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        if len(occupied) < 3:
            occupied.append(found.st_ino)
            for name in left:
                path = layout.mess(found.st_ino) if name == "mess" else f"{name}/{found.st_ino}"
                (queue.directory / path).write_bytes(b"another's")
        return found

    monkeypatch.setattr(os, "fstat", taken)
    incoming = store.Incoming("pid/b", 0, 1)
    assert len({*occupied, incoming.number}) == 4
    incoming.write_message([b"new"])
    incoming.write_envelope([b"Fa\0Tb\0"])
    assert store.commit([incoming]) == [0]
    for number in occupied:
        for name in left:
            path = layout.mess(number) if name == "mess" else f"{name}/{number}"
            assert (queue.directory / path).read_bytes() == b"another's"
        assert os.path.exists(layout.mess(number)) == ("mess" in left)
    assert os.listdir("pid") == []


def test_a_queue_in_which_every_number_is_taken_refuses_for_now(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(queue.directory)
    number = queue.put(b"s@x", b"a@b")
    monkeypatch.setattr(os, "fstat", lambda fd: os.stat(layout.mess(number)))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(store.StoreError) as raised:
        store.Incoming("pid/b", 0, 1)
    assert raised.value.status == errors.NO_MESS
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.listdir("pid") == []


def test_envelopes_without_a_message_are_removed_at_the_start(queue: Queue) -> None:
    number = queue.put(b"s@x", b"a@b")
    (queue.directory / layout.todo(number)).unlink()
    (queue.directory / "intd" / "4711").write_bytes(b"u1\0")
    queue.start_server()
    assert queue.files() == sorted([layout.intd(number), layout.mess(number)])
