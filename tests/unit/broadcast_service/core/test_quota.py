"""The quota of one viewer: at once, in the long run, and until it is closed."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from broadcast_service.core.quota import REFUSED_MAX, SINCE_COST, Allowance, Quota, operations_rate
from shared.pacing.buckets import Bucket, Rate

RATE = Rate(per_s=10, burst=50)


def allowances(quota: Quota, now_s: float, messages: int) -> dict[Allowance, int]:
    seen = dict.fromkeys(Allowance, 0)
    for _ in range(messages):
        seen[quota.admit(now_s)] += 1
    return seen


def test_who_goes_on_asking_is_refused_and_then_given_up() -> None:
    assert allowances(Quota(RATE), 0, 200) == {
        Allowance.ALLOWED: 50,
        Allowance.REFUSED: REFUSED_MAX,
        Allowance.EXHAUSTED: 200 - 50 - REFUSED_MAX,
    }


def test_who_waits_may_ask_again() -> None:
    quota = Quota(RATE)
    assert allowances(quota, 0, 60)[Allowance.REFUSED] == 10
    assert quota.admit(1.0) is Allowance.REFUSED, "what was asked for in vain is paid off first"
    assert allowances(quota, 2.125, 20)[Allowance.ALLOWED] == 10
    assert allowances(quota, 1_000, 50)[Allowance.ALLOWED] == 50


def test_what_is_too_much_is_not_counted_and_the_rest_may_be_asked_for() -> None:
    quota = Quota(RATE)
    assert not quota.spend(0, 51)
    assert quota.spend(0, 45)
    assert not quota.spend(0, 6)
    assert quota.spend(0, 5)
    assert not quota.spend(0, 1)
    assert quota.spend(0, 0)


def test_nothing_is_too_much_without_a_limit() -> None:
    quota = Quota(Rate(per_s=0, burst=50))
    assert allowances(quota, 0, 1_000)[Allowance.ALLOWED] == 1_000
    assert quota.spend(0, 50)


@pytest.mark.parametrize("items", [1, 200, 10_000])
def test_all_that_a_viewer_may_follow_can_be_asked_for_again_at_once(items: int) -> None:
    """With ``since`` for each, in messages of at least two items, and then a token."""
    quota = Quota(operations_rate(1, items))
    for _ in range(min(items, 98)):
        assert quota.admit(0) is Allowance.ALLOWED
    for _ in range(items):
        assert quota.spend(0, SINCE_COST)
    assert quota.admit(0) is Allowance.ALLOWED
    assert quota.spend(0, items)


@given(
    steps=st.lists(st.tuples(st.floats(0, 5), st.integers(0, 30)), max_size=60),
    rate=st.builds(Rate, per_s=st.integers(1, 100), burst=st.integers(1, 100)),
)
def test_over_any_time_no_more_than_the_burst_and_the_rate(steps: list[tuple[float, int]], rate: Rate) -> None:
    quota, now_s, granted = Quota(rate), 1_000_000.0, 0
    start_s = now_s
    for waited_s, operations in steps:
        now_s += waited_s
        granted += quota.admit(now_s) is Allowance.ALLOWED
        granted += operations if quota.spend(now_s, operations) else 0
        assert granted <= rate.burst + rate.per_s * (now_s - start_s) + 1e-3


def test_a_bucket_is_full_again_when_all_of_it_came_back() -> None:
    bucket = Bucket(RATE)
    assert bucket.is_full(0)
    bucket.take(100, 5)
    assert bucket.left(100) == 45
    assert not bucket.is_full(100.4)
    assert bucket.is_full(100.5)
    assert bucket.left(200) == 50
