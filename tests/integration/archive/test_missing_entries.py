"""Messages that left the stream unarchived are published again from the outbox."""

from __future__ import annotations

from typing import Any, cast

import httpx2 as httpx
import nats
import pytest
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from redis.asyncio import Redis

from archival_worker.outbox.missing_entries import MissingEntries
from archival_worker.store.archive import Archive
from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from shared import names
from shared.clients.nats import Client, ensure_stream
from shared.clients.postgres import open_postgres
from shared.redis_layout.keys import cursors_key, outbox_key
from shared.redis_layout.outbox import EntryId
from tests.integration.archive.archive_world import World
from tests.stack import StackFactory
from tests.unit.archival_worker.events import bid
from tests.waiting import eventually

ITEM = "missing"
SHARD = names.shard_of(ITEM)
BIDS = 20


async def _forget_duplicates_soon(jetstream: JetStreamContext) -> None:
    """JetStream refuses to store again what it saw within this window, even if the message is gone."""
    config = (await ensure_stream(jetstream)).config
    config.duplicate_window = 0.5
    await jetstream.update_stream(config)


async def test_what_was_purged_unarchived_is_archived_all_the_same(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER), env={"ARCHIVER_HOLES_LOOK_S": "0.5"})
    client = await nats.connect(stack.urls.nats_url)
    async with (
        httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=10) as http,
        Redis.from_url(stack.urls.redis_url, protocol=2, decode_responses=True) as redis,
    ):
        jetstream = client.jetstream()
        await _forget_duplicates_soon(jetstream)
        await stack.stop_process(ARCHIVAL_WORKER)
        for number in range(1, BIDS + 1):
            answer = await http.post(f"/api/v1/items/{ITEM}/bid", json={"user_id": "ada", "amount": number})
            assert answer.status_code == 201

        async def cursors() -> dict[str, int]:
            found: Any = await redis.hmget(cursors_key(SHARD), ["next", "published", "archived"])
            return dict(zip(("next", "published", "archived"), map(int, found), strict=True))

        async def all_published() -> bool:
            now = await cursors()
            return now["published"] == now["next"] == BIDS + 1

        async def all_archived() -> bool:
            now = await cursors()
            return now["archived"] == now["next"]

        await eventually(all_published)
        await jetstream.purge_stream(names.STREAM)
        assert (await cursors())["archived"] == 0
        await stack.start_process(ARCHIVAL_WORKER)
        await eventually(all_archived, seconds=30)
        assert await redis.xlen(outbox_key(SHARD)) == 0
        history = (await http.get(f"/api/v1/items/{ITEM}/bids", params={"limit": 50})).json()["bids"]
        assert [entry["seq"] for entry in history] == list(range(BIDS, 0, -1))
    await client.close()


async def test_a_gateway_starts_and_takes_bids_while_nats_is_away(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER))
    await stack.stop_process(API_GATEWAY)
    await stack.stop_process("nats")
    await stack.start_process(API_GATEWAY)
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=10) as http:
        answer = await http.post(f"/api/v1/items/{ITEM}/bid", json={"user_id": "ada", "amount": 1})
        assert answer.status_code == 201
        await stack.start_process("nats")
        async with Redis.from_url(stack.urls.redis_url, protocol=2, decode_responses=True) as redis:

            async def archived() -> bool:
                found: Any = await redis.hmget(cursors_key(SHARD), ["next", "archived"])
                return found[0] is not None and found[0] == found[1]

            await eventually(archived, seconds=30)


