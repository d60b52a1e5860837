"""docs/ucspi.md shows run scripts that the integration tests run, to the letter."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
SERVICES = ROOT / "tests" / "integration" / "foreign" / "services"


def test_every_run_script_of_the_page_is_one_that_is_tested() -> None:
    page = (ROOT / "docs" / "ucspi.md").read_text()
    shown = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(shown) == 4
    tested = {path.read_text() for path in SERVICES.iterdir()}
    for script in shown:
        assert script in tested
