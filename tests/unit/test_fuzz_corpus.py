"""Try every input that fuzzing has kept, and a few that are known to be awkward, again."""

import importlib.util
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "fuzz"
specification = importlib.util.spec_from_file_location("fuzz_targets", FUZZ / "targets.py")
assert specification and specification.loader
targets = importlib.util.module_from_spec(specification)
specification.loader.exec_module(targets)

SEEDS = (
    b"",
    b"\0",
    b"\n",
    b"\r\n.\r\n",
    b"\x01EHLO x\r\nDATA\r\n.\r\nQUIT\r\n",
    b"\x02250-a\r\n250 b\r\n",
    b":ehlo::*::&fixsmtpio_fixup\n",
    b"[[:alpha:]-z]*\nabc",
    b"SSL_CIPHER=a\0\0",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12),
    b"AGEAYg==",
    b'{"version":1,"next_uid":20000,"domains":[],"accounts":{},"aliases":{}}',
    b'FROM:<@a,@b:"x\\"y"@[192.0.2.1]> SIZE=1',
    b"\x03Fa\0Tb\0\0",
)


@pytest.mark.parametrize("name", sorted(targets.TARGETS))
def test_nothing_kept_by_fuzzing_breaks_a_reader(name: str) -> None:
    kept = [path.read_bytes() for path in sorted((FUZZ / "corpus" / name).glob("*"))]
    for data in (*SEEDS, *kept):
        targets.TARGETS[name](data)
