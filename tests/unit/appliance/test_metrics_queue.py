"""How many messages wait, and since when, asked of a process of its own."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance import metrics_queue
from appliance.layout import Owner
from appliance.metrics_queue import Asker, Gone, Looker, Queue


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    for name in ("mess", "info"):
        for part in range(23):
            (tmp_path / name / str(part)).mkdir(parents=True)
    (tmp_path / "todo").mkdir()
    return tmp_path


def add(queue: Path, number: int, born: float, *, processed: bool = True) -> None:
    (queue / "mess" / str(number % 23) / str(number)).touch()
    path = queue / "info" / str(number % 23) / str(number)
    if not processed:
        path = queue / "todo" / str(number)
    path.touch()
    os.utime(path, (born, born))


def remove(queue: Path, number: int) -> None:
    for name in ("mess", "info"):
        (queue / name / str(number % 23) / str(number)).unlink()


def test_an_empty_queue(queue: Path) -> None:
    assert Looker(str(queue)).look() == Queue(0, 0, 0.0)


def test_messages_and_the_oldest(queue: Path) -> None:
    looker = Looker(str(queue))
    add(queue, 100, 5000)
    add(queue, 101, 4000)
    add(queue, 102, 6000, processed=False)
    assert looker.look() == Queue(3, 1, 4000.0)
    remove(queue, 101)
    assert looker.look() == Queue(2, 1, 5000.0)
    remove(queue, 100)
    assert looker.look() == Queue(1, 1, 6000.0)


def test_the_oldest_is_looked_for_only_when_it_is_gone(
    queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    real = metrics_queue._time

    def noted(path: str) -> float:
        looked.append(path)
        return real(path)

    monkeypatch.setattr(metrics_queue, "_time", noted)
    looker = Looker(str(queue))
    for number in range(50):
        add(queue, number, 1000 + number)
    looker.look()
    looked.clear()
    assert looker.look().oldest == 1000
    assert len(looked) == 1


def test_a_message_that_goes_meanwhile_is_no_error(
    queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(queue, 2, 3000)
    assert metrics_queue._time(str(queue / "info/2/gone")) == 0.0
    monkeypatch.setattr(metrics_queue, "_time", lambda path: 0.0)
    assert Looker(str(queue)).look() == Queue(1, 0, 0.0)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ours, theirs
    ours.close()
    theirs.close()


def looking(channel: socket.socket, directory: str) -> None:
    """Look at directory in a thread, until the other end of channel is closed."""
    arguments = (channel.dup(), directory)
    threading.Thread(target=metrics_queue.serve, args=arguments, daemon=True).start()


def test_asking(queue: Path, ends: tuple[socket.socket, socket.socket]) -> None:
    add(queue, 7, 1000)
    ours, theirs = ends
    looking(theirs, str(queue))
    assert Asker(ours).ask() == Queue(1, 0, 1000.0)


def test_a_queue_that_cannot_be_read_is_not_an_empty_one(
    tmp_path: Path, ends: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = ends
    looking(theirs, str(tmp_path / "none"))
    assert Asker(ours).ask() is None


def test_nobody_waits_for_a_long_look(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_queue, "PATIENCE", 0.01)
    ours, theirs = ends
    asker = Asker(ours)
    assert asker.ask() is None
    assert asker.ask() is None
    assert theirs.recv(100) == b"?"
    theirs.send(metrics_queue._ANSWER.pack(5, 1, 2.0))
    assert asker.ask() == Queue(5, 1, 2.0)
    # Asked again at once it tells the same, and asks nobody.
    assert asker.ask() == Queue(5, 1, 2.0)
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(100)


def test_a_look_that_has_ended_is_told(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    theirs.close()
    with pytest.raises(Gone):
        Asker(ours).ask()


def test_the_process_that_looks_is_another_and_ends_with_who_asks(queue: Path) -> None:
    add(queue, 7, 1000)
    before = set(os.listdir("/proc"))
    asker = metrics_queue.start(str(queue), Owner(os.geteuid(), os.getegid()))
    assert asker.ask() == Queue(1, 0, 1000.0)
    children = [
        int(name)
        for name in set(os.listdir("/proc")) - before
        if name.isdigit() and _parent(name) == os.getpid()
    ]
    asker._channel.close()
    assert len(children) == 1
    assert os.waitpid(children[0], 0)[1] == 0


def _parent(pid: str) -> int:
    try:
        return int(Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
