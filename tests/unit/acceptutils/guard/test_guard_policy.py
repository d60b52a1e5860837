"""Who waits for how long, who is refused, and who never is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acceptutils.guard import policy
from acceptutils.guard.policy import ADMIT_BELOW, HALF_LIFE, LATELY, MILD, REFUSE_AT, STEEP, Policy
from acceptutils.guard.wire import Outcome
from acceptutils.server.addresses import Network

FAILED, PASSED = Outcome.FAILED, Outcome.PASSED
ALICE, BOB = b"alice@example.org", b"bob@example.org"
HERE, THERE = "192.0.2.1", "198.51.100.7"
LIMIT = int(REFUSE_AT)


class Door:
    """A policy with a clock, and attempts that take no time."""

    def __init__(self, allowed: str = "", capacity: int = policy.CAPACITY) -> None:
        networks = [Network(block) for block in allowed.split(",") if block]
        self.policy = Policy(networks, capacity)
        self.now = 1000.0

    def begin(self, address: str = HERE, account: bytes = ALICE) -> policy.Attempt:
        return self.policy.begin(address, account, self.now)

    def end(self, attempt: policy.Attempt, outcome: Outcome | None) -> bool:
        self.policy.settle(attempt)
        return self.policy.end(attempt, outcome, self.now)

    def attempt(
        self, outcome: Outcome | None, address: str = HERE, account: bytes = ALICE
    ) -> policy.Attempt:
        attempt = self.begin(address, account)
        self.end(attempt, outcome)
        return attempt

    def wait(self, address: str = HERE, account: bytes = ALICE) -> float:
        """Return how long an attempt would wait now; it comes to nothing."""
        return self.attempt(None, address, account).wait

    def fail(self, times: int, address: str = HERE, account: bytes = ALICE) -> None:
        for _ in range(times):
            self.attempt(FAILED, address, account)


def test_each_failure_makes_the_next_attempt_wait_longer() -> None:
    door = Door()
    waits = [door.attempt(FAILED).wait for _ in range(9)]
    assert waits == [0, 0, 1, 2, 4, 8, 16, 16, 16]


def test_a_second_between_failures_does_not_spare_a_step() -> None:
    door = Door()
    waits = []
    for _ in range(7):
        waits.append(door.attempt(FAILED).wait)
        door.now += 16
    assert waits == [0, 0, 1, 2, 4, 8, 16]


def test_failures_fade() -> None:
    door = Door()
    door.fail(6)
    assert door.wait() == STEEP[6]
    door.now += HALF_LIFE
    assert door.wait() == STEEP[3]
    door.now += 10 * HALF_LIFE
    assert door.wait() == 0


def test_what_was_not_judged_is_not_counted() -> None:
    door = Door()
    for _ in range(100):
        door.attempt(None)
    assert door.wait() == 0


def test_an_address_with_too_many_failures_is_refused_for_every_account() -> None:
    door = Door()
    for number in range(LIMIT):
        assert not door.attempt(FAILED, account=b"user%d" % number).refused
    refused = door.attempt(PASSED, account=b"anybody")
    assert (refused.refused, refused.wait) == (True, STEEP[-1])
    assert not door.attempt(FAILED, address=THERE).refused


def test_beginning_of_a_refusal_is_told_once() -> None:
    door = Door()
    told = [door.end(door.begin(), FAILED) for _ in range(LIMIT + 9)]
    assert told == [False] * (LIMIT - 1) + [True] + [False] * 9


def test_no_refusal_is_told_of_a_gateway() -> None:
    door = Door()
    door.attempt(PASSED)
    assert not any(door.end(door.begin(account=BOB), FAILED) for _ in range(LIMIT + 9))


def test_refusal_ends_when_half_has_faded_and_hammering_does_not_prolong_it() -> None:
    door = Door()
    door.fail(LIMIT)
    door.now += HALF_LIFE * 0.9
    for _ in range(1000):
        assert door.attempt(FAILED).refused
    door.now += HALF_LIFE * 0.2
    assert not door.attempt(FAILED).refused
    # The limit is the full one again, not that at which the refusal ended.
    assert ADMIT_BELOW < LIMIT - 5
    door.fail(5)
    assert not door.attempt(None).refused


def test_an_outcome_from_within_a_refusal_changes_nothing() -> None:
    door = Door()
    door.fail(LIMIT)
    door.attempt(PASSED)
    assert door.attempt(None).refused


def test_neighbours_in_an_ipv6_64_are_one() -> None:
    door = Door()
    for number in range(LIMIT):
        door.attempt(FAILED, f"2001:db8:0:1::{number:x}", b"user%d" % number)
    assert door.attempt(None, "2001:db8:0:1:ffff::9").refused
    assert not door.attempt(None, "2001:db8:0:2::1").refused


def test_an_ipv4_address_is_the_same_when_it_is_mapped() -> None:
    door = Door()
    door.fail(LIMIT, "::ffff:192.0.2.1")
    assert door.attempt(None, "192.0.2.1").refused


def test_case_of_the_account_makes_no_difference() -> None:
    door = Door()
    door.fail(3, account=b"Alice@EXAMPLE.org")
    assert door.wait(account=ALICE) == STEEP[3]


def test_strangers_failures_delay_strangers_mildly_and_refuse_nobody() -> None:
    door = Door()
    for number in range(200):
        door.attempt(FAILED, f"198.51.{number}.1")
    attempt = door.attempt(None)
    assert (attempt.refused, attempt.wait) == (False, MILD[-1])


def test_strangers_failures_are_nothing_to_who_lately_logged_in_from_here() -> None:
    door = Door()
    door.attempt(PASSED)
    for number in range(200):
        door.attempt(FAILED, f"198.51.{number}.1")
    assert door.wait() == 0
    door.now += LATELY - 1
    for number in range(200):
        door.attempt(FAILED, f"198.51.{number}.1")
    assert door.wait() == 0
    door.now += 2
    assert door.wait() == MILD[-1]


def test_a_gateway_behind_which_somebody_logs_in_is_never_refused() -> None:
    door = Door()
    door.attempt(PASSED, account=ALICE)
    for number in range(10 * LIMIT):
        assert not door.attempt(FAILED, account=b"guess%d" % number).refused
    assert door.wait(account=ALICE) == 0
    assert door.wait(account=BOB) == MILD[-1]
    door.attempt(PASSED, account=BOB)
    assert door.wait(account=BOB) == 0


def test_a_guesser_behind_the_gateway_waits_for_each_guess_at_one_account() -> None:
    door = Door()
    door.attempt(PASSED, account=ALICE)
    door.fail(20, account=BOB)
    assert door.wait(account=BOB) == STEEP[-1]
    door.fail(20, account=ALICE)
    assert door.wait(account=ALICE) == STEEP[-1]


def test_a_right_password_forgives_what_was_wrong_from_here() -> None:
    door = Door()
    door.fail(5)
    door.attempt(PASSED)
    assert door.wait() == 0
    assert door.wait(THERE) == 0


def test_a_right_password_does_not_forgive_others() -> None:
    door = Door()
    door.fail(8, THERE)
    door.attempt(PASSED, HERE)
    assert door.wait(THERE) == STEEP[-1]


def test_many_at_once_are_no_way_around() -> None:
    door = Door()
    waits = [door.begin().wait for _ in range(12)]
    assert waits == [MILD[min(number, len(MILD) - 1)] for number in range(12)]
    assert waits[-1] > 0


def test_those_at_once_from_a_known_place_do_not_wait() -> None:
    door = Door()
    door.attempt(PASSED)
    assert {door.begin().wait for _ in range(50)} == {0}


def test_an_attempt_that_is_settled_weighs_nothing() -> None:
    door = Door()
    attempts = [door.begin() for _ in range(12)]
    for attempt in attempts:
        door.policy.settle(attempt)
    assert door.begin().wait == 0


def test_an_allowed_network_neither_waits_nor_is_refused_nor_counted() -> None:
    door = Door("192.0.2.0/24,2001:db8::/32")
    door.fail(10 * LIMIT)
    door.fail(10 * LIMIT, "2001:db8:7::1")
    assert door.wait() == door.wait("::ffff:192.0.2.1") == 0
    assert not door.attempt(None).refused
    assert door.wait(THERE) == 0


@pytest.mark.parametrize("address", ["", "unix", "1.2.3", "host\0", "::zz"])
def test_an_unknown_address_is_judged_by_the_account_alone(address: str) -> None:
    door = Door()
    door.fail(2 * LIMIT, address)
    attempt = door.attempt(None, address)
    assert (attempt.refused, attempt.wait) == (False, STEEP[-1])
    assert door.wait(address, BOB) == 0


def test_memory_is_bounded() -> None:
    door = Door(capacity=50)
    for number in range(1000):
        door.attempt(PASSED, f"10.0.{number // 250}.{number % 250}", b"user%d" % number)
    for table in vars(door.policy).values():
        if isinstance(table, policy.Table):
            assert len(table) == 50


def test_a_refused_guesser_makes_nobody_forgotten() -> None:
    door = Door(capacity=50)
    door.fail(LIMIT)
    door.fail(3, THERE, BOB)
    for number in range(1000):
        assert door.attempt(FAILED, account=b"user%d" % number).refused
    assert door.wait(THERE, BOB) == STEEP[3]


ATTEMPTS = st.lists(
    st.tuples(
        st.sampled_from([HERE, THERE, "2001:db8::1", ""]),
        st.sampled_from([ALICE, BOB, b"carol"]),
        st.sampled_from([FAILED, PASSED, None]),
        st.floats(0, 2 * HALF_LIFE),
    ),
    max_size=150,
)


@given(ATTEMPTS)
@settings(max_examples=60, deadline=None)
def test_whatever_happens_waits_are_short_and_the_known_are_let_in(
    attempts: list[tuple[str, bytes, Outcome | None, float]],
) -> None:
    door = Door(capacity=3)
    logins: dict[tuple[str, bytes], float] = {}
    for address, account, outcome, pause in attempts:
        attempt = door.attempt(outcome, address, account)
        assert 0 <= attempt.wait <= STEEP[-1]
        if address and door.now - logins.get((address, account), -LATELY) < LATELY:
            assert not attempt.refused
        if outcome is PASSED and not attempt.refused:
            logins = {key: at for key, at in logins.items() if key != (address, account)}
            logins[address, account] = door.now
            logins = dict(list(logins.items())[-3:])
        door.now += pause


@given(st.integers(1, 60))
def test_attempts_that_come_to_nothing_leave_nothing(parallel: int) -> None:
    door = Door()
    for attempt in [door.begin() for _ in range(parallel)]:
        door.end(attempt, None)
    assert door.wait() == 0
