"""Wait for something to become true: with a deadline, and with a reason to give up early."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


class GaveUpError(AssertionError):
    """What was waited for did not happen, or can no longer happen."""


def until(
    what: str,
    probe: Callable[[], Value | None],
    *,
    seconds: float = 30,
    give_up: Callable[[], str | None] = lambda: None,
) -> Value:
    """Call probe until it returns something true, and return that.

    Args:
        what: what is waited for, in words, for the error.
        probe: the question; None and every false value mean "not yet".
        seconds: the deadline.
        give_up: returns a reason as soon as waiting on is pointless.

    Raises:
        GaveUpError: the deadline passed, or give_up had a reason.
    """
    deadline = time.monotonic() + seconds
    pause = 0.02
    while True:
        if value := probe():
            return value
        if reason := give_up():
            raise GaveUpError(f"gave up waiting for {what}: {reason}")
        if time.monotonic() >= deadline:
            raise GaveUpError(f"{what}: not within {seconds:g} seconds")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.5)
