"""Objects that exist before the forks: immortal where the interpreter's layout is known."""

import subprocess
import sys

import pytest

from ucspi import immortal

SCRIPT = """
import sys
from ucspi import immortal
here_before = ["a list", {"with": "a dict"}]
count = sys.getrefcount(here_before)
made = immortal.freeze(immortal.open_memory())
later = [object()]
print(made, sys.getrefcount(here_before) > count, sys.getrefcount(later) < 5)
here_before.append(later)
here_before[1]["still"] = "changes"
print(len(here_before), len(here_before[1]))
"""


def run(script: str) -> list[str]:
    """Run a script in an interpreter of its own; return the words that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split()


@pytest.mark.skipif(not immortal.supported(), reason="needs CPython 3.12 or 3.13")
def test_what_exists_becomes_immortal_and_still_works() -> None:
    made, immortal_now, mortal, length, entries = run(SCRIPT)
    assert int(made) > 1000
    assert (immortal_now, mortal, length, entries) == ("True", "True", "3", "2")


@pytest.mark.skipif(immortal.supported(), reason="for other interpreters")
def test_an_unknown_interpreter_is_left_alone() -> None:
    made, immortal_now, mortal, length, entries = run(SCRIPT)
    assert (made, immortal_now, mortal, length, entries) == ("0", "False", "True", "3", "2")


@pytest.mark.skipif(not immortal.supported(), reason="needs CPython 3.12 or 3.13")
def test_everything_reachable_becomes_immortal_not_only_containers() -> None:
    script = """
from ucspi import immortal
word = "a word that nothing else holds: " + str(id(immortal))
holder = [[word], {"a name" + str(id(word)): 1.5}]
def function(): return 123456789.5, holder
immortal.freeze(immortal.open_memory())
value = holder[1][list(holder[1])[0]]
found = [word, holder[0], *holder[1], value, function.__code__.co_consts[-1]]
print(*map(immortal.is_immortal, found), immortal.is_immortal(object()))
"""
    assert run(script) == ["True"] * 5 + ["False"]
