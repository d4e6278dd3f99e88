"""The archival worker while servers are away, read-only, emptied or full: it waits, catches up, needs no restart."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from typing import Any, cast

import asyncpg
import psutil
import pytest

from archival_worker.consume.batcher import BatchLimits
from archival_worker.errors import ArchiveUnavailable
from archival_worker.metrics import Metrics
from archival_worker.outbox.cursors import CopyOptions, CursorCopier
from archival_worker.store.queries import load_queries
from shared import names
from shared.clients.nats import ensure_stream
from shared.redis_layout.keys import cursors_key
from shared.redis_layout.outbox import EntryId
from shared.streams.puller import PullOptions
from tests.integration.archive.archive_world import PATIENCE_S, Running, World
from tests.unit.archival_worker.events import bid, created
from tests.waiting import eventually

pytestmark = pytest.mark.integration


async def publish_bids(world: World, first: int, last: int) -> None:
    await world.publish_all([(n, [bid("lot-1", n)]) for n in range(first, last + 1)])


async def assert_all_bids(world: World, last: int) -> None:
    """Every bid from 1 to the last, once, and nothing else."""
    rows = await world.query("SELECT seq FROM bids ORDER BY seq")
    assert [row["seq"] for row in rows] == list(range(1, last + 1))
    assert await world.archived("lot-1") == last
    assert await world.count("dead_letters") == 0


async def failed(running: Running, at: str) -> None:
    """Return when the worker has noticed that something is wrong, for the first time in its life."""

    async def noticed() -> bool:
        return running.metrics.failures_by[at] > 0

    await eventually(noticed, f"a failure at {at}", seconds=PATIENCE_S)


async def test_postgresql_away_for_a_while(world: World) -> None:
    running = await world.start_worker()
    await publish_bids(world, 1, 50)
    await world.all_archived()
    await world.stack.stop_process("postgres")
    await publish_bids(world, 51, 300)
    await failed(running, "archive")
    assert not await world.settled(), "nothing is acknowledged that is not stored"
    await world.stack.start_process("postgres")
    await world.all_archived()
    await assert_all_bids(world, 300)


async def test_postgresql_killed_in_the_middle_of_the_work(world: World) -> None:
    await world.start_worker()
    feeding = asyncio.create_task(publish_bids(world, 1, 1_500))
    await eventually(lambda: _has_bids(world), "the first bids", seconds=PATIENCE_S)
    world.stack.kill("postgres", signal.SIGKILL)
    await world.stack.wait_ended("postgres")
    await world.stack.start_process("postgres")
    await feeding
    await world.all_archived()
    await assert_all_bids(world, 1_500)


async def _has_bids(world: World) -> bool:
    return await world.count("bids") > 0


@pytest.mark.parametrize("ends_sessions", [True, False], ids=["sessions end", "sessions stay as they were made"])
async def test_postgresql_read_only_for_a_while(world: World, ends_sessions: bool) -> None:
    """As after a failover. Where sessions stay, the name led to the old primary a while longer: none is kept."""
    running = await world.start_worker()
    await publish_bids(world, 1, 10)
    await world.all_archived()
    await set_read_only(world, "on")
    await publish_bids(world, 11, 30)
    await failed(running, "archive")
    assert await world.count("bids") == 10
    await set_read_only(world, "off", ends_sessions=ends_sessions)
    await world.all_archived()
    await assert_all_bids(world, 30)


async def set_read_only(world: World, value: str, *, ends_sessions: bool = True) -> None:
    """New sessions are read-only or not, and there are only new ones."""
    base, _, database = world.postgres_url.rpartition("/")
    connection = await asyncpg.connect(f"{base}/bidding")
    try:
        await connection.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = {value}")
        if ends_sessions:
            sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1"
            await connection.execute(sql, database)
    finally:
        await connection.close()


SLOW = """
CREATE FUNCTION rest() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE INSERT ON bids FOR EACH ROW EXECUTE FUNCTION rest();
"""


async def test_a_server_too_slow_for_a_batch_is_given_smaller_ones(world: World) -> None:
    connection = await asyncpg.connect(world.postgres_url)
    await connection.execute(SLOW)
    await connection.close()
    await publish_bids(world, 1, 60)
    # All of them at once take 1.2 s, and so on each attempt.
    running = await world.start_worker(batch=BatchLimits(linger_s=0.2), postgres_timeout_s=0.8)
    await world.all_archived()
    await assert_all_bids(world, 60)
    assert running.metrics.failures_by["archive"] > 0


# Small batches, so that a few bids keep a worker busy: it asks for the next ten while it writes ten.
TENS = BatchLimits(rows_max=10, linger_s=2, pull_messages=10)
# Only what is given back comes again while a test waits.
PATIENT = PullOptions(names.ARCHIVER_DURABLE, ack_wait_s=2 * PATIENCE_S)


@contextlib.asynccontextmanager
async def held_up(world: World) -> AsyncIterator[None]:
    """Whoever copies bids waits, in the middle of a transaction, until this is left."""
    connection = await asyncpg.connect(world.postgres_url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE bids IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


async def in_the_middle(world: World) -> None:
    """Return when a worker is held up in the middle of a write of ten, and has the next ten already."""

    async def both() -> bool:
        return await world.unfinished() == (20, 20)

    await eventually(both, "the next messages during the write", seconds=PATIENCE_S)


async def test_a_transaction_that_ends_in_the_middle_leaves_the_next_batch_to_others(world: World) -> None:
    await publish_bids(world, 1, 40)
    async with held_up(world):
        running = await world.start_worker(source=PATIENT, batch=TENS)
        await in_the_middle(world)
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        assert await world.query(ended + "AND application_name = 'archiver' AND wait_event_type = 'Lock'")
        await failed(running, "archive")
        assert await world.unfinished() == (20, 20), "nothing is acknowledged"
    await world.all_archived()
    await assert_all_bids(world, 40)
    assert (running.metrics.given_back, running.metrics.duplicates) == (20, 0)


async def test_a_stream_that_goes_in_the_middle_of_a_write_does_not_undo_it(world: World) -> None:
    await publish_bids(world, 1, 40)
    async with held_up(world):
        running = await world.start_worker(source=PullOptions(names.ARCHIVER_DURABLE, ack_wait_s=2.0), batch=TENS)
        await in_the_middle(world)
        await world.stack.stop_process("nats")
    await eventually(lambda: _has_bids(world), "the rows of the write", seconds=PATIENCE_S)
    await failed(running, "stream")
    assert await world.count("bids") == 10, "what had not been begun waits for the stream"
    await world.stack.start_process("nats")
    await world.all_archived()
    await assert_all_bids(world, 40)


async def test_what_another_archiver_takes_meanwhile_is_stored_once(world: World) -> None:
    await publish_bids(world, 1, 40)
    source = PullOptions(names.ARCHIVER_DURABLE, ack_wait_s=1.0)
    async with held_up(world):
        slow = await world.start_worker(source=source, batch=TENS)
        await in_the_middle(world)
        # It gets the same bids, and waits for the shard that the first one has locked.
        other = await world.start_worker(source=source, batch=TENS)

        async def waits() -> bool:
            sql = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            return cast(int, await world.value(sql)) >= 2

        await eventually(waits, "both in a transaction", seconds=PATIENCE_S)
    await world.all_archived()
    await assert_all_bids(world, 40)
    assert slow.metrics.bids + other.metrics.bids == 40
    assert slow.metrics.bids > 0
    assert not slow.metrics.failures_by
    assert not other.metrics.failures_by


async def test_a_connection_that_hangs_is_given_up(world: World) -> None:
    running = await world.start_worker(postgres_timeout_s=3.0)
    await publish_bids(world, 1, 10)
    await world.all_archived()
    sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'archiver' AND datname = current_database()"
    backends = [psutil.Process(row["pid"]) for row in await world.query(sql)]
    assert backends
    for backend in backends:
        backend.suspend()
    try:
        await publish_bids(world, 11, 20)
        await failed(running, "archive")
        await world.all_archived()
    finally:
        for backend in backends:
            with contextlib.suppress(psutil.NoSuchProcess):
                backend.resume()
    await assert_all_bids(world, 20)


@pytest.mark.parametrize(("configured", "used"), [("off", "on"), ("on", "on"), ("remote_apply", "remote_apply")])
async def test_a_commit_is_on_disk_however_the_server_is_set_up(world: World, configured: str, used: str) -> None:
    connection = await asyncpg.connect(world.postgres_url)
    try:
        await connection.execute(f"SET synchronous_commit = {configured}")
        async with connection.transaction():
            await connection.execute(load_queries().make_safe)
            assert await connection.fetchval("SHOW synchronous_commit") == used
            assert await connection.fetchval("SHOW idle_in_transaction_session_timeout") == "30s"
        assert await connection.fetchval("SHOW synchronous_commit") == configured
    finally:
        await connection.close()


async def test_a_missing_schema_is_waited_for(world: World) -> None:
    await world.query("ALTER TABLE bids RENAME TO bids_away")
    running = await world.start_worker()
    await publish_bids(world, 1, 5)
    await failed(running, "archive")
    await world.query("ALTER TABLE bids_away RENAME TO bids")
    await world.all_archived()
    await assert_all_bids(world, 5)


async def test_nats_away_for_a_while(world: World) -> None:
    running = await world.start_worker()
    await publish_bids(world, 1, 50)
    await world.all_archived()
    await world.stack.stop_process("nats")
    await failed(running, "stream")
    await world.stack.start_process("nats")
    await eventually(lambda: _connected(world), "the test's own connection", seconds=PATIENCE_S)
    await publish_bids(world, 51, 100)
    await world.all_archived()
    await assert_all_bids(world, 100)


async def _connected(world: World) -> bool:
    return world.client.is_connected


async def test_nats_that_hangs_is_noticed_by_its_silence(world: World) -> None:
    running = await world.start_worker()
    await publish_bids(world, 1, 5)
    await world.all_archived()
    world.stack.kill("nats", signal.SIGSTOP)
    try:
        await failed(running, "stream")
    finally:
        world.stack.kill("nats", signal.SIGCONT)
    await publish_bids(world, 6, 10)
    await world.all_archived()
    await assert_all_bids(world, 10)


async def test_a_worker_that_starts_before_nats(world: World) -> None:
    await publish_bids(world, 1, 5)
    await world.stack.stop_process("nats")
    running = await world.start_worker()
    await failed(running, "stream")
    await world.stack.start_process("nats")
    await eventually(lambda: _connected(world), "the test's own connection", seconds=PATIENCE_S)
    await world.all_archived()
    await assert_all_bids(world, 5)


async def test_a_deleted_consumer_is_made_again(world: World) -> None:
    await world.start_worker()
    await publish_bids(world, 1, 20)
    await world.all_archived()
    await world.jetstream.delete_consumer(names.STREAM, names.ARCHIVER_DURABLE)
    await publish_bids(world, 21, 40)
    await world.all_archived()
    await assert_all_bids(world, 40)


async def test_a_deleted_stream_is_made_again_and_takes_what_is_published_again(world: World) -> None:
    running = await world.start_worker()
    await publish_bids(world, 1, 20)
    await world.all_archived()
    await world.jetstream.delete_stream(names.STREAM)
    await failed(running, "stream")
    await ensure_stream(world.jetstream)
    # The relay publishes again from the archived cursor; here from further back than that.
    await publish_bids(world, 11, 40)
    await world.all_archived()
    await assert_all_bids(world, 40)
    assert running.metrics.duplicates == 10


async def archived_in_redis(world: World, n: int) -> bool:
    return (await world.redis_cursors("lot-1")).get(b"archived") == str(n).encode()


async def test_redis_away_for_a_while(world: World) -> None:
    await world.fill_outbox("lot-1", 30)
    running = await world.start_worker()
    await publish_bids(world, 1, 10)
    await eventually(lambda: archived_in_redis(world, 10), "the first cursor in Redis", seconds=PATIENCE_S)
    await world.stack.stop_process("redis")
    await publish_bids(world, 11, 20)
    await world.all_archived()
    assert await world.archived("lot-1") == 20, "archiving does not need Redis"
    await failed(running, "redis")
    assert running.cursors.pending == 1
    await world.stack.start_process("redis")
    await eventually(lambda: archived_in_redis(world, 20), "the remembered cursor in Redis", seconds=PATIENCE_S)
    assert await world.outbox_ids("lot-1") == [f"{n}-0".encode() for n in range(21, 31)]


async def test_positions_that_are_known_get_to_redis_while_postgresql_is_away(world: World) -> None:
    await world.fill_outbox("lot-1", 5)

    async def away() -> dict[str, EntryId]:
        raise ArchiveUnavailable("away")

    copier = CursorCopier(world.redis, away, Metrics(), CopyOptions(interval_s=0.01))
    copier.offer({names.shard_of("lot-1"): EntryId(1, 3)})
    running = asyncio.create_task(copier.run())
    try:
        await eventually(lambda: archived_in_redis(world, 3), "the cursor in Redis", seconds=PATIENCE_S)
        assert await world.outbox_ids("lot-1") == [b"4-0", b"5-0"]
    finally:
        copier.request_stop()
        await running


async def test_a_start_copies_what_another_worker_could_not(world: World) -> None:
    await world.fill_outbox("lot-1", 5)
    running = await world.start_worker(copy=CopyOptions(interval_s=3_600))
    await publish_bids(world, 1, 5)
    await world.all_archived()
    await running.kill()
    assert await archived_in_redis(world, 0)
    await world.start_worker()
    await eventually(lambda: archived_in_redis(world, 5), "the cursor in Redis", seconds=PATIENCE_S)
    assert await world.outbox_ids("lot-1") == []


async def test_a_cursor_that_redis_lost_is_copied_again(world: World) -> None:
    await world.fill_outbox("lot-1", 5)
    await world.start_worker(copy=CopyOptions(interval_s=0.01, resync_s=0.2))
    await publish_bids(world, 1, 5)
    await eventually(lambda: archived_in_redis(world, 5), "the cursor in Redis", seconds=PATIENCE_S)
    await world.redis.script_flush()
    # A failover to a replica that had not heard of it.
    cursors = cursors_key(names.shard_of("lot-1"))
    # Read in the same step: the worker copies the cursor again at any moment after it.
    step: Any = world.redis.pipeline(transaction=True)
    step.hset(cursors, mapping={"published": 3, "archived": 0})
    step.hget(cursors, "archived")
    assert (await step.execute())[1] == b"0"
    await eventually(
        lambda: archived_in_redis(world, 3),
        "the cursor in Redis, as far as its relay has published again",
        seconds=PATIENCE_S,
    )
    await cast(Any, world.redis).hset(cursors, "published", 5)
    await eventually(lambda: archived_in_redis(world, 5), "the cursor in Redis again", seconds=PATIENCE_S)


async def test_a_redis_that_is_an_older_copy_raises_an_alarm_and_its_cursor_stays(world: World) -> None:
    await world.fill_outbox("lot-1", 5)
    running = await world.start_worker(copy=CopyOptions(interval_s=0.01, resync_s=0.1))
    await publish_bids(world, 1, 5)
    await eventually(lambda: archived_in_redis(world, 5), "the cursor in Redis", seconds=PATIENCE_S)
    await world.redis.flushall()
    await world.fill_outbox("lot-1", 3)

    async def is_alarmed() -> bool:
        return "has given out 3 entries" in running.cursors.alarms.get(names.shard_of("lot-1"), "")

    await eventually(is_alarmed, "the alarm", seconds=PATIENCE_S)
    assert await archived_in_redis(world, 0)
    assert len(await world.outbox_ids("lot-1")) == 3


async def test_a_redis_that_is_full_gets_its_outbox_trimmed(world: World) -> None:
    await world.fill_outbox("lot-1", 5)
    await world.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(Exception, match="maxmemory"):
            await world.redis.set("more", "x")
        await world.start_worker()
        await publish_bids(world, 1, 5)
        await eventually(lambda: archived_in_redis(world, 5), "the cursor in Redis", seconds=PATIENCE_S)
        assert await world.outbox_ids("lot-1") == []
    finally:
        await world.redis.config_set("maxmemory", 0)


async def test_sides_that_lost_data_raise_an_alarm(world: World) -> None:
    shard = names.shard_of("lot-1")
    await world.fill_outbox("lot-1", 5)
    running = await world.start_worker(copy=CopyOptions(interval_s=0.01, resync_s=0.1))
    await world.publish(1, created("lot-1"))
    await eventually(lambda: archived_in_redis(world, 1), "the cursor in Redis", seconds=PATIENCE_S)
    assert running.cursors.alarms == {}

    async def alarm(text: str) -> bool:
        return text in running.cursors.alarms.get(shard, "")

    await cast(Any, world.redis).hset(cursors_key(shard), "archived", 4)
    await eventually(
        lambda: alarm("PostgreSQL lost data"), "an alarm for the archive that fell back", seconds=PATIENCE_S
    )
    await world.redis.flushall()
    await eventually(lambda: alarm("Redis lost data"), "an alarm for the Redis that is empty", seconds=PATIENCE_S)
    await world.fill_outbox("lot-1", 5)

    async def quiet() -> bool:
        return running.cursors.alarms == {}

    await eventually(quiet, "the end of the alarm", seconds=PATIENCE_S)


async def test_a_shard_whose_cursors_are_damaged_silences_no_other_one(world: World) -> None:
    """Its key in Redis is no hash any more: the others are copied, and their alarms ring."""
    damaged, shard = names.shard_of("lot-2"), names.shard_of("lot-1")
    assert damaged != shard
    await world.fill_outbox("lot-1", 5)
    running = await world.start_worker(copy=CopyOptions(interval_s=0.01, resync_s=0.1))
    await world.publish(1, created("lot-2"))
    await world.publish_all([(n, [bid("lot-1", n)]) for n in range(1, 4)])
    await eventually(lambda: archived_in_redis(world, 3), "the cursor in Redis", seconds=PATIENCE_S)
    await world.redis.delete(cursors_key(damaged))
    await cast(Any, world.redis).lpush(cursors_key(damaged), "no hash")
    await publish_bids(world, 4, 5)
    await eventually(lambda: archived_in_redis(world, 5), "the cursor of the sound shard", seconds=PATIENCE_S)

    async def alarms(**texts: str) -> bool:
        found = running.cursors.alarms
        return found.keys() == texts.keys() and all(text in found[name] for name, text in texts.items())

    await eventually(lambda: alarms(**{damaged: "WRONGTYPE"}), "the alarm of the damaged shard", seconds=PATIENCE_S)
    await world.redis.delete(cursors_key(shard))
    both = {damaged: "WRONGTYPE", shard: "Redis lost data"}
    await eventually(lambda: alarms(**both), "the alarms of both", seconds=PATIENCE_S)
