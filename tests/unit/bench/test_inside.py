"""The gateway's own histogram, between two looks."""

from __future__ import annotations

import math

import pytest

from bench.overload.inside import buckets_of, p99_ms
from shared.http.metrics import Histogram, exposition


def looked_at(histogram: Histogram) -> dict[float, float]:
    return dict(buckets_of(exposition([histogram.family("bidding_bid_seconds", "Bids")])))


def test_what_the_gateway_tells_is_read() -> None:
    histogram = Histogram(0.01, 0.25)
    for seconds in (0.005, 0.01, 0.2, 3.0):
        histogram.observe(seconds)
    assert looked_at(histogram) == {0.01: 2, 0.25: 3, math.inf: 4}


@pytest.mark.parametrize(("slow", "told"), [(0, 10.0), (1, 10.0), (2, 250.0), (99, 250.0)])
def test_only_bids_between_the_looks_count(slow: int, told: float) -> None:
    histogram = Histogram(0.01, 0.25)
    for _ in range(1_000):
        histogram.observe(9.0)
    before = looked_at(histogram)
    for number in range(100):
        histogram.observe(0.1 if number < slow else 0.001)
    assert p99_ms(before, looked_at(histogram)) == told


def test_without_bids_there_is_no_latency_and_above_all_bounds_it_is_not_known() -> None:
    histogram = Histogram(0.01)
    before = looked_at(histogram)
    assert p99_ms(before, before) == 0.0
    histogram.observe(1.0)
    assert p99_ms(before, looked_at(histogram)) == math.inf
