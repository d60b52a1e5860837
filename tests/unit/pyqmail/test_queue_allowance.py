"""What one user may queue in an hour."""

import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from pyqmail.queue import allowance, client, errors
from pyqmail.queue.allowance import HOUR, Allowance
from ucspi import chain

Queue = Any  # the fixture's class, in conftest.py
ALICE, BOB = 20000, 20001
USED, BEYOND = errors.ALLOWANCE_USED, errors.BEYOND_ALLOWANCE


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_an_hours_recipients_and_no_more(clock: Clock) -> None:
    left = Allowance(10, clock)
    assert [left.take(ALICE, n) for n in (4, 6, 1)] == [0, 0, USED]
    assert left.take(BOB, 10) == 0


def test_what_was_used_comes_back_evenly(clock: Clock) -> None:
    left = Allowance(10, clock)
    assert left.take(ALICE, 10) == 0
    clock.now += HOUR / 10 - 1
    assert left.take(ALICE, 1) == USED
    clock.now += 2
    assert left.take(ALICE, 1) == 0
    clock.now += 5 * HOUR
    assert [left.take(ALICE, 10), left.take(ALICE, 1)] == [0, USED]


def test_a_refused_message_uses_nothing(clock: Clock) -> None:
    left = Allowance(10, clock)
    assert [left.take(ALICE, n) for n in (8, 3, 3, 2)] == [0, USED, USED, 0]


def test_more_than_a_whole_hours_is_refused_for_good(clock: Clock) -> None:
    left = Allowance(10, clock)
    assert [left.take(ALICE, 11), left.take(ALICE, 10)] == [BEYOND, 0]


def test_no_limit() -> None:
    left = Allowance(0)
    assert {left.take(ALICE, 100_000) for _ in range(50)} == {0}


def test_memory_has_an_end_and_forgets_the_least_first(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowance, "USERS", 3)
    left = Allowance(10, clock)
    for uid, number in ((1, 10), (2, 3), (3, 9), (4, 8)):
        assert left.take(uid, number) == 0
    assert [left.take(uid, 3) for uid in (1, 3, 4)] == [USED] * 3
    assert left.take(2, 10) == 0


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")


@pytest.fixture
def inject(queue: Queue) -> Callable[[int, int], bytes]:
    """A function: uid, recipients -> the reply that an SMTP client would get; empty: queued."""
    (queue.home / "control" / "sendinglimit").write_text("5\n")
    queue.start_server()

    def run(uid: int, recipients: int) -> bytes:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if not pid:
            try:
                chain.close_all_but({2, theirs.fileno()})
                os.setgid(uid or os.getgid())
                os.setuid(uid)
                injection = client.open_queue(queue.env)
                injection.write(b"Subject: x\n\n")
                to = [b"%d@far.example" % n for n in range(recipients)]
                result = injection.finish(b"a@b", to)
                theirs.send(errors.reply_for(result) if result.status else b"queued")
            finally:
                os._exit(0)
        theirs.close()
        os.waitpid(pid, 0)
        answer = ours.recv(600)
        ours.close()
        return answer

    return run


@needs_root
def test_the_queue_server_goes_by_the_kernels_word(
    queue: Queue, inject: Callable[[int, int], bytes]
) -> None:
    assert inject(ALICE, 4) == b"queued"
    too_much = b"451 you have sent as much mail as you may in an hour (#4.7.1)"
    assert inject(ALICE, 2) == too_much
    assert inject(ALICE, 6) == b"554 more recipients than you may send to in an hour (#5.7.1)"
    assert inject(BOB, 5) == b"queued"
    assert inject(0, 50) == b"queued"
    assert len(queue.queued()) == 3
