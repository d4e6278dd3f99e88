"""What may not leave Redis yet, and what cannot: it stays, and keeps no other item there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from archival_worker.eviction.evictor import EVICT, EvictionOptions, Evictor, _Candidate
from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from shared import names
from shared.redis_layout.keys import (
    closed_key,
    cursors_key,
    deadlines_key,
    item_key,
    keys_of_item,
    lost_key,
    opened_key,
)
from tests.integration.eviction.eviction_world import AT_ONCE, auction_of, sold
from tests.stack import StackFactory

pytestmark = pytest.mark.integration

BOTH = (API_GATEWAY, ARCHIVAL_WORKER)


async def test_a_struck_item_stays_for_a_minute_after_the_void(start_stack: StackFactory) -> None:
    """Also one that had not left before, whatever CLOSED_KEEP_S is: readers may keep what was before the void."""
    stack = await start_stack(services=BOTH)
    async with auction_of(stack) as auction:
        house = auction.house
        await sold(house, "lot")
        await auction.exported("lot")
        await house.operate("lot/bids/lot-ann/void")
        await auction.exported("lot")
        shard, keys = names.shard_of("lot"), keys_of_item("lot")
        epoch = await cast(Any, auction.redis).hget(cursors_key(shard), "epoch")
        seq = (await house.hash("lot"))["seq"]

        async def evict(*, was_struck: int = 1) -> int:
            fixed = [cursors_key(shard), closed_key(shard), deadlines_key(shard), opened_key(shard), lost_key(shard)]
            return int(await EVICT.run(auction.redis, [*fixed, *keys], ["lot", epoch, seq, 0, was_struck]))

        assert await evict() == 5
        struck_us = int((await house.hash("lot"))["returned_us"])
        await cast(Any, auction.redis).hset(item_key("lot"), "returned_us", struck_us - 30_000_000)
        assert await evict() == 5
        await cast(Any, auction.redis).hset(item_key("lot"), "returned_us", struck_us - 60_000_000)
        assert await evict(was_struck=0) == 5, "whoever asks did not know"
        assert await evict() == 1


async def test_the_minute_of_a_struck_item_begins_when_others_could_hear_of_the_void(start_stack: StackFactory) -> None:
    """While NATS is away nobody hears of it, however long ago it was."""
    stack = await start_stack(services=BOTH)
    async with auction_of(stack) as auction, auction.house.connected() as connection:
        house = auction.house
        await sold(house, "lot")
        await sold(house, "other")
        await auction.exported("lot", "other")
        await house.operate("lot/bids/lot-ann/void")
        await auction.exported("lot", "other")
        struck_us = int((await house.hash("lot"))["returned_us"])
        await cast(Any, auction.redis).hset(item_key("lot"), "returned_us", struck_us - 3_600_000_000)
        await auction.evicted("other")
        assert await auction.evictor.look() == 0
        earlier = "UPDATE exports SET confirmed_at = confirmed_at - interval '1 minute' WHERE item_id = 'lot'"
        await connection.execute(earlier)
        assert await auction.evictor.look() == 1


async def test_what_is_not_archived_does_not_leave(start_stack: StackFactory) -> None:
    """The archive is behind, or what the archive knows is ahead of what Redis was told."""
    stack = await start_stack(services=BOTH)
    async with auction_of(stack) as auction:
        house = auction.house
        await house.create("warm")
        await house.all_archived()
        await stack.stop_process(ARCHIVAL_WORKER)
        await sold(house, "lot")
        await house.all_published()
        assert await auction.evictor.look() == 0
        assert await auction.redis.exists(item_key("lot"))
        assert auction.evictor.closed_in_redis == 1
        await stack.start_process(ARCHIVAL_WORKER)
        await auction.exported("lot")

        class Behind(Evictor):
            """Redis fails over to a replica that has not heard of it, in the middle of a look."""

            async def _exported(self, due: Sequence[_Candidate]) -> dict[str, int]:
                found = await super()._exported(due)
                assert found
                await cast(Any, auction.redis.hset(cursors_key(names.shard_of("lot")), "archived", "0"))
                return found

        assert await Behind(auction.pool, auction.redis, auction.metrics, AT_ONCE).look() == 0
        assert await auction.redis.exists(item_key("lot"))
        assert await auction.evictor.look() == 0, "as far as Redis knows it is not archived"
        await stack.restart(ARCHIVAL_WORKER)
        await auction.evicted("lot")


async def test_a_closed_shard_lets_nothing_go(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(ARCHIVAL_WORKER, API_GATEWAY))
    async with auction_of(stack) as auction:
        await sold(auction.house, "lot")
        await auction.exported("lot")
        shard = names.shard_of("lot")

        class Interrupted(Evictor):
            async def _exported(self, due: Sequence[_Candidate]) -> dict[str, int]:
                found = await super()._exported(due)
                await cast(Any, auction.redis.hdel(cursors_key(shard), "epoch"))
                return found

        assert await Interrupted(auction.pool, auction.redis, auction.metrics, AT_ONCE).look() == 0
        assert await auction.redis.exists(item_key("lot"))
        for answer in (
            await auction.house.http.get("/api/v1/items/lot"),
            await auction.house.bid("lot", "eve", "x", amount=1_000),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "BEING_REBUILT")


async def test_an_item_that_cannot_be_removed_keeps_no_others(start_stack: StackFactory) -> None:
    stack = await start_stack(services=BOTH)
    async with auction_of(stack) as auction:
        redis: Any = auction.redis
        items = [item_id for n in range(999) if names.shard_of(item_id := f"lot-{n}") == names.SHARDS[7]][:4]
        for item_id in items:
            await sold(auction.house, item_id)
        await auction.exported(*items)
        kept = await redis.hget(item_key(items[0]), "updated_us")
        await redis.hdel(item_key(items[0]), "updated_us")
        await redis.hset(item_key(items[1]), "updated_us", "soon")
        await redis.delete(item_key(items[2]))
        await redis.lpush(item_key(items[2]), "no hash")
        assert await auction.evictor.look() == 1
        assert not await redis.exists(item_key(items[3]))
        assert "3 closed items cannot be removed" in auction.evictor.alarms["eviction"]
        await redis.delete(item_key(items[1]), item_key(items[2]))
        await redis.hset(item_key(items[0]), "updated_us", kept)
        await auction.evicted(*items)
        await auction.evictor.look()
        assert auction.evictor.alarms == {}


class CountedPool:
    """A pool that counts the connections that were asked for."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        self.asked += name == "acquire"
        return getattr(self._pool, name)


