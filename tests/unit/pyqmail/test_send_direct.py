"""The short way: a message for one local recipient is delivered straight from todo/."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyqmail.queue import layout
from pyqmail.send import clean, direct, intake
from pyqmail.send import spawnprotocol as sp
from pyqmail.send.cleaner import Cleaned, Cleaner
from pyqmail.send.delivery import RETRY_TROUBLE, Channel, Events
from pyqmail.send.intake import Intake
from pyqmail.send.log import Log
from pyqmail.send.routing import Routing
from pyqmail.send.schedule import CHANNELS
from pyqmail.send.spawner import Spawner

Queue = Any  # these two are in conftest.py
Send = Any
LOCAL = b"ann@mx.example.org"
NOW = 1_000_000


def path(queue: Queue, directory: str, number: int) -> Path:
    return Path(queue.directory / layout.split(directory, number))


def queued(number: int) -> list[str]:
    return sorted([layout.mess(number), layout.intd(number), layout.todo(number)])


def written(number: int) -> list[str]:
    return sorted([layout.mess(number), layout.info(number), layout.split("local", number)])


# With real programs.


def test_no_file_is_made_for_a_message_that_is_delivered_at_once(
    queue: Queue, start: Callable[..., Send]
) -> None:
    number = queue.put(b"joe@example.net", LOCAL)
    send = start()
    request = send.local.request()
    assert queue.files() == queued(number)
    send.local.report(request, b"Kdid 1+0+0\n")
    send.wait_log(rb"^end msg %d$" % number)
    send.signal(signal.SIGTERM)
    assert send.wait() == 0
    assert queue.files() == []


@pytest.mark.parametrize(
    "recipients",
    [[b"a@far.example"], [LOCAL, LOCAL], [LOCAL, b"a@far.example"]],
    ids=["remote", "two", "mixed"],
)
def test_every_other_message_has_its_files_first(
    queue: Queue, start: Callable[..., Send], recipients: list[bytes]
) -> None:
    number = queue.put(b"joe@example.net", *recipients)
    send = start()
    (send.remote if recipients[-1] != LOCAL else send.local).request()
    assert layout.info(number) in queue.files()
    assert layout.todo(number) not in queue.files()


def test_a_deferred_message_has_files_and_comes_again(
    queue: Queue, start: Callable[..., Send]
) -> None:
    number = queue.put(b"joe@example.net", LOCAL)
    send = start()
    send.local.report(send.local.request(), b"Zlater\n")
    send.wait_log(rb"^delivery 1: deferral: later/$")
    send.signal(signal.SIGALRM)
    again = send.local.request()
    assert (again.sender, again.recipient) == (b"joe@example.net", LOCAL)
    assert queue.files() == written(number)
    assert path(queue, "local", number).read_bytes() == b"T" + LOCAL + b"\0"
    send.local.report(again, b"Kok\n")
    send.wait_log(rb"^end msg %d$" % number)
    send.signal(signal.SIGTERM)
    assert send.wait() == 0
    assert queue.files() == []


def test_a_deferred_message_is_due_by_the_schedule(
    queue: Queue, start: Callable[..., Send]
) -> None:
    number = queue.put(b"joe@example.net", LOCAL)
    began = time.time()
    send = start()
    send.local.report(send.local.request(), b"Zlater\n")
    send.wait_log(rb"^delivery 1: deferral: later/$")
    send.signal(signal.SIGTERM)
    assert send.wait() == 0
    assert queue.files() == written(number)
    assert 99 <= path(queue, "local", number).stat().st_mtime - began <= 125


def test_a_failure_is_told_to_the_sender(queue: Queue, start: Callable[..., Send]) -> None:
    number = queue.put(b"joe@example.net", LOCAL)
    queue.start_server()
    send = start()
    send.local.report(send.local.request(), b"DSorry, no mailbox here by that name.\n")
    logged = send.wait_log(rb"^bounce msg (\d+) qp")
    assert int(logged[1]) == number
    bounce = send.remote.request()
    assert (bounce.sender, bounce.recipient) == (b"", b"joe@example.net")
    send.wait_log(rb"^end msg %d$" % number)


def test_a_slow_delivery_gets_files_meanwhile(queue: Queue, start: Callable[..., Send]) -> None:
    number = queue.put(b"joe@example.net", LOCAL)
    send = start()
    request = send.local.request()
    until = time.monotonic() + 20
    while queue.files() != written(number):
        assert time.monotonic() < until
        time.sleep(0.02)
    send.local.report(request, b"Kok\n")
    send.wait_log(rb"^end msg %d$" % number)
    send.signal(signal.SIGTERM)
    assert send.wait() == 0
    assert queue.files() == []
    assert send.log.count(b"starting delivery") == 1


@pytest.mark.parametrize("report", [b"Kok\n", b"Zlater\n", b"Dno\n"])
def test_a_delivery_that_ends_during_the_stop_is_not_made_again(
    queue: Queue, start: Callable[..., Send], report: bytes
) -> None:
    number = queue.put(b"", LOCAL)
    send = start()
    request = send.local.request()
    send.signal(signal.SIGTERM)
    send.local.report(request, report)
    assert send.wait() == 0
    assert layout.todo(number) not in queue.files()
    if report.startswith(b"K"):
        assert queue.files() == []
    if report.startswith(b"D"):
        assert queue.files() == [layout.bounce(number), layout.info(number), layout.mess(number)]


def test_a_kill_leaves_the_message_in_todo(queue: Queue, start: Callable[..., Send]) -> None:
    number = queue.put(b"joe@example.net", LOCAL)
    send = start()
    send.local.request()
    send.signal(signal.SIGKILL)
    send.wait()
    assert queue.files() == queued(number)


def test_more_than_there_is_room_for_wait_their_turn(
    queue: Queue, start: Callable[..., Send]
) -> None:
    (queue.home / "control" / "concurrencylocal").write_text("2\n")
    numbers = {queue.put(b"joe@example.net", LOCAL) for _ in range(5)}
    send = start()
    done = []
    held = [send.local.request(), send.local.request()]
    while held:
        assert send.local.quiet() or len(done) < 3
        one = held.pop(0)
        done.append(int(one.message.split(b"/")[1]))
        send.local.report(one, b"K\n")
        if len(done) <= 3:
            held.append(send.local.request())
    assert set(done) == numbers
    send.wait_count(b"end msg", 5)


# Its parts.


class FakeCleaner(Cleaner):
    """Notes what is asked of qmail-clean."""

    def __init__(self) -> None:
        self.asked: list[tuple[clean.Action, int]] = []

    def ask(self, action: clean.Action, numbers: Any) -> None:
        self.asked += [(action, number) for number in numbers]

    def take(self) -> list[tuple[clean.Action, int]]:
        asked, self.asked = self.asked, []
        return asked


class Place:
    """An intake with channels that start nothing by themselves."""

    def __init__(self, limit: int = 10) -> None:
        self.read, write = os.pipe()
        spawner = Spawner(write, self.read)
        os.set_blocking(self.read, False)
        log = Log(os.open(os.devnull, os.O_WRONLY))
        self.finished: list[int] = []
        self.failed: list[bytes] = []
        events = Events(
            self.finished.append, lambda number, who, text: self.failed.append(who), lambda: None
        )
        self.channels = [Channel(i, spawner, limit, 604800, log, events) for i in CHANNELS]
        self.cleaner = FakeCleaner()
        self.over: list[int] = []
        self.intake = Intake(
            Routing([b"mx.example.org"], []), self.channels, self.cleaner, log, self.over.append
        )
        self.deliveries = 0

    def number(self) -> int:
        self.deliveries += 1
        return self.deliveries

    def go(self, now: int = NOW) -> None:
        self.intake.proceed(now)
        self.intake.start(self.number)

    def report(self, verdict: sp.Verdict) -> None:
        slot = next(iter(self.channels[0].running))
        self.channels[0].report(sp.Report(slot, verdict.value + b"text\n"))

    def cleaned(self, number: int, now: int = NOW, *, done: bool = True) -> None:
        self.intake.cleaned(Cleaned(clean.Action.TODO, number, done), now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A function that puts the clock forward."""
    now = [100.0]
    monkeypatch.setattr(intake.time, "monotonic", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


def test_the_number_is_free_only_after_todo_is_removed(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(queue.directory)
    number = queue.put(b"s@x", LOCAL)
    place = Place()
    place.go()
    place.report(sp.Verdict.SUCCESS)
    place.go()
    assert place.cleaner.take() == [(clean.Action.TODO, number)]
    assert number in place.intake
    place.intake.todo.pulled()
    place.go()  # todo/N is still there: it is passed over
    assert place.deliveries == 1
    os.unlink(layout.todo(number))
    place.cleaned(number)
    # mess/N goes last; only now may another message get the number.
    assert place.cleaner.take() == [(clean.Action.FOOP, number)]
    assert number not in place.intake


def test_what_qmail_clean_could_not_remove_it_is_asked_again_and_nobody_gets_it_twice(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(queue.directory)
    number = queue.put(b"s@x", LOCAL)
    place = Place()
    place.go()
    place.report(sp.Verdict.SUCCESS)
    place.go()
    place.cleaner.take()
    place.cleaned(number, done=False)
    place.intake.todo.pulled()
    place.go(NOW + RETRY_TROUBLE - 1)
    assert place.cleaner.take() == []
    assert place.intake.wakeup(NOW) <= NOW + RETRY_TROUBLE
    place.go(NOW + RETRY_TROUBLE)
    assert place.cleaner.take() == [(clean.Action.TODO, number)]
    assert place.deliveries == 1


def test_a_late_report_counts_once_the_files_are_there(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, clock: Callable[[float], None]
) -> None:
    monkeypatch.chdir(queue.directory)
    number = queue.put(b"s@x", LOCAL)
    place = Place()
    place.go()
    clock(direct.LATE)
    place.go()
    assert place.cleaner.take() == [(clean.Action.TODO, number)]
    place.report(sp.Verdict.SUCCESS)  # while qmail-clean is at work
    place.go()
    assert place.finished == []
    os.unlink(layout.todo(number))
    place.cleaned(number)
    assert place.finished == [number]
    assert not path(queue, "local", number).exists()
    assert path(queue, "info", number).exists()


def test_what_waits_too_long_to_be_started_has_files(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, clock: Callable[[float], None]
) -> None:
    monkeypatch.chdir(queue.directory)
    for _ in range(2):
        queue.put(b"s@x", LOCAL)
    place = Place(limit=1)
    place.go()
    clock(direct.LATE)
    place.go()
    for _, number in place.cleaner.take():
        place.cleaned(number)
    assert place.deliveries == 1
    assert place.channels[0].due.items()[0][0] == NOW  # the other one: as every message
    place.report(sp.Verdict.SUCCESS)
    assert len(place.finished) == 1


def test_on_a_full_disk_a_late_delivery_goes_on_and_is_not_started_again(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, clock: Callable[[float], None]
) -> None:
    monkeypatch.chdir(queue.directory)
    number = queue.put(b"s@x", LOCAL)
    place = Place()
    place.go()
    (queue.directory / "info").rename(queue.directory / "away")
    (queue.directory / "info").write_bytes(b"")
    for _ in range(3):
        clock(direct.LATE)
        place.intake.todo.pulled()
        place.go()
    assert place.deliveries == 1 and place.cleaner.take() == []
    place.report(sp.Verdict.SUCCESS)
    place.go()
    assert place.cleaner.take() == [(clean.Action.TODO, number)]


def test_what_could_not_be_written_is_looked_at_soon(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A disk that was full: nobody may pull the trigger when there is room again.
    monkeypatch.chdir(queue.directory)
    number = queue.put(b"", LOCAL, LOCAL)
    (queue.directory / "info").rename(queue.directory / "away")
    (queue.directory / "info").write_bytes(b"")
    place = Place()
    place.go()
    assert place.intake.todo.look_at == NOW + RETRY_TROUBLE
    assert place.cleaner.take() == []
    (queue.directory / "info").unlink()
    (queue.directory / "away").rename(queue.directory / "info")
    place.go(NOW + RETRY_TROUBLE)
    assert place.cleaner.take() == [(clean.Action.TODO, number)]


def test_only_so_many_take_the_short_way_at_once(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(queue.directory)
    monkeypatch.setattr(direct, "MOST", 3)
    for _ in range(5):
        queue.put(b"s@x", LOCAL)
    place = Place()
    place.go()
    assert place.deliveries == 3
    assert len(place.cleaner.take()) == 2


def test_without_local_deliveries_every_message_has_files(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(queue.directory)
    number = queue.put(b"s@x", LOCAL)
    place = Place(limit=0)
    place.go()
    assert place.cleaner.take() == [(clean.Action.TODO, number)]
    assert path(queue, "local", number).exists()


def test_a_name_that_was_removed_while_todo_was_read_is_no_message(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(queue.directory)
    place = Place()
    place.go()
    monkeypatch.setattr(place.intake.todo, "take", lambda count, known: [4711])
    monkeypatch.setattr(place.intake.todo, "_names", iter(()))
    place.go()
    assert place.cleaner.take() == []
    assert place.intake.todo.look_at > NOW + RETRY_TROUBLE
