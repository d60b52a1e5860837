"""What becomes of the child's exit status."""

import pytest

from acceptutils.authup import replies
from acceptutils.authup.attempt import judge
from acceptutils.authup.record import Ended
from acceptutils.authup.replies import Failure


@pytest.mark.parametrize(
    ("code", "became_user", "outcome"),
    [
        (1, False, replies.BAD_AUTH),
        (2, False, replies.BAD_AUTH),
        (111, False, replies.BAD_AUTH),
        # The session took place: its own statuses are not a wrong password.
        (1, True, 1),
        (2, True, 2),
        (111, True, replies.CRASH),
        (16, False, replies.TIMEOUT),
        (16, True, replies.TIMEOUT),
        (18, False, replies.CONTROL),
        (18, True, replies.CONTROL),
        (-9, False, replies.CRASH),
        (-11, True, replies.CRASH),
        (0, True, 0),
        (0, False, 0),
        (3, False, 3),
        (14, True, 14),
        (15, True, 15),
        (17, True, 17),
        (100, False, 100),
        (127, True, 127),
        (126, False, replies.FORK),
        (127, False, replies.FORK),
        (255, True, 255),
    ],
)
def test_outcome(code: int, became_user: bool, outcome: Failure | int) -> None:
    assert judge(Ended(code, became_user)) == outcome
