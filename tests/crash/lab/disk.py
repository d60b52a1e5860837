"""What a loss of power may leave of what was done to a disk.

Nothing is certain but what fsync has promised: the content of a file up to its own last
fsync, a name in a directory up to the directory's. Everything later may be there or not,
each thing by itself: more than any journalling file system does, so that what holds here
holds on all of them. One thing is taken for granted: a rename is done or not done.
"""

import os
import random
from collections.abc import Iterator
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

from lab.tracer import Op


class Unsynced(Enum):
    """What becomes of file content that was not synced."""

    LOST = auto()  # the file is as it was at its last fsync
    ZEROS = auto()  # it has its size, and zeros where data should be
    KEPT = auto()
    MIXED = auto()  # one or the other, by file


class File:
    """A file, whatever its names are."""

    def __init__(self, owner: tuple[int, int, int]) -> None:
        """Begin empty."""
        self.owner = owner
        self.content = b""
        self.synced = b""
        self.times: tuple[float, float] | None = None

    def write(self, data: bytes, offset: int) -> None:
        """Write data at an offset."""
        content = self.content.ljust(offset, b"\0")
        self.content = content[:offset] + data + content[offset + len(data) :]

    def after(self, what: Unsynced, chance: random.Random) -> bytes:
        """Return what is there after the loss of power."""
        if what is Unsynced.MIXED:
            what = chance.choice((Unsynced.LOST, Unsynced.ZEROS, Unsynced.KEPT))
        if what is Unsynced.ZEROS and len(self.content) > len(self.synced):
            return self.synced.ljust(len(self.content), b"\0")
        return self.content if what is Unsynced.KEPT else self.synced


class Change(NamedTuple):
    """A name that came, went, or both (a rename); not yet synced."""

    came: str
    gone: str
    file: File | None

    def directories(self) -> set[str]:
        """Return the directories it is in."""
        return {os.path.dirname(name) for name in (self.came, self.gone) if name}

    def apply(self, names: dict[str, File]) -> None:
        """Do it."""
        if self.gone and self.came:
            if self.gone in names:
                names[self.came] = names.pop(self.gone)
        elif self.gone:
            names.pop(self.gone, None)
        elif self.file is not None:
            names[self.came] = self.file


class State(NamedTuple):
    """Files as they are found after the power is back: several names may share one."""

    kind: str  # what was lost
    lost: frozenset[str]  # names that were there before
    files: dict[str, int]  # name: which file
    contents: list[tuple[bytes, tuple[int, int, int]]]

    def key(self) -> object:
        """Return something equal for equal states."""
        return frozenset((name, self.contents[n]) for name, n in self.files.items())

    def build(self, root: Path) -> None:
        """Make the files below root, in directories that are there."""
        made: dict[int, Path] = {}
        for name, number in sorted(self.files.items()):
            path = root / name
            if number in made:
                os.link(made[number], path)
                continue
            content, (uid, gid, mode) = self.contents[number]
            path.write_bytes(content)
            os.chown(path, uid, gid)
            path.chmod(mode)
            made[number] = path


class Disk:
    """A disk on which things are done, one by one."""

    def __init__(self) -> None:
        """Begin without files."""
        self.names: dict[str, File] = {}
        self.durable: dict[str, File] = {}
        self.pending: list[Change] = []
        self._by_inode: dict[int, File] = {}

    def do(self, op: Op) -> None:
        """Do one thing."""
        file = self._by_inode.get(op.inode)
        if op.kind == "create":
            file = self._by_inode[op.inode] = File(op.owner)
            self._change(Change(op.path, "", file))
        elif op.kind == "link":
            self._change(Change(op.path, "", file))
        elif op.kind == "unlink":
            self._change(Change("", op.path, None))
        elif op.kind == "rename":
            self._change(Change(op.other, op.path, None))
        elif op.kind == "syncdir":
            done = [change for change in self.pending if op.path in change.directories()]
            for change in done:
                change.apply(self.durable)
                self.pending.remove(change)
        elif file is not None:
            if op.kind == "write":
                file.write(op.data, op.offset)
            elif op.kind == "truncate":
                file.content = file.content[: op.offset]
            elif op.kind == "sync":
                file.synced = file.content

    def _change(self, change: Change) -> None:
        change.apply(self.names)
        self.pending.append(change)

    def after_power_cut(self, chance: random.Random, samples: int) -> Iterator[State]:
        """Yield states that a loss of power may leave now.

        Args:
            chance: for the choice among the very many.
            samples: how many that are left to chance.
        """
        everything = list(self.pending)
        yield self._state("all that was not synced", [], Unsynced.LOST, chance)
        yield self._state("unsynced content", everything, Unsynced.LOST, chance)
        yield self._state("unsynced content, size kept", everything, Unsynced.ZEROS, chance)
        yield self._state("nothing", everything, Unsynced.KEPT, chance)
        for number, change in enumerate(everything):
            rest = everything[:number] + everything[number + 1 :]
            yield self._state("all names but one", [change], Unsynced.LOST, chance)
            yield self._state("one name", rest, Unsynced.KEPT, chance)
        for _ in range(samples):
            some = [change for change in everything if chance.random() < 0.5]
            yield self._state("some names and some content", some, Unsynced.MIXED, chance)

    def _state(self, kind: str, kept: list[Change], what: Unsynced, chance: random.Random) -> State:
        names = dict(self.durable)
        for change in kept:
            change.apply(names)
        files: list[File] = []
        for file in names.values():
            if file not in files:
                files.append(file)
        contents = [(file.after(what, chance), file.owner) for file in files]
        lost = frozenset(self.names.keys() - names.keys())
        return State(
            kind, lost, {name: files.index(file) for name, file in names.items()}, contents
        )
