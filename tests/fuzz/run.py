"""Fuzz one target: ``python tests/fuzz/run.py TARGET SECONDS``.

What libFuzzer finds worth keeping goes to tests/fuzz/corpus/TARGET, which is tried again
by the unit tests; a crash is written beside it, and the exit status is not 0.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["acceptutils", "pyqmail", "ucspi"]):
    from targets import TARGETS

HERE = Path(__file__).parent


def main() -> None:
    """Run libFuzzer on the target that the command line names."""
    name, seconds = sys.argv[1], int(sys.argv[2])
    corpus = HERE / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    crashes = HERE / "crashes" / name
    crashes.mkdir(parents=True, exist_ok=True)
    options = ["-max_len=512", "-timeout=5", f"-max_total_time={seconds}", "-verbosity=0"]
    atheris.Setup(
        [sys.argv[0], *options, f"-artifact_prefix={crashes}/", str(corpus)], TARGETS[name]
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
