"""What `recover` reads before it rebuilds, and what it must not touch: nothing that was accepted is dropped unsaved."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest
from redis import Redis

from archival_worker.errors import RecoveryRefused
from archival_worker.recovery import closed_shards
from archival_worker.recovery.options import RecoverOptions
from shared import names
from shared.messages import AuctionClosed, encode_event
from shared.redis_layout import outbox
from shared.redis_layout.keys import closed_key, cursors_key, item_key, outbox_key
from tests.integration.archive.archive_world import World
from tests.integration.loss.test_recover_all_of_it import LOT, OTHER, archive_of, close, put_entry, recovered
from tests.unit.archival_worker.events import bid, closed, created, delivery, sealed

pytestmark = pytest.mark.integration

SHARD, OTHERS_SHARD = names.shard_of(LOT), names.shard_of(OTHER)


async def epochs_given(world: World, shard: str) -> list[int]:
    rows = await world.query("SELECT shard_epoch FROM recoveries WHERE shard = $1 ORDER BY 1", shard)
    return [row["shard_epoch"] for row in rows]


@pytest.mark.parametrize("change", ["opened", "closed"])
async def test_a_shard_that_is_no_longer_lost_when_it_is_claimed_gets_no_new_epoch(world: World, change: str) -> None:
    """1. The run finds it lost. 2. Another run opens it, and bids go on; perhaps a gateway closes it. 3. The first one
    would give it an epoch: whatever the shard has given out since would never be archived."""
    direct: Any = Redis.from_url(world.stack.urls.redis_url, protocol=2)
    changed: list[str] = []

    def tell(line: str) -> None:
        # The last that is told before shards are claimed.
        if "what Redis has of them is discarded" not in line:
            return
        changed.append(line)
        fields = {"epoch": 1, "next": 2, "published": 1, "archived": 1}
        direct.hset(cursors_key(OTHERS_SHARD), mapping=fields)
        direct.hset(item_key(OTHER), "price", "100")
        direct.xadd(outbox_key(OTHERS_SHARD), {"item": OTHER, "events": b"[%b]" % encode_event(bid(OTHER, 1))}, "2-0")
        if change == "closed":
            direct.hset(cursors_key(OTHERS_SHARD), "stale", 1)
            direct.hdel(cursors_key(OTHERS_SHARD), "epoch")

    async with archive_of(world) as archive:
        for item in (LOT, OTHER):
            await archive.store([delivery(1, created(item))])
        await put_entry(world, 1, created(LOT))
        await close(world.redis, LOT, 1)
        report = await recovered(world, archive, tell=tell)
        assert len(changed) == 1
        assert SHARD in report.shards
        assert OTHERS_SHARD not in report.shards
        assert await epochs_given(world, OTHERS_SHARD) == []
        redis = cast(Any, world.redis)
        assert await redis.hgetall(item_key(OTHER)) == {b"price": b"100"}
        assert await redis.xlen(outbox_key(OTHERS_SHARD)) == 1
        if change == "opened":
            assert await redis.hget(cursors_key(OTHERS_SHARD), "epoch") == b"1"
        else:
            assert "run it again" in report.untouched[OTHERS_SHARD]
            report = await recovered(world, archive)
            assert (report.shards, report.from_outbox) == ([OTHERS_SHARD], 1)
            assert await redis.hget(item_key(OTHER), "seq") == b"1"
        assert await world.count("dead_letters") == 0
    direct.close()


async def test_a_shard_of_which_redis_has_an_item_and_no_outbox_is_no_lost_one(world: World) -> None:
    """Only its cursors are gone. The item may have bids that nothing else has."""
    redis = cast(Any, world.redis)
    await redis.hset(item_key(LOT), "price", "900")
    async with archive_of(world) as archive:
        await archive.store([delivery(1, created(LOT))])
        report = await recovered(world, archive)
    assert "still has 1 of its items" in report.untouched[SHARD]
    assert await redis.hgetall(item_key(LOT)) == {b"price": b"900"}
    assert await epochs_given(world, SHARD) == []
    assert not await redis.exists(cursors_key(SHARD))


async def test_all_of_a_closed_outbox_is_saved_with_what_is_sealed_and_then_nothing_is_left_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is longer than a page, and where more keys are to be removed than in one step."""
    monkeypatch.setattr(outbox, "PAGE", 2)
    monkeypatch.setattr(closed_shards, "_KEYS_PER_STEP", 2)
    redis = cast(Any, world.redis)
    await put_entry(world, 1, created(LOT))
    for n in range(2, 6):
        await put_entry(world, n, bid(LOT, n - 1))
    raised = {"item": LOT, "events": b"[]", "sealed": msgspec.json.encode([sealed(LOT, 4, 700)])}
    await redis.xadd(outbox_key(SHARD), raised, id="6-0")
    left_overs = [f"{{{SHARD}}}:proxies:left-{n}" for n in range(7)]
    for key in (*left_overs, f"{{{OTHERS_SHARD}}}:proxies:neighbour"):
        await redis.set(key, "1")
    await close(world.redis, LOT, 1)
    async with archive_of(world) as archive:
        report = await recovered(world, archive)
    assert (report.from_outbox, report.put_aside, report.items) == (5, 0, 1)
    stored = await world.query("SELECT seq FROM bids ORDER BY 1")
    assert [row["seq"] for row in stored] == [1, 2, 3, 4]
    assert await world.query("SELECT n, max_amount FROM sealed") == [{"n": 6, "max_amount": 700}]
    assert await redis.hmget(item_key(LOT), "seq", "leader_max") == [b"4", b"700"]
    assert await redis.exists(*left_overs, outbox_key(SHARD)) == 0
    assert await redis.exists(f"{{{OTHERS_SHARD}}}:proxies:neighbour") == 1
    ended = "SELECT items, verdicts FROM recoveries WHERE shard = $1 AND finished_at IS NOT NULL"
    assert await world.query(ended, SHARD) == [{"items": 1, "verdicts": report.verdicts}]
    assert report.verdicts >= 4


