"""Numbers of a script reach Redis as the digits of an integer, however large: hashes, scores and events have them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from shared.redis_layout.keys import accepted_key, item_key, outbox_key
from tests.integration.gateway.bids.lot import Lot

pytestmark = pytest.mark.integration

LARGEST = 2**53 - 1


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url.rpartition("/")[0] + "/8", protocol=2) as client:
        await client.flushdb()
        yield client
        await client.flushdb()


@pytest.mark.parametrize("number", [0, 1, -1, 100_000, 10**15, 1_790_000_000_000_001, LARGEST, 2**53])
async def test_a_number_is_written_as_its_digits(redis: Redis, number: int) -> None:
    script = "redis.call('HSET', KEYS[1], 'n', tonumber(ARGV[1])) return redis.call('HGET', KEYS[1], 'n')"
    assert await cast(Any, redis.eval(script, 1, "{x}:numbers", str(number))) == str(number).encode()
    if number < 2**53:
        scored = "redis.call('ZADD', KEYS[1], tonumber(ARGV[1]), 'm') return redis.call('ZSCORE', KEYS[1], 'm')"
        assert await cast(Any, redis.eval(scored, 1, "{x}:scores", str(number))) == str(number).encode()


async def test_the_largest_amount_has_the_same_digits_everywhere(redis: Redis) -> None:
    lot = Lot(redis, "lot-of-digits")
    await lot.open(start_price=1, length_us=3_600_000_000)
    bid = lot.bid("ann", LARGEST - 1, LARGEST, bid_id="largest")
    (verdict,) = await lot.place(bid)
    fields = verdict.split("|")
    assert fields[:2] == ["A", "largest"]
    assert fields[3] == str(LARGEST - 1)
    kept = await lot.hash(item_key(lot.item_id))
    assert (kept[b"price"], kept[b"leader_max"]) == (str(LARGEST - 1).encode(), str(LARGEST).encode())
    for name in (b"seq", b"bid_count", b"accepted", b"updated_us", b"start_us", b"end_us", b"created_us"):
        assert kept[name].isdigit(), (name, kept[name])
    *_, (_, entry) = cast(Any, await redis.xrange(outbox_key(lot.shard)))
    (event,) = json.loads(entry[b"events"])
    assert (event["amount"], event["current_bid"]) == (LARGEST - 1, LARGEST - 1)
    assert event["ts_us"] == int(kept[b"updated_us"])
    (line,) = cast(Any, await cast(Any, redis.lrange(accepted_key(lot.item_id), 0, -1)))
    assert line.split(b"|")[4:6] == [str(LARGEST - 1).encode(), str(LARGEST).encode()]
