"""A disk that is full or fails at each call, and a loss of power at each moment."""

import errno
import os
import random
from collections import Counter

import pytest
from lab import power, runs, sweep
from lab.disk import Disk, File, Unsynced
from lab.runs import Outcome
from lab.tracer import Op, Touch

EVERY = 70  # of the very many combinations of what is lost, this one is tried here
RARE = ("one name", "some names and some content", "all names but one")


@pytest.fixture(scope="module")
def recorded() -> Outcome:
    """Return a run without a fault, and what it did to the disk."""
    return runs.run(record=True)


@pytest.fixture(scope="module")
def known(recorded: Outcome) -> list[Touch]:
    """Return its touches."""
    return recorded.touches


def broken(points: list[sweep.What]) -> list[str]:
    hits = list(sweep.in_parallel(sweep.hit, points))
    assert any(hit.touch for hit in hits)
    return [f"{hit.fault}: {hit.broken}" for hit in hits if hit.broken]


def test_no_room_for_one_call(known: list[Touch]) -> None:
    assert broken(sweep.failures(known, errno.ENOSPC)[::3]) == []


def test_no_room_any_more(known: list[Touch]) -> None:
    assert broken(sweep.failures(known, errno.ENOSPC, lasting=True)[1::6]) == []


def test_an_error_of_the_disk(known: list[Touch]) -> None:
    assert broken(sweep.failures(known, errno.EIO)[1::8]) == []


def chosen(cuts: list[power.Cut]) -> list[power.Cut]:
    """Return a third of the cuts of the plain kinds, and some of the others."""
    rare = [cut for cut in cuts if cut.state.kind in RARE]
    return [cut for cut in cuts if cut.state.kind not in RARE][::3] + rare[::EVERY]


def test_an_error_of_the_disk_on_the_short_way() -> None:
    short = sweep.touches(runs.SHORT)
    points = sweep.failures(short, errno.EIO, attempts=runs.SHORT)[::12]
    points += sweep.failures(short, errno.ENOSPC, attempts=runs.SHORT)[1::12]
    assert broken(points) == []


@pytest.mark.parametrize("attempts", [runs.ONE, runs.SHORT], ids=["one", "short"])
def test_a_loss_of_power(attempts: tuple[int, ...]) -> None:
    cuts = chosen(list(power.cuts(runs.run(record=True, attempts=attempts), 1, 3)))
    assert len({cut.after for cut in cuts}) > 30
    assert sum(bool(cut.acknowledged) for cut in cuts) > 15
    results = sweep.in_parallel(sweep.cut_power, cuts)
    assert [(cut.last, cut.state, what) for cut, what in results if what] == []


@pytest.mark.parametrize(
    "unsynced", ["queue/todo", "queue/bounce", "homes/ann/Maildir/new", "homes/bob"]
)
def test_a_forgotten_fsync_is_found(unsynced: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def forgetful(descriptor: int) -> None:
        if not os.readlink(f"/proc/self/fd/{descriptor}").endswith(unsynced):
            fsync(descriptor)

    monkeypatch.setattr(os, "fsync", forgetful)
    recorded = runs.run(record=True)
    monkeypatch.undo()
    cuts = [
        cut
        for cut in power.cuts(recorded, 1, 0)
        if cut.acknowledged and any(os.path.dirname(name) == unsynced for name in cut.state.lost)
    ]
    assert any(sweep.cut_power(cut)[1] for cut in cuts)


# The model itself.


def states(*ops: Op) -> Counter[frozenset[tuple[str, bytes]]]:
    disk = Disk()
    for op in ops:
        disk.do(op)
    return Counter(
        frozenset((name, state.contents[n][0]) for name, n in state.files.items())
        for state in disk.after_power_cut(random.Random(0), 20)
    )


def test_what_is_synced_is_there_and_what_is_not_may_be() -> None:
    ops = [
        Op("create", "a/x", inode=1),
        Op("write", "a/x", inode=1, data=b"12"),
        Op("syncdir", "a"),
    ]
    found = states(*ops)
    assert set(found) == {frozenset({("a/x", content)}) for content in (b"", b"\0\0", b"12")}
    assert set(states(*ops, Op("sync", "a/x", inode=1))) == {frozenset({("a/x", b"12")})}
    linked = states(
        *ops, Op("sync", "a/x", inode=1), Op("link", "b/y", inode=1), Op("unlink", "a/x")
    )
    x, y = ("a/x", b"12"), ("b/y", b"12")
    assert set(linked) == {frozenset(some) for some in ((), (x,), (y,), (x, y))}


def test_a_number_that_is_used_again_is_another_file() -> None:
    disk = Disk()
    for op in (
        *(Op("create", "a/x", inode=1), Op("write", "a/x", inode=1, data=b"old")),
        *(Op("unlink", "a/x"), Op("create", "a/y", inode=1)),
        Op("write", "a/y", inode=1, data=b"new"),
    ):
        disk.do(op)
    assert {name: file.content for name, file in disk.names.items()} == {"a/y": b"new"}


def test_zeros_take_the_place_of_data_only() -> None:
    file = File((0, 0, 0))
    file.write(b"synced", 0)
    file.synced = file.content
    file.write(b"X", 0)
    file.write(b"+", 6)
    assert file.after(Unsynced.ZEROS, random.Random(0)) == b"synced\0"
    assert file.after(Unsynced.LOST, random.Random(0)) == b"synced"
    assert file.after(Unsynced.KEPT, random.Random(0)) == b"Xynced+"
