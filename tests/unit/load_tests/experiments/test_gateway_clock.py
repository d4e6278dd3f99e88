"""The gateway's own clock, out of its histogram."""

from __future__ import annotations

from math import inf

import httpx2 as httpx

from load_tests.experiments.common.gateway_clock import GatewayTime, read_buckets, time_between
from shared.http.metrics import Histogram, exposition


async def _asked(text: str, status: int = 200) -> dict[float, float]:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, text=text))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        return dict(await read_buckets(client))


async def test_what_a_gateway_shows_is_read() -> None:
    histogram = Histogram(0.01, 0.1)
    for seconds in (0.001, 0.05, 0.05, 3.0):
        histogram.observe(seconds)
    text = exposition([histogram.family("bidding_bid_seconds", "of bids")])
    assert await _asked(text) == {0.01: 1, 0.1: 3, inf: 4}


async def test_a_target_that_shows_nothing_has_no_buckets() -> None:
    assert await _asked("nothing here", 404) == {}
    assert await _asked("# what is this\n{{{\n") == {}


def test_percentiles_are_of_the_bids_between_the_looks() -> None:
    before = {0.01: 500.0, 0.1: 500.0, inf: 500.0}
    after = {0.01: 560.0, 0.1: 598.0, inf: 600.0}
    assert time_between(before, after, bids=100) == GatewayTime(10, 100, None), "over the last bound"
    assert time_between({}, {0.01: 51.0, 0.1: 99.0, inf: 100.0}, bids=100) == GatewayTime(10, 100, 100)


def test_looks_at_different_gateways_say_nothing() -> None:
    assert time_between({}, {}, bids=10) is None
    assert time_between({0.1: 9.0, inf: 9.0}, {0.1: 9.0, inf: 9.0}, bids=0) is None, "nothing happened"
    assert time_between({0.1: 9.0, inf: 20.0}, {0.1: 10.0, inf: 15.0}, bids=1) is None, "another gateway, or a new one"
    assert time_between({}, {0.1: 50.0, inf: 50.0}, bids=100) is None, "half of the bids went elsewhere"
