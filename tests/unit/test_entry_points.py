"""Every program that is declared can be loaded, and the rooms keep apart."""

import ast
import importlib
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][
    "acceptutils.programs"
]

# What a package of ours may import of the others.
MAY_IMPORT = {
    "ucspi": {"ucspi"},
    "acceptutils": {"acceptutils", "ucspi"},
    "pyqmail": {"pyqmail", "ucspi"},
    "appliance": {"appliance", "ucspi"},
}


@pytest.mark.parametrize("program", sorted(DECLARED))
def test_a_declared_program_exists(program: str) -> None:
    module, _, function = DECLARED[program].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_no_other_room(room: str) -> None:
    strangers = []
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            roots = {name.partition(".")[0] for name in names} & set(MAY_IMPORT)
            strangers += [(str(path), name) for name in roots - MAY_IMPORT[room]]
    assert strangers == []


HEAVY = ("ssl", "hashlib", "random", "logging", "asyncio", "subprocess", "email", "argparse")


@pytest.mark.parametrize(
    "chain",
    [
        ("acceptserver", "fixsmtpio", "qmail-smtpd"),
        ("acceptserver", "authup", "checkpassword", "checknotroot", "qmail-pop3d"),
        ("acceptserver", "authup", "checkpassword", "checknotroot", "fixsmtpio", "ofmipd"),
        ("qmail-lspawn", "qmail-local"),
    ],
)
def test_a_connections_process_stays_lean(chain: tuple[str, ...]) -> None:
    import subprocess
    import sys

    modules = [DECLARED[program].partition(":")[0] for program in chain]
    script = f"import sys\nfor m in {modules!r}: __import__(m)\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert set(done.stdout.split()).isdisjoint(HEAVY)
