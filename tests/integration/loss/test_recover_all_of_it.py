"""What `recover` must not leave behind: shards of which nobody knows, what was closed a moment ago, and high epochs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import nats
import pytest
from nats.js import JetStreamContext

from archival_worker.recovery.closed_shards import ClosedShards
from archival_worker.recovery.options import RecoverOptions, RecoveryReport
from archival_worker.recovery.recover import Recovery
from archival_worker.store.archive import Archive
from archival_worker.store.database import Connection
from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from shared import names
from shared.clients.nats import StreamUnavailable, open_nats
from shared.clients.postgres import open_postgres
from shared.clients.redis import open_redis
from shared.messages import Event, encode_event
from shared.redis_layout.keys import cursors_key, item_key, outbox_key
from tests import tcp
from tests.integration.archive.archive_world import World
from tests.integration.loss.recover_world import RENEWED, house_of
from tests.stack import StackFactory
from tests.unit.archival_worker.events import bid, created, delivery, message, message_id
from tests.waiting import eventually

pytestmark = pytest.mark.integration

LOT, OTHER = "lot-1", "lot-2"
AT_ONCE = RecoverOptions(settle_s=0)


@pytest.mark.timeout(300)
async def test_what_comes_late_of_a_shard_that_nobody_knew_takes_no_number_of_its_new_epoch(
    start_stack: StackFactory,
) -> None:
    """1. A relay has read the first bids of a shard, and sleeps. 2. Redis loses everything; `recover` rebuilds what is
    known, and of this shard nothing is. 3. It gets its cursors, and bids. 4. The relay wakes up and publishes."""
    stack = await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER))
    async with house_of(stack) as house:
        await house.accepted(LOT, "ann", "one", amount=1)
        await house.all_archived()
        await house.lose_redis()
        code, output = await house.recover()
        assert code == 0, output
        await eventually(house.is_ready)
        client = await nats.connect(stack.urls.nats_url)
        late: list[tuple[Event, ...]] = [(created(OTHER),), (bid(OTHER, 1, user_id="ann"),)]
        for n, events in enumerate(late, start=1):
            await client.jetstream().publish(
                names.subject_of(OTHER), message(n, *events), headers={"Nats-Msg-Id": message_id(n, OTHER)}
            )
        await client.close()

        async def has_come() -> bool:
            (row,) = await house.query(
                "SELECT (SELECT count(*) FROM dead_letters) AS letters, "
                "(SELECT count(*) FROM items WHERE item_id = $1) AS items",
                OTHER,
            )
            return bool(row["letters"] == 2 or row["items"])

        await eventually(has_come, seconds=30)
        told = await house.accepted(OTHER, "bob", "two", amount=5)
        await house.all_archived()
        stored = await house.query("SELECT bid_id, epoch, seq FROM bids WHERE item_id = $1", OTHER)
        assert [tuple(row) for row in stored] == [("two", RENEWED, 1)]
        assert told["event_id"] == f"{OTHER}:{RENEWED}:1"
        letters = await house.query("SELECT reason, n FROM dead_letters ORDER BY n")
        assert [tuple(row) for row in letters] == [("former_epoch", 1), ("former_epoch", 2)]
        (begun,) = await house.query("SELECT count(*) AS shards FROM recoveries WHERE finished_at IS NOT NULL")
        assert begun["shards"] == len(names.SHARDS)


@asynccontextmanager
async def archive_of(world: World, kind: type[Archive] = Archive) -> AsyncIterator[Archive]:
    pool = await open_postgres(world.postgres_url, name="test", timeout_s=10)
    try:
        yield kind(pool)
    finally:
        pool.terminate()


async def recovered(
    world: World,
    archive: Archive,
    closed: type[ClosedShards] = ClosedShards,
    *,
    options: RecoverOptions = AT_ONCE,
    tell: Callable[[str], None] = lambda _: None,
) -> RecoveryReport:
    redis = open_redis(world.stack.urls.redis_url)
    recovery = Recovery(redis, archive, world.jetstream, options, tell=tell)
    recovery._closed = closed(redis, archive)
    try:
        return await recovery.run()
    finally:
        await redis.aclose()


async def put_entry(world: World, n: int, event: Event) -> None:
    """Into the outbox of a shard that lives."""
    redis, shard = cast(Any, world.redis), names.shard_of(event.item_id)
    await redis.hset(cursors_key(shard), mapping={"epoch": 1, "next": n, "published": 0, "archived": 0})
    fields = {"item": event.item_id, "events": b"[%b]" % encode_event(event)}
    await redis.xadd(outbox_key(shard), fields, id=f"{n}-0")


async def close(redis: Any, item_id: str, epoch: int) -> None:
    """Close the shard as a gateway does if it went back."""
    key = cursors_key(names.shard_of(item_id))
    await redis.hset(key, "stale", str(epoch))
    await redis.hdel(key, "epoch")


class ClosedMeanwhile(ClosedShards):
    """A gateway closes another shard when the outboxes of the closed ones were archived."""

    async def archive(self, shards: Mapping[str, int]) -> tuple[int, int]:
        done = await super().archive(shards)
        if names.shard_of(OTHER) not in shards:
            await close(self._redis, OTHER, 1)
        return done


async def test_the_outbox_of_a_shard_that_is_closed_in_the_middle_of_it_is_not_dropped(world: World) -> None:
    async with archive_of(world) as archive:
        for item in (LOT, OTHER):
            await put_entry(world, 1, created(item))
            await put_entry(world, 2, bid(item, 1))
            await archive.store([delivery(1, created(item))])
        await close(world.redis, LOT, 1)
        report = await recovered(world, archive, ClosedMeanwhile)
        shard = names.shard_of(OTHER)
        if shard in report.untouched:
            assert "again" in report.untouched[shard]
            assert await world.redis.xlen(outbox_key(shard)) == 2
            report = await recovered(world, archive)
        assert shard in report.shards
        stored = await world.query("SELECT item_id FROM bids ORDER BY 1")
        assert [row["item_id"] for row in stored] == [LOT, OTHER], "nothing else has these bids"


class CutLine:
    """A connection to NATS that can be cut for good."""

    def __init__(self, world: World) -> None:
        self._port = world.stack.ports.nats
        self._is_cut = asyncio.Event()

    @asynccontextmanager
    async def jetstream(self) -> AsyncIterator[JetStreamContext]:
        async with tcp.serving(self._pass_on) as port:
            client = await open_nats(f"nats://127.0.0.1:{port}", name="test")
            try:
                yield client.jetstream(timeout=1)
            finally:
                await client.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passing = asyncio.ensure_future(tcp.relay(reader, writer, self._port))
        cut = asyncio.ensure_future(self._is_cut.wait())
        try:
            await asyncio.wait({passing, cut}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            passing.cancel()
            cut.cancel()
            await asyncio.gather(passing, cut, return_exceptions=True)

    def cut(self, told: str) -> None:
        if told.startswith("waiting"):
            self._is_cut.set()


async def test_who_loses_nats_in_the_middle_is_told_so_and_not_of_postgresql(world: World) -> None:
    line = CutLine(world)
    redis = open_redis(world.stack.urls.redis_url)
    try:
        async with archive_of(world) as archive, line.jetstream() as jetstream:
            await archive.store([delivery(1, created(LOT))])
            options = RecoverOptions(settle_s=1.0)
            with pytest.raises(StreamUnavailable) as raised:
                await Recovery(redis, archive, jetstream, options, tell=line.cut).run()
    finally:
        await redis.aclose()
    assert "PostgreSQL" not in str(raised.value)
    assert "stream" in str(raised.value)


class StoredMeanwhile(Archive):
    """A worker stores an item right before its shard gets a new epoch."""

    async def begin_recovery(self, connection: Connection, shard: str, *, above: int = 0) -> int:
        if shard == names.shard_of(OTHER):
            await self.store([delivery(1, created(OTHER))])
        return await super().begin_recovery(connection, shard, above=above)


async def test_an_item_that_was_archived_while_a_recovery_was_at_work_comes_back_too(world: World) -> None:
    """The run has listed the items of its shards by then. No later run would bring back what it leaves out."""
    async with archive_of(world, StoredMeanwhile) as archive:
        await archive.store([delivery(1, created(LOT))])
        await recovered(world, archive)
        assert await world.count("dead_letters") == 0
    for item in (LOT, OTHER):
        assert await world.redis.exists(item_key(item)), item


async def test_what_is_published_while_a_recovery_waits_for_it_comes_back_too(world: World) -> None:
    """A gateway had read these entries from the old Redis. No worker runs, so only the recovery reads the stream."""
    late: list[asyncio.Task[None]] = []

    def tell(line: str) -> None:
        if line.startswith("waiting"):
            late.append(asyncio.create_task(world.publish(3, bid(LOT, 2, user_id="bob"))))

    async with archive_of(world) as archive:
        await archive.store([delivery(1, created(LOT))])
        await world.publish(2, bid(LOT, 1))
        report = await recovered(world, archive, options=RecoverOptions(settle_s=8), tell=tell)
        await asyncio.gather(*late)
    assert (len(late), report.from_stream) == (1, 2)
    redis = cast(Any, world.redis)
    assert await redis.hmget(item_key(LOT), "seq", "price", "leader") == [b"2", b"200", b"bob"]


@pytest.mark.parametrize("known_by", ["redis", "stream", "stream, before a late message"])
async def test_the_new_epoch_is_above_those_that_postgresql_has_forgotten(world: World, known_by: str) -> None:
    """It was put back to a state from before the last recoveries."""
    shard = names.shard_of(LOT)
    async with archive_of(world) as archive:
        await archive.store([delivery(1, created(LOT))])
        if known_by == "redis":
            await put_entry(world, 1, created(LOT))
            await close(world.redis, LOT, 5)
            await world.redis.delete(outbox_key(shard))
        else:
            # Acknowledged by a worker before, so that no run reads it again.
            await world.publish(9, bid(LOT, 7, epoch=5), shard_epoch=5)
            if known_by.endswith("late message"):
                # A relay's, which had slept since an earlier epoch: a shard's last message need not be its highest.
                await world.publish(3, bid(LOT, 2, epoch=2), shard_epoch=2)
            await world.jetstream.pull_subscribe(names.SUBJECT_ALL, durable=names.ARCHIVER_DURABLE, stream=names.STREAM)
            source = await world.jetstream.pull_subscribe_bind(names.ARCHIVER_DURABLE, names.STREAM)
            for delivered in await source.fetch(2, timeout=30):
                await delivered.ack_sync(timeout=30)
        report = await recovered(world, archive)
        assert shard in report.shards
        assert await cast(Any, world.redis).hget(cursors_key(shard), "epoch") == b"6"
        assert await world.query("SELECT shard_epoch FROM recoveries WHERE shard = $1", shard) == [{"shard_epoch": 6}]
