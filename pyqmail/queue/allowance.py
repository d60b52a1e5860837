"""How much mail one user may queue in an hour, so that a stolen password is worth little.

The kernel says who queues a message; nothing that runs as the user gets round the count.
"""

import time
from collections.abc import Callable

from pyqmail.queue import errors

HOUR = 3600.0  # seconds
USERS = 10_000  # of so many at once it is remembered what they have left


class Allowance:
    """Recipients that each user has left.

    A user who has queued nothing for an hour has the whole hour's; what is used comes back
    evenly, over an hour.
    """

    def __init__(self, per_hour: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with everything left to everybody.

        Args:
            per_hour: recipients; 0 for any number.
            clock: seconds, never going back.
        """
        self._whole = per_hour
        self._clock = clock
        self._used: dict[int, tuple[float, float]] = {}  # uid: recipients, as of then

    def take(self, uid: int, recipients: int) -> int:
        """Take the recipients of one message from what a user has left.

        Returns:
            0, or the status to refuse it with: for good if it has more recipients than a
            whole hour's; and then nothing is taken.
        """
        if not self._whole:
            return errors.QUEUED
        if recipients > self._whole:
            return errors.BEYOND_ALLOWANCE
        now = self._clock()
        used = self._still_used(uid, now) + recipients
        if used > self._whole:
            return errors.ALLOWANCE_USED
        if uid not in self._used and len(self._used) >= USERS:
            self._forget(now)
        self._used[uid] = used, now
        return errors.QUEUED

    def _still_used(self, uid: int, now: float) -> float:
        used, then = self._used.get(uid, (0.0, now))
        return max(0.0, used - (now - then) * self._whole / HOUR)

    def _forget(self, now: float) -> None:
        """Forget who has everything left; if nobody has, who has used least."""
        left = {uid: used for uid in self._used if (used := self._still_used(uid, now))}
        if len(left) >= USERS:
            del left[min(left, key=left.__getitem__)]
        self._used = {uid: (used, now) for uid, used in left.items()}