async def test_without_exports_the_archive_is_not_asked_again_and_again(start_stack: StackFactory) -> None:
    stack = await start_stack(services=BOTH)
    async with auction_of(stack) as auction:
        await sold(auction.house, "lot")
        await auction.exported("lot")
        await auction.house.query("UPDATE exports SET state = 'failing', confirmed_at = NULL")
        pool: Any = CountedPool(auction.pool)
        evictor = Evictor(pool, auction.redis, auction.metrics, EvictionOptions(keep_s=0, exports_every_s=60))
        for _ in range(10):
            assert await evictor.look() == 0
        assert pool.asked == 1
        assert evictor.closed_in_redis == 1


async def test_items_whose_export_fails_keep_no_others(start_stack: StackFactory) -> None:
    stack = await start_stack(services=BOTH)
    options = EvictionOptions(keep_s=0, exports_every_s=0, first_items=2, page_items=3, items_per_call=2)
    async with auction_of(stack, options) as auction:
        of_one_shard = [item_id for n in range(2_000) if names.shard_of(item_id := f"lot-{n}") == names.SHARDS[7]][:16]
        assert len(of_one_shard) == 16
        for item_id in of_one_shard:
            await sold(auction.house, item_id)
        await auction.exported(*of_one_shard)
        failing = of_one_shard[:10] + of_one_shard[12:13]
        await auction.house.query(
            """UPDATE exports SET state = 'failing', confirmed_at = NULL, next_try_at = now() + interval '1 hour'
               WHERE item_id = ANY ($1)""",
            failing,
        )
        left = 0
        for _ in range(20):
            left += await auction.evictor.look()
        assert left == 5
        assert await auction.redis.exists(*map(item_key, failing)) == 11
        await auction.house.query("UPDATE exports SET state = 'confirmed', confirmed_at = now()")
        await auction.evicted(*of_one_shard)
