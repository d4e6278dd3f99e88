"""A shard that is closed, or wiped, while a recovery is at work: nobody has read what belongs to it, so it waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import asyncpg
import pytest

from api_gateway.engine.relay.shard_scripts import ShardScripts
from archival_worker.consume.deliveries import Delivery
from archival_worker.recovery.options import RecoverOptions, RecoveryReport
from archival_worker.recovery.recover import Recovery
from archival_worker.store.archive import Archive, Stored
from shared import names
from shared.redis_layout.keys import cursors_key, item_key, outbox_key
from tests.integration.archive.archive_world import World
from tests.integration.feed.feed_world import AuctionHouse

pytestmark = pytest.mark.integration

BEFORE, MEANWHILE, THIRD = "lot-1", "lot-2", "lot-3"
A_WHILE_AGO, A_MOMENT_AGO = names.shard_of(BEFORE), names.shard_of(MEANWHILE)


class Interrupted(Archive):
    """An archive in which something happens elsewhere while it stores an entry of the shard."""

    def __init__(self, pool: Any, shard: str, happens: Callable[[], Awaitable[object]]) -> None:
        super().__init__(pool)
        self._shard = shard
        self._happens: Callable[[], Awaitable[object]] | None = happens

    async def store(
        self, deliveries: Sequence[Delivery], *, meanwhile: Callable[[], Awaitable[None]] | None = None
    ) -> Stored:
        shards = {each.entry.shard for each in deliveries if each.entry is not None}
        if self._shard in shards and self._happens is not None:
            happens, self._happens = self._happens, None
            await happens()
        return await super().store(deliveries, meanwhile=meanwhile)


@pytest.mark.parametrize("moment", ["the stream is read", "an outbox is saved"])
@pytest.mark.parametrize("loss", ["closed", "wiped"])
async def test_what_is_lost_while_a_recovery_is_at_work_waits_for_the_next_one(
    world: World, moment: str, loss: str
) -> None:
    assert len({A_WHILE_AGO, A_MOMENT_AGO, names.shard_of(THIRD)}) == 3
    redis, told = world.redis, list[str]()
    scripts = ShardScripts(redis)

    async def lose() -> None:
        if loss == "closed":
            assert await scripts.close_shard(A_MOMENT_AGO, epoch=1, n=99)
            return
        # The entries that it published last are in the stream alone.
        await house.publish(last)
        keys = [key async for key in redis.scan_iter(f"{{{A_MOMENT_AGO}}}:*")]
        await redis.delete(*keys)

    async def recover(archive: Archive) -> RecoveryReport:
        return await Recovery(redis, archive, world.jetstream, RecoverOptions(settle_s=0), tell=told.append).run()

    async with (
        AuctionHouse.at(world.stack.urls.redis_url, world.stack.urls.nats_url) as house,
        asyncpg.create_pool(world.postgres_url, min_size=1, max_size=3) as pool,
    ):
        await house.open(THIRD)
        await house.create(BEFORE)
        await house.open(MEANWHILE)
        await house.bid(MEANWHILE, 100)
        last = await house.decide(MEANWHILE, 200)
        assert await scripts.close_shard(A_WHILE_AGO, epoch=1, n=99)
        shard = names.shard_of(THIRD) if moment == "the stream is read" else A_WHILE_AGO
        report = await recover(Interrupted(pool, shard, lose))

        assert report.shards == [A_WHILE_AGO], told
        assert list(report.untouched) == [A_MOMENT_AGO]
        assert "a moment ago" in report.untouched[A_MOMENT_AGO]
        assert not await cast(Any, redis).hexists(cursors_key(A_MOMENT_AGO), "epoch")
        assert bool(await redis.exists(outbox_key(A_MOMENT_AGO))) is (loss == "closed"), "nothing was discarded"

        report = await recover(Archive(pool))
        assert (report.shards, report.untouched) == ([A_MOMENT_AGO], {}), told
    fields = await cast(Any, redis).hmget(item_key(MEANWHILE), ["epoch", "seq", "price"])
    assert fields == [b"2", b"2", b"200"], "the bid that was in one place only"
    stored = await world.query("SELECT seq FROM bids WHERE item_id = $1 ORDER BY 1", MEANWHILE)
    assert [row["seq"] for row in stored] == [1, 2]
    assert await world.count("dead_letters") == 0
