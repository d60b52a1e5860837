"""Kill each program before each system call that changes something: nothing may be lost."""

import pytest
from lab import runs, sweep
from lab.tracer import Fault, Touch

from pyqmail.queue import store
from pyqmail.send import delivery
from pyqmail.send.spawnprotocol import Report, Verdict


@pytest.fixture(scope="module")
def known() -> list[Touch]:
    """Return the touches of a run without a fault."""
    return sweep.touches()


@pytest.fixture(scope="module")
def short() -> list[Touch]:
    """Return those of messages to one recipient each."""
    return sweep.touches(runs.SHORT)


def test_no_system_call_is_overlooked() -> None:
    outcome = runs.run(survey=True)
    assert outcome.unknown == set()
    assert {touch.program for touch in outcome.touches} == set(sweep.PROGRAMS) - {sweep.POP3D}


@pytest.mark.parametrize("program", sweep.PROGRAMS)
def test_killed_before_each_call(known: list[Touch], program: str) -> None:
    points = sweep.kills([one for one in known if one.program == program], after=False)
    hits = list(sweep.in_parallel(sweep.hit, points))
    assert [hit.broken for hit in hits if hit.broken] == []
    reached = {hit.touch[:3] for hit in hits if hit.touch}
    assert reached == {fault[:3] for fault, _ in points}


@pytest.mark.parametrize("program", ["qmail-send", "qmail-clean", "qmail-local"])
def test_killed_on_the_short_way(short: list[Touch], program: str) -> None:
    chosen = [one for one in short if one.program == program]
    points = sweep.kills(chosen, after=program == "qmail-clean", attempts=runs.SHORT)
    hits = list(sweep.in_parallel(sweep.hit, points))
    assert [hit.broken for hit in hits if hit.broken] == []
    assert {hit.touch[:3] for hit in hits if hit.touch} == {fault[:3] for fault, _ in points}


def acknowledged_too_early(messages: list[store.Incoming]) -> list[int]:
    statuses = store._sync_contents(messages)
    for message in messages:
        message.close()
    return statuses


def marked_before_it_is_noted(channel: delivery.Channel, report: Report, original: object) -> None:
    running = channel.running[report.delivery]
    if report.verdict is Verdict.FAILURE:
        channel.mark_done(running.number, running.offset)
    original(channel, report)  # type: ignore[operator]


def test_a_message_acknowledged_too_early_is_found(
    known: list[Touch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "commit", acknowledged_too_early)
    points = [(Fault(*touch), runs.ONE) for touch in known if touch.program == "qmail-queue-server"]
    assert any(sweep.hit(what).broken for what in points)


def test_a_failure_marked_before_it_is_noted_is_found(
    known: list[Touch], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = delivery.Channel.report
    monkeypatch.setattr(
        delivery.Channel,
        "report",
        lambda channel, one: marked_before_it_is_noted(channel, one, report),
    )
    points = [
        (Fault(*touch), runs.ONE) for touch in known if touch.place.startswith("queue/bounce")
    ]
    assert any(sweep.hit(what).broken for what in points)
