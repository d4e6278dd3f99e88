"""How long bids took by the gateway's own clock: without the time that a bid waits in the crowd's own queues."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import httpx2 as httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

_FAMILY: Final = "bidding_bid_seconds"
_LEAST_SHARE: Final = 0.9

Buckets = Mapping[float, float]
"""How many bids took at most so many seconds; the last bound is infinity."""


class GatewayTime(msgspec.Struct, frozen=True):
    """From the head of a bid's request to its verdict, in milliseconds.

    The gateway counts by bounds, so each figure is the bound below which that share of the bids is; None above the last
    bound, of ten seconds.
    """

    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


async def read_buckets(client: httpx.AsyncClient) -> Buckets:
    """What the gateway has counted so far; nothing where it does not say."""
    try:
        answer = await client.get("/metrics")
        answer.raise_for_status()
        families = list(text_string_to_metric_families(answer.text))
    except (httpx.HTTPError, ValueError):
        return {}
    return {
        float(sample.labels["le"]): sample.value
        for family in families
        if family.name == _FAMILY
        for sample in family.samples
        if sample.name == f"{_FAMILY}_bucket"
    }


def time_between(before: Buckets, after: Buckets, *, bids: int) -> GatewayTime | None:
    """What was counted between two looks, while ``bids`` were made.

    None if the gateway tells no times, or if most of the bids were not counted between the looks. Then different
    gateways behind one address have answered them, or the gateway has started anew.
    """
    counts = {bound: count - before.get(bound, 0.0) for bound, count in sorted(after.items())}
    total = max(counts.values(), default=0.0)
    if total <= 0 or min(counts.values()) < 0 or total < _LEAST_SHARE * bids:
        return None

    def bound_of(share: float) -> float | None:
        bound_s = next(bound for bound, count in counts.items() if count >= share * total)
        return 1_000 * bound_s if math.isfinite(bound_s) else None

    return GatewayTime(bound_of(0.5), bound_of(0.95), bound_of(0.99))
