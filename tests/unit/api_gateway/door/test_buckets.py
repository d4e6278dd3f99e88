"""Buckets by key: what each may take, and that nobody is rid of a debt, or costs memory, by coming from many places."""

from __future__ import annotations

import pytest

from api_gateway.door.buckets import SHARED, Buckets
from shared.pacing.buckets import Rate


def taken(buckets: Buckets, key: str, now_s: float, *, cost: int = 1, tries: int = 1_000) -> int:
    """How often it could be taken at this moment."""
    for count in range(tries):
        if buckets.wait_s(key, cost, now_s):
            return count
        buckets.take(key, cost, now_s)
    return tries


def test_a_burst_and_then_the_rate() -> None:
    buckets = Buckets(Rate(5, 20))
    assert taken(buckets, "a", 0.0) == 20
    assert buckets.wait_s("a", 1, 0.0) == pytest.approx(0.2)
    assert buckets.wait_s("a", 20, 0.0) == pytest.approx(4.0)
    assert taken(buckets, "a", 1.0) == 5
    assert taken(buckets, "b", 1.0) == 20, "another key has its own"
    assert taken(buckets, "a", 1e6) == 20, "no more is saved up than the burst"


def test_what_is_refused_costs_nothing() -> None:
    buckets = Buckets(Rate(1, 2))
    assert taken(buckets, "a", 0.0) == 2
    for _ in range(100):
        assert buckets.wait_s("a", 1, 0.5) == pytest.approx(0.5)
    assert taken(buckets, "a", 1.0) == 1


def test_more_than_the_burst_is_taken_from_a_full_bucket_and_paid_off() -> None:
    buckets = Buckets(Rate(10, 100))
    assert buckets.wait_s("a", 500, 0.0) == 0
    buckets.take("a", 500, 0.0)
    assert buckets.wait_s("a", 1, 0.0) == pytest.approx(40.1)
    assert buckets.wait_s("a", 500, 0.0) == pytest.approx(50.0)
    assert taken(buckets, "a", 50.0) == 100


def test_a_clock_that_goes_back_gives_nothing() -> None:
    buckets = Buckets(Rate(1, 1))
    assert taken(buckets, "a", 100.0) == 1
    assert taken(buckets, "a", 50.0) == 0


def test_quiet_keys_are_forgotten_and_all_of_them() -> None:
    buckets = Buckets(Rate(1, 10), keys_max=1_000, kept=0)
    for number in range(1_000):
        buckets.take(f"k{number}", 1, 0.0)
    assert len(buckets) == 1_000
    for number in range(600):
        buckets.take(f"later-{number}", 1, 20.0)
    assert len(buckets) == 600


def test_a_flood_of_keys_rids_nobody_of_a_debt_and_has_a_bound() -> None:
    buckets = Buckets(Rate(1, 10), keys_max=100, kept=0)
    assert taken(buckets, "greedy", 0.0) == 10
    granted = sum(taken(buckets, f"k{number}", 0.0, tries=10) for number in range(20_000))
    assert buckets.wait_s("greedy", 1, 0.0) > 0
    assert len(buckets) == 100
    assert len(buckets._shared) <= SHARED
    assert granted <= 99 * 10 + SHARED * 10, "the others share so many buckets"
    # When they are quiet there is room again, for keys of their own.
    assert taken(buckets, "new", 60.0) == 10
    assert taken(buckets, "newer", 60.0) == 10
    assert {"new", "newer"} <= buckets._own.keys(), "those that share may have one bucket"
