"""Every directory below fixsmtpio/: rules and dialogue give the expected transcript."""

from pathlib import Path

import pytest

from acceptutils.fixsmtpio import replay
from acceptutils.fixsmtpio.rules import parse

SCENARIOS = Path(__file__).parent / "fixsmtpio"
SHIPPED = Path(__file__).parents[3] / "templates" / "control" / "fixsmtpio.j2"


@pytest.mark.parametrize("name", sorted(path.parent.name for path in SCENARIOS.glob("*/dialogue")))
def test_scenario(name: str) -> None:
    directory = SCENARIOS / name
    rules = directory / "rules"
    parsed = parse((rules if rules.exists() else SHIPPED).read_bytes())
    transcript = replay.replay(parsed, (directory / "dialogue").read_text())
    assert transcript == (directory / "expected").read_text().splitlines()