async def test_entries_are_missed_while_other_shards_are_busy_and_not_while_they_are_on_their_way(
    world: World,
) -> None:
    await world.fill_outbox(ITEM, 5)
    await cast(Any, world.redis).hset(cursors_key(SHARD), "published", 5)
    worker = await world.start_worker()
    await world.publish_all([(n, [bid(ITEM, n)]) for n in (1, 2, 4, 5)])
    await world.all_archived()
    await worker.stop()
    pool = await open_postgres(world.postgres_url, name="test")

    async def connected() -> Client:
        return world.client

    finder = MissingEntries(world.redis, connected, Archive(pool).positions)
    in_hand = await world.jetstream.pull_subscribe_bind(durable=names.ARCHIVER_DURABLE, stream=names.STREAM)
    other = next(f"x{n}" for n in range(1_000) if names.shard_of(f"x{n}") != SHARD)
    held: list[Msg] = []

    async def busy(n: int) -> None:
        """A worker has always something in its hands: another shard's next message before the last one is done."""
        await world.publish(n, bid(other, n))
        held.extend(await in_hand.fetch(1, timeout=30))
        if len(held) > 1:
            await held.pop(0).ack_sync(timeout=30)

    try:
        assert await finder.once() == {}, "the first look finds nothing"
        await busy(1)
        assert await finder.once() == {SHARD: EntryId(1, 2)}
        assert "entries after 2" in finder.alarms[SHARD]
        assert (await world.redis_cursors(ITEM))[b"republish"] == b"1"
        await busy(2)
        assert await finder.once() == {}, "what the relay makes of it is only noted now"
        assert await finder.once() == {}, "and the workers are not past it"
        assert SHARD in finder.alarms
        await busy(3)
        assert await finder.once() == {SHARD: EntryId(1, 2)}

        finder = MissingEntries(world.redis, connected, Archive(pool).positions)
        await world.publish(3, bid(ITEM, 3))
        (late,) = await in_hand.fetch(1, timeout=30)
        assert await finder.once() == {}
        assert await finder.once() == {}, "it is in somebody's hands"
        await late.nak()
    finally:
        pool.terminate()


async def test_what_a_new_stream_lacks_is_missed_before_it_is_as_long_as_the_old_one(world: World) -> None:
    """NATS lost its disk. What was noted of the old stream's numbers says nothing about the new one's."""
    await world.fill_outbox(ITEM, 5)
    other = next(f"x{n}" for n in range(1_000) if names.shard_of(f"x{n}") != SHARD)
    worker = await world.start_worker()
    await world.publish_all([(n, [bid(other, n)]) for n in range(1, 21)])
    await world.all_archived()
    pool = await open_postgres(world.postgres_url, name="test")

    async def connected() -> Client:
        return world.client

    finder = MissingEntries(world.redis, connected, Archive(pool).positions)
    try:
        assert await finder.once() == {}, "the first look finds nothing"
        await worker.stop()
        await world.jetstream.delete_stream(names.STREAM)
        await ensure_stream(world.jetstream)
        worker = await world.start_worker()
        await world.publish_all([(n, [bid(ITEM, n)]) for n in (1, 2, 4, 5)])
        await world.all_archived()
        await worker.stop()
        in_hand = await world.jetstream.pull_subscribe_bind(durable=names.ARCHIVER_DURABLE, stream=names.STREAM)
        # A worker has always something in its hands, so not all of the stream is ever acknowledged.
        await world.publish(21, bid(other, 21))
        (before,) = await in_hand.fetch(1, timeout=30)
        assert await finder.once() == {}, "the first look at this stream"
        await world.publish(22, bid(other, 22))
        await in_hand.fetch(1, timeout=30)
        await before.ack_sync(timeout=30)
        assert await finder.once() == {SHARD: EntryId(1, 2)}
    finally:
        pool.terminate()


@pytest.mark.parametrize("fields", [None, {"epoch": 1, "next": 5, "published": "five"}, {"epoch": b"\xff", "next": 5}])
async def test_a_shard_whose_cursors_are_damaged_hides_no_other_one(
    world: World, fields: dict[str, Any] | None
) -> None:
    await world.fill_outbox(ITEM, 5)
    worker = await world.start_worker()
    await world.publish_all([(n, [bid(ITEM, n)]) for n in (1, 2, 4, 5)])
    await world.all_archived()
    await worker.stop()
    damaged = next(shard for shard in names.SHARDS if shard != SHARD)
    if fields is None:
        await cast(Any, world.redis).lpush(cursors_key(damaged), "no hash")
    else:
        await cast(Any, world.redis).hset(cursors_key(damaged), mapping=fields)
    pool = await open_postgres(world.postgres_url, name="test")

    async def connected() -> Client:
        return world.client

    finder = MissingEntries(world.redis, connected, Archive(pool).positions)
    try:
        assert await finder.once() == {}, "the first look finds nothing"
        assert await finder.once() == {SHARD: EntryId(1, 2)}
    finally:
        pool.terminate()