async def test_where_postgresql_was_put_back_the_whole_stream_is_read_if_that_is_asked_for(world: World) -> None:
    """Its consumer has acknowledged everything, for a PostgreSQL that is no more."""
    await world.publish(1, created(LOT))
    await world.publish(2, bid(LOT, 1))
    await world.jetstream.pull_subscribe(names.SUBJECT_ALL, durable=names.ARCHIVER_DURABLE, stream=names.STREAM)
    source = await world.jetstream.pull_subscribe_bind(names.ARCHIVER_DURABLE, names.STREAM)
    for delivered in await source.fetch(2, timeout=30):
        await delivered.ack_sync(timeout=30)
    async with archive_of(world) as archive:
        with pytest.raises(RecoveryRefused, match="new, not lost"):
            await recovered(world, archive)
        report = await recovered(world, archive, options=RecoverOptions(settle_s=0, whole_stream=True))
    assert report.from_stream == 2
    assert await cast(Any, world.redis).hget(item_key(LOT), "seq") == b"1"


async def test_closed_items_that_come_back_may_leave_again_those_that_changed_first_before_the_others(
    world: World,
) -> None:
    """All of them is archived: they wait for no entry. A page that begins with one that is to stay ends there."""
    shard = SHARD
    items = [item for n in range(2_000) if names.shard_of(item := f"lot-{n}") == shard][:3]
    async with archive_of(world) as archive:
        for n, (item, after_us) in enumerate(zip(items, (30, 10, 20), strict=True)):
            end = msgspec.structs.replace(cast(AuctionClosed, closed(item, 1)), ts_us=closed(item, 1).ts_us + after_us)
            await archive.store([delivery(2 * n + 1, created(item)), delivery(2 * n + 2, end)])
        await recovered(world, archive)
    found = await cast(Any, world.redis).zrange(closed_key(shard), 0, -1, withscores=True)
    assert [item.decode() for item, _ in found] == [items[1], items[2], items[0]]
    assert all(score < 0 for _, score in found)
