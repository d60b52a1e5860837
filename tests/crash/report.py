"""Run every fault at every point, and write docs/crash-safety.md: `make crash`."""

import errno
import os
import sys
import time
from collections import Counter
from pathlib import Path

from lab import power, ptrace, runs, sweep
from lab.sweep import Hit

DOCUMENT = Path(__file__).parents[2] / "docs" / "crash-safety.md"
MARK = "<!-- What follows is written by `make crash`. -->\n"
SAMPLES = 4  # states left to chance, at each moment
KINDS = ("killed before", "killed after", "ENOSPC", "ENOSPC from here on", "EIO")
SAY_EVERY = 5  # seconds


class Progress:
    """A line now and then for who waits."""

    def __init__(self) -> None:
        """Begin to count."""
        self.done = 0
        self._said = time.monotonic()

    def one(self, what: str) -> None:
        """Count one run."""
        self.done += 1
        if time.monotonic() - self._said > SAY_EVERY:
            self._said = time.monotonic()
            print(f"crash: {self.done} runs, now {what}", flush=True)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def points(hits: list[Hit]) -> str:
    """Return the table of faults at system calls."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for hit in hits:
        if hit.touch:
            name = f"{hit.touch.call} {hit.touch.place}"
            counts[hit.touch.program, name, hit.kind] += 1
    text = ""
    for program in sweep.PROGRAMS:
        names = sorted({name for one, name, _ in counts if one == program}, key=_by_file)
        rows = [
            [name, *(str(counts[program, name, kind] or "") for kind in KINDS)] for name in names
        ]
        total = [sum(counts[program, name, kind] for name in names) for kind in KINDS]
        rows.append(["**all**", *(f"**{number}**" if number else "" for number in total)])
        text += f"\n### {TITLES.get(program, program)}\n\n" + table(["at", *KINDS], rows)
    return text


TITLES = {"remote": "qmail-rspawn's stand-in, which notes what it is given"}


def _by_file(name: str) -> tuple[str, str]:
    call, _, path = name.partition(" ")
    return path, call


def losses(cuts: list[power.Cut]) -> str:
    """Return the table of losses of power."""
    counts = Counter((cut.last.program, cut.state.kind) for cut in cuts)
    kinds = sorted({kind for _, kind in counts})
    programs = [name for name in sweep.PROGRAMS if any(one == name for one, _ in counts)]
    rows = [
        [TITLES.get(program, program), *(str(counts[program, kind] or "") for kind in kinds)]
        for program in programs
    ]
    rows.append(["**all**", *(f"**{sum(counts[p, k] for p in programs)}**" for k in kinds)])
    return table(["after a step of", *(f"lost: {kind}" for kind in kinds)], rows)


def not_reached(hits: list[Hit]) -> list[tuple[str, tuple[str, str, str]]]:
    """Return the calls, at each sort of file, at which a sort of fault never happened."""
    wanted = {(hit.kind, hit.fault[:3]) for hit in hits if not hit.broken}
    return sorted(wanted - {(hit.kind, hit.touch[:3]) for hit in hits if hit.touch})


def main() -> int:
    """Run everything; return 0 if all that must hold does."""
    if not ptrace.supported():
        print("crash: needs ptrace and seccomp filters, on x86-64")
        return 1
    began = time.monotonic()
    progress = Progress()
    known, several, short = map(sweep.touches, (runs.ONE, runs.SEVERAL, runs.SHORT))
    todo = [what for after in (False, True) for what in sweep.kills(known, after=after)]
    server = [touch for touch in several if touch.program == "qmail-queue-server"]
    todo += sweep.kills(server, after=False, attempts=runs.SEVERAL)
    for after in (False, True):
        todo += sweep.kills(short, after=after, attempts=runs.SHORT)
    todo += sweep.failures(short, errno.ENOSPC, attempts=runs.SHORT)
    todo += sweep.failures(short, errno.EIO, attempts=runs.SHORT)
    todo += sweep.failures(known, errno.ENOSPC)
    todo += sweep.failures(known, errno.ENOSPC, lasting=True)
    todo += sweep.failures(known, errno.EIO)
    hits: list[Hit] = []
    for hit in sweep.in_parallel(sweep.hit, todo):
        progress.one(hit.kind + " " + hit.fault.program)
        hits.append(hit)
    cuts: list[power.Cut] = []
    broken = [f"{hit.kind}, {hit.fault}: {hit.broken}" for hit in hits if hit.broken]
    broken += [f"{kind}: never came to {' '.join(where)}" for kind, where in not_reached(hits)]
    seed = int(os.environ.get("CRASH_SEED", "1"))
    lost = [
        cut
        for attempts in (runs.ONE, runs.SHORT)
        for cut in power.cuts(runs.run(record=True, attempts=attempts), seed, SAMPLES)
    ]
    for cut, what in sweep.in_parallel(sweep.cut_power, lost):
        progress.one("without power")
        cuts.append(cut)
        if what:
            broken.append(f"lost {cut.state.kind} after {cut.last}: {what}")
    for what in broken:
        print(f"crash: {what}\n")
    print(f"crash: {progress.done} runs in {time.monotonic() - began:.0f} s, {len(broken)} bad")
    if broken:
        return 1
    reached = [hit for hit in hits if hit.touch]
    text = DOCUMENT.read_text().partition(MARK)[0] + MARK
    text += f"\n{len(reached)} faults at system calls, {len(cuts)} states after a loss of power"
    text += f" (seed {seed}), on Linux {os.uname().release.split('-')[0]}: nothing was lost.\n"
    text += f"\n## Losses of power\n\n{losses(cuts)}\n## Faults at system calls\n{points(hits)}"
    DOCUMENT.write_text(text)
    print(f"crash: {DOCUMENT.name} is written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
