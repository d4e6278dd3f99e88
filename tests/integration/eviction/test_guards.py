"""The scripts that let closed items go, on a real Redis: each guard alone, where all the others would let it pass."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from archival_worker.eviction.evictor import EVICT, NOTE_CLOSED

pytestmark = pytest.mark.integration

KEEP_S = 60
LONG_AGO = "1"


class Closed:
    """A closed item that may go, and all the keys that the script knows; neighbours in each of the indexes."""

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        # A shard that is none of the 64, so that nobody else touches it.
        tag = f"{{x{secrets.token_hex(4)}}}"
        self.cursors, self.closed, self.deadlines, self.opened, self.lost, self.item, self.recent, self.proxies = (
            f"{tag}:{name}"
            for name in ("cursors", "closed", "deadlines", "opened", "lost", "item", "recent", "proxies")
        )
        self.tag = tag

    async def begin(self, fields: dict[str, str], cursors: dict[str, str], entry: int | None) -> None:
        redis = self.redis
        await redis.hset(self.cursors, mapping={"epoch": "3", "next": "12", "archived": "9"} | cursors)
        await redis.hset(self.item, mapping={"status": "sold", "seq": "7", "updated_us": LONG_AGO} | fields)
        await redis.rpush(self.recent, "event")
        await redis.hset(self.proxies, "ann", "500")
        for key in (self.closed, self.deadlines, self.opened):
            await redis.zadd(key, {"lot": 9 if entry is None else entry, "neighbour": 2})
        await redis.sadd(self.lost, "lot", "neighbour")

    async def evict(self, *, epoch: str = "3", seq: int = 7, was_struck: int = 0) -> int:
        keys = [self.cursors, self.closed, self.deadlines, self.opened, self.lost]
        keys += [self.item, self.recent, self.proxies]
        return int(await EVICT.run(self.redis, keys, ["lot", epoch, seq, KEEP_S, was_struck]))

    async def everything(self) -> dict[bytes, bytes]:
        keys = [key async for key in self.redis.scan_iter(f"{self.tag}:*", count=1_000)]
        return {key: await self.redis.dump(key) for key in keys}


@pytest_asyncio.fixture
async def lot(redis_url: str) -> AsyncIterator[Closed]:
    async with Redis.from_url(redis_url, protocol=2) as redis:
        yield Closed(redis)


def now_us() -> str:
    return str(time.time_ns() // 1_000)


@pytest.mark.parametrize(
    ("reply", "fields", "cursors", "entry", "asked"),
    [
        (2, {}, {"epoch": "4"}, 9, {}),
        (3, {"status": "open"}, {}, 9, {}),
        (3, {"status": "paused"}, {}, 9, {}),
        (3, {"seq": "8"}, {}, 9, {}),
        (3, {"seq": "6"}, {}, 9, {}),
        (4, {}, {}, 10, {}),
        (5, {"updated_us": "now"}, {}, 9, {}),
        (5, {"returned_us": "now"}, {}, 9, {"was_struck": 1}),
        (5, {"returned_us": LONG_AGO}, {}, 9, {"was_struck": 0}),
    ],
    ids=[
        "its shard was rebuilt",
        "it is open",
        "it is paused",
        "it has an event that the archive lacks",
        "the archive has another one",
        "its last entry is not archived as far as Redis knows",
        "it was closed a moment ago",
        "it came back a moment ago",
        "it came back since the archive was asked",
    ],
)
async def test_an_item_that_may_not_go_stays_as_it_is(
    lot: Closed, reply: int, fields: dict[str, str], cursors: dict[str, str], entry: int, asked: dict[str, Any]
) -> None:
    fields = {name: now_us() if value == "now" else value for name, value in fields.items()}
    await lot.begin(fields, cursors, entry)
    before = await lot.everything()
    assert await lot.evict(**asked) == reply
    assert await lot.everything() == before


async def test_an_item_of_a_closed_shard_or_one_that_nobody_noted_stays(lot: Closed) -> None:
    await lot.begin({}, {}, 9)
    await lot.redis.zrem(lot.closed, "lot")
    assert await lot.evict() == 4
    await lot.redis.zadd(lot.closed, {"lot": 9})
    await lot.redis.hdel(lot.cursors, "epoch")
    assert await lot.evict() == 2
    assert await lot.redis.exists(lot.item)


@pytest.mark.parametrize("status", ["sold", "unsold", "cancelled"])
@pytest.mark.parametrize("returned", [{}, {"returned_us": LONG_AGO}])
async def test_one_that_may_go_leaves_nothing_behind_and_its_neighbours_alone(
    lot: Closed, status: str, returned: dict[str, str]
) -> None:
    await lot.begin({"status": status} | returned, {}, 9)
    assert await lot.evict(was_struck=int(bool(returned))) == 1
    redis = lot.redis
    assert await redis.exists(lot.item, lot.recent, lot.proxies) == 0
    for key in (lot.closed, lot.deadlines, lot.opened):
        assert await redis.zrange(key, 0, -1) == [b"neighbour"]
    assert await redis.smembers(lot.lost) == {b"neighbour"}
    assert await redis.hget(lot.cursors, "evictions") == b"1", "whoever asked the archive before must ask again"
    assert await lot.evict() == 0
    assert await redis.hget(lot.cursors, "evictions") == b"1", "nothing has left this time"


async def test_what_is_left_of_an_item_without_its_hash_goes_once(lot: Closed) -> None:
    await lot.begin({}, {}, 9)
    await lot.redis.delete(lot.item)
    for _ in range(2):
        assert await lot.evict() == 0
        assert await lot.redis.exists(lot.recent, lot.proxies) == 0
        assert await lot.redis.hget(lot.cursors, "evictions") == b"1"


async def note(lot: Closed, item_id: str = "late") -> int:
    return int(await NOTE_CLOSED.run(lot.redis, [lot.cursors, lot.closed, lot.item], [item_id]))


async def test_a_closed_item_that_nobody_noted_waits_for_all_that_was_given_out(lot: Closed) -> None:
    """Which of the entries is its last one nobody knows; what is archived by now may lack it."""
    await lot.begin({}, {}, 9)
    assert await note(lot) == 1
    assert await lot.redis.zscore(lot.closed, "late") == 12
    await lot.redis.hset(lot.cursors, "next", "40")
    assert await note(lot) == 0
    assert await lot.redis.zscore(lot.closed, "late") == 12, "it does not wait for what came after it was noted"


@pytest.mark.parametrize("status", ["open", "paused", "scheduled"])
async def test_an_item_that_may_still_change_is_not_noted_nor_one_of_a_closed_shard(lot: Closed, status: str) -> None:
    await lot.begin({"status": status}, {}, 9)
    assert await note(lot) == 0
    await lot.redis.hset(lot.item, "status", "sold")
    await lot.redis.hdel(lot.cursors, "epoch")
    assert await note(lot) == 0
    assert await lot.redis.zscore(lot.closed, "late") is None
