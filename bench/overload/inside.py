"""How long decided bids took by the gateway's own histogram, without the generator and the kernel's queues."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import aiohttp

Buckets = Mapping[float, float]
"""How many bids took so many seconds or fewer, since the gateway began."""

_BUCKET: Final = 'bidding_bid_seconds_bucket{le="'
_PATIENCE_S: Final = 30.0


def buckets_of(text: str) -> Buckets:
    """The histogram from what ``/metrics`` answers."""
    found = {}
    for line in text.splitlines():
        if line.startswith(_BUCKET):
            bound, _, count = line.removeprefix(_BUCKET).partition('"} ')
            found[float(bound)] = float(count)
    return found


async def read_buckets(port: int) -> Buckets:
    """The histogram as it is now; a gateway that is busy answers late."""
    timeout = aiohttp.ClientTimeout(total=_PATIENCE_S)
    url = f"http://127.0.0.1:{port}/metrics"
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, raise_for_status=True) as answer:
        return buckets_of(await answer.text())


def p99_ms(before: Buckets, after: Buckets) -> float:
    """The bound of the bucket within which 99 of 100 bids were between two looks; infinite above the last bound, 0 if
    there were none."""
    counts = {bound: count - before.get(bound, 0.0) for bound, count in sorted(after.items())}
    all_of_them = counts.get(math.inf, 0.0)
    if not all_of_them:
        return 0.0
    return next(bound for bound, count in counts.items() if count >= 0.99 * all_of_them) * 1e3
