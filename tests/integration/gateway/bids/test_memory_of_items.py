"""What Redis keeps of an item, of each bid on it, and of each key: bounded, and as docs/performance.md states it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio

from shared.clients.redis import open_redis
from shared.redis_layout.keys import keys_of_item
from tests.integration.gateway.bids.lot import Lot

pytestmark = pytest.mark.integration

_AT_ONCE = 200


@pytest_asyncio.fixture
async def lot(redis_url: str) -> AsyncIterator[Lot]:
    """An item in a database of its own, in the shared server."""
    redis = open_redis(redis_url.rpartition("/")[0] + "/9")
    await redis.flushdb()
    yield Lot(redis, "lot-of-memory")
    await redis.flushdb()
    await redis.aclose()


async def bytes_of(lot: Lot) -> dict[str, int]:
    """The bytes that this item takes in Redis, by kind of key."""
    found: dict[str, int] = {}
    for key in keys_of_item(lot.item_id):
        used = await cast(Any, lot.redis).memory_usage(key, samples=0)
        if used:
            found[key.split(":")[1]] = int(used)
    return found


async def bid(lot: Lot, numbers: range, *, bidders: int, is_keyed: bool = False) -> None:
    for begin in range(numbers.start, numbers.stop, _AT_ONCE):
        bids = [
            lot.bid(f"bidder-{number % bidders:08d}", number, bid_id=f"bid-{number:016d}" if is_keyed else "")
            for number in range(begin, min(begin + _AT_ONCE, numbers.stop))
        ]
        assert all(verdict.startswith("A") for verdict in await lot.place(*bids))
        # As an archive does that keeps up; it is bounded by itself.
        await lot.redis.delete(f"{{{lot.shard}}}:outbox")


async def test_an_open_item_takes_little(lot: Lot) -> None:
    await lot.open(start_price=1, length_us=3_600_000_000)
    used = await bytes_of(lot)
    assert set(used) == {"item", "recent"}
    assert 300 < sum(used.values()) < 1_800, used


async def test_bids_take_memory_up_to_a_bound_and_no_more(lot: Lot) -> None:
    """The latest events and the newest accepted bids are kept. Ten thousand bids more change nothing."""
    await lot.open(start_price=1, length_us=3_600_000_000)
    await bid(lot, range(1, 101), bidders=50)
    few = await bytes_of(lot)
    await bid(lot, range(101, 301), bidders=50)
    more = await bytes_of(lot)
    per_bid = (sum(more.values()) - sum(few.values())) / 200
    assert 50 < per_bid < 500, per_bid
    await bid(lot, range(301, 2_501), bidders=50)
    full = await bytes_of(lot)
    assert sum(full.values()) < 350_000, full
    await bid(lot, range(2_501, 12_501), bidders=50)
    after = await bytes_of(lot)
    # Events grow by a digit; the list of the latest is cut now and then.
    assert sum(after.values()) < 1.15 * sum(full.values()), (full, after)


async def test_each_bidder_and_each_key_take_their_share(lot: Lot) -> None:
    await lot.open(start_price=1, length_us=3_600_000_000)
    await bid(lot, range(1, 2_501), bidders=50)
    full = await bytes_of(lot)
    await bid(lot, range(2_501, 4_501), bidders=2_000)
    more = await bytes_of(lot)
    per_bidder = (more["bidders"] - full["bidders"]) / 1_950
    assert 20 < per_bidder < 150, per_bidder
    await bid(lot, range(4_501, 6_501), bidders=50, is_keyed=True)
    keyed = await bytes_of(lot)
    per_key = keyed["verdicts"] / 2_000
    assert 100 < per_key < 300, per_key
