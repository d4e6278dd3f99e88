"""The archival worker against real servers: every event once, whatever order, repetition or crash it came through."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import signal
from typing import Any, cast

import asyncpg
import httpx2 as httpx
import pytest

from api_gateway.engine.bids.acknowledge import LogAcknowledger
from archival_worker.consume.batcher import BatchLimits
from archival_worker.consume.retention import Retention, RetentionOptions
from archival_worker.metrics import Metrics
from archival_worker.outbox.cursors import CopyOptions, CursorCopier
from infrastructure.local.stack import Stack
from shared import names
from shared.clients.nats import StreamLimits
from shared.clients.redis import open_redis
from shared.domain.errors import OutcomeUnknown
from shared.messages import Event
from shared.redis_layout.cursors import Lineage
from shared.redis_layout.keys import cursors_key
from shared.redis_layout.outbox import EntryId
from shared.streams.puller import PullOptions
from tests.integration.archive.archive_world import PATIENCE_S, World, new_world
from tests.stack import StackFactory
from tests.unit.archival_worker.events import bid, closed, created, delivery, message_id, voided
from tests.waiting import eventually

pytestmark = pytest.mark.integration


def auction(item_id: str, bids: int) -> list[Event]:
    """A whole auction: created, its bids, closed."""
    return [created(item_id), *(bid(item_id, seq) for seq in range(1, bids + 1)), closed(item_id, bids + 1)]


ITEMS = ("lot-1", "lot-2", "lot-3")


def entries_of(auctions: list[list[Event]]) -> list[tuple[int, list[Event]]]:
    """Outbox entries of one to three events, numbered per shard."""
    counters: dict[str, int] = {}
    entries = []
    for events in auctions:
        shard = names.shard_of(events[0].item_id)
        at = 0
        while at < len(events):
            size = 1 + at % 3
            counters[shard] = counters.get(shard, 0) + 1
            entries.append((counters[shard], events[at : at + size]))
            at += size
    return entries


async def assert_three_whole_auctions(world: World, bids: int) -> None:
    assert await world.count("bids") == 3 * bids
    assert await world.count("events") == 6
    assert await world.count("dead_letters") == 0
    for item in await world.query("SELECT * FROM items ORDER BY item_id"):
        assert (item["epoch"], item["seq"], item["status"]) == (1, bids + 1, "sold")
        assert (item["current_bid"], item["bid_count"], item["highest_bidder_id"]) == (100 * bids, bids, "ada")
    gaps = await world.value("SELECT count(*) FROM shard_cursors WHERE ahead <> '{}'")
    assert gaps == 0


async def test_any_order_with_duplicates_gives_each_row_once(world: World) -> None:
    entries = entries_of([auction(item, 40) for item in ITEMS])
    shuffled = entries * 2
    random.Random(7).shuffle(shuffled)
    for n, events in shuffled:
        await world.publish(n, *events, distinct=False)
    await world.start_worker(batch=BatchLimits(rows_max=20, linger_s=0.005, pull_messages=30))
    await world.all_archived()
    await assert_three_whole_auctions(world, 40)
    assert world.workers[0].metrics.duplicates == 3 * 42


async def test_several_workers_share_the_work(world: World) -> None:
    for _ in range(3):
        await world.start_worker(batch=BatchLimits(rows_max=10, linger_s=0.002, pull_messages=10))
    entries = entries_of([auction(item, 200) for item in ITEMS])
    for n, events in entries:
        # Twice: the same rows are often in the hands of two workers at the same time.
        await world.publish(n, *events, distinct=False)
        await world.publish(n, *events, distinct=False)
    await world.all_archived()
    await assert_three_whole_auctions(world, 200)
    assert sum(running.metrics.messages for running in world.workers) == 2 * len(entries)
    assert all(not running.metrics.failures_by for running in world.workers), "no deadlock, no clash of locks"


async def test_a_worker_killed_between_commit_and_acknowledgement_leaves_no_duplicate(world: World) -> None:
    committed = asyncio.Event()

    async def hang() -> None:
        committed.set()
        await asyncio.Event().wait()

    await world.fill_outbox("lot-1", 4)
    first = await world.start_worker(source=PullOptions(names.ARCHIVER_DURABLE, ack_wait_s=1.0), after_commit=hang)
    await world.publish_all([(1, [created("lot-1")]), (2, [bid("lot-1", 1)]), (3, [bid("lot-1", 2)])])
    await asyncio.wait_for(committed.wait(), PATIENCE_S)
    await first.kill()
    assert await world.archived("lot-1") > 0
    assert (await world.redis_cursors("lot-1"))[b"archived"] == b"0", "it died before it could tell Redis"
    assert not await world.settled()

    second = await world.start_worker(source=PullOptions(names.ARCHIVER_DURABLE, ack_wait_s=1.0))
    await world.publish(4, bid("lot-1", 3))
    await world.all_archived()
    assert await world.count("bids") == 3
    assert await world.archived("lot-1") == 4
    assert second.metrics.duplicates >= 1

    async def told() -> bool:
        return (await world.redis_cursors("lot-1"))[b"archived"] == b"4"

    await eventually(told, "the cursor in Redis", seconds=PATIENCE_S)


async def test_one_poison_in_a_batch_of_500(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.fill_outbox("lot-1", 500)
    poison = b'{"v":1,"events":['
    for n in range(1, 501):
        if n == 250:
            await world.publish_raw("lot-1", poison, message_id(250, "lot-1"))
        else:
            await world.publish(n, bid("lot-1", n))
    running = await world.start_worker()
    await world.all_archived()
    assert await world.count("bids") == 499
    (letter,) = await world.query("SELECT * FROM dead_letters")
    assert (letter["reason"], letter["n"], letter["stream_seq"]) == ("poison", 250, 250)
    assert letter["data"] == poison
    assert "undecodable" in letter["detail"]
    assert await world.archived("lot-1") == 500, "a poison does not hold the watermark"
    assert running.metrics.dead_letters_by == {"poison": 1}
    assert [record for record in caplog.records if record.levelno == logging.ERROR and "poison" in record.message]


@pytest.mark.parametrize("refused", [bid("lot-1", 60, user_id="a\0b"), bid("lot-1", 60, amount=2**70)])
async def test_a_message_that_only_postgresql_refuses_is_found_by_halving(world: World, refused: Event) -> None:
    for n in range(1, 101):
        await world.publish(n, refused if n == 60 else bid("lot-1", n))
    await world.start_worker()
    await world.all_archived()
    assert await world.count("bids") == 99
    (letter,) = await world.query("SELECT reason, n FROM dead_letters")
    assert letter == {"reason": "poison", "n": 60}
    assert await world.archived("lot-1") == 100


async def test_a_message_of_nobody_is_put_aside_and_counts_nowhere(world: World) -> None:
    await world.publish_raw("lot-1", b"hello", None)
    await world.start_worker()
    await world.all_archived()
    assert await world.count("dead_letters") == 1
    assert await world.archived("lot-1") == 0


async def test_a_clash_is_loud_and_the_first_stays(world: World, caplog: pytest.LogCaptureFixture) -> None:
    running = await world.start_worker()
    await world.publish_all(
        [(1, [created("lot-1")]), (2, [bid("lot-1", 1)]), (3, [bid("lot-1", 2)]), (4, [closed("lot-1", 3)])]
    )
    await world.all_archived()
    # Redis lost its memory and went on: same places, other content, and a later bid that nothing contradicts.
    other = [
        (5, bid("lot-1", 2, bid_id="other", user_id="eve", amount=999_999)),
        (6, bid("lot-1", 3, bid_id="late")),
        (7, bid("lot-1", 9, bid_id="bid-1-1")),
        (8, created("lot-1", name="Another clock")),
        (9, bid("lot-1", 4)),
    ]
    for n, event in other:
        await world.publish(n, event)
        await world.publish(n, event, distinct=False)
    await world.all_archived()
    letters = await world.query("SELECT reason, n, convert_from(data, 'UTF8') AS data FROM dead_letters ORDER BY n")
    assert [(letter["reason"], letter["n"]) for letter in letters] == [("clash", n) for n in (5, 6, 7, 8)]
    assert json.loads(letters[0]["data"])["bid_id"] == "other"
    bids = await world.query("SELECT seq, bid_id FROM bids ORDER BY seq")
    assert bids == [{"seq": seq, "bid_id": f"bid-1-{seq}"} for seq in (1, 2, 4)]
    (item,) = await world.query("SELECT name, seq, current_bid FROM items")
    assert item == {"name": "A clock", "seq": 4, "current_bid": 400}
    assert running.metrics.dead_letters_by == {"clash": 4}
    assert sum("clash" in record.message for record in caplog.records if record.levelno == logging.ERROR) == 4
    assert await world.archived("lot-1") == 9


async def test_the_watermark_stops_at_a_gap_and_the_outbox_with_it(world: World) -> None:
    await world.fill_outbox("lot-1", 7)
    await world.start_worker()
    await world.publish_all([(n, [bid("lot-1", n)]) for n in (1, 2, 3, 5, 6)])
    await world.all_archived()

    async def told_up_to(n: int) -> bool:
        return int((await world.redis_cursors("lot-1"))[b"archived"]) == n

    await eventually(lambda: told_up_to(3), "archived up to the gap", seconds=PATIENCE_S)
    assert await world.outbox_ids("lot-1") == [b"4-0", b"5-0", b"6-0", b"7-0"]
    await world.publish(4, bid("lot-1", 4))
    await eventually(lambda: told_up_to(6), "archived past the closed gap", seconds=PATIENCE_S)
    assert await world.outbox_ids("lot-1") == [b"7-0"]


async def test_a_number_that_was_archived_of_a_lost_primary_publishes_nothing_of_the_next_one(world: World) -> None:
    """What the relay of a primary had sent on its way arrives after the replica was promoted and compared. The number
    is another bid's by then, which nobody has published yet, because the lease is the dead relay's."""
    await world.fill_outbox("lot-1", 2, published=1)
    shard, run = names.shard_of("lot-1"), "the promoted one"
    await cast(Any, world.redis).hset(cursors_key(shard), "run", run)
    log = LogAcknowledger(world.redis, timeout_s=1.0)
    looking = asyncio.create_task(log.run())
    acknowledged = asyncio.create_task(log.confirm(shard, Lineage(run, 1), 2))
    await world.start_worker()
    await world.publish(1, created("lot-1"))
    await world.publish(2, bid("lot-1", 1, user_id="whoever bid at the lost primary"))
    await world.all_archived()
    assert await world.archived("lot-1") == 2

    async def told_up_to(n: int) -> bool:
        return int((await world.redis_cursors("lot-1"))[b"archived"]) == n

    await eventually(lambda: told_up_to(1), "archived up to what is published", seconds=PATIENCE_S)
    with pytest.raises(OutcomeUnknown):
        await acknowledged
    assert await world.outbox_ids("lot-1") == [b"2-0"]
    assert (await world.redis_cursors("lot-1"))[b"published"] == b"1"

    # Its relay has it acknowledged: it is in the stream now, under an id of its own.
    await cast(Any, world.redis).hset(cursors_key(shard), "published", "2")
    await eventually(lambda: told_up_to(2), "the rest", seconds=PATIENCE_S)
    assert await world.outbox_ids("lot-1") == []
    looking.cancel()


async def test_an_older_position_does_not_replace_a_newer_one_that_waits(world: World) -> None:
    """Two batches end in the order in which their transactions do, and that is not the order of the numbers."""
    await world.fill_outbox("lot-1", 9)
    shard = names.shard_of("lot-1")

    async def nothing_archived() -> dict[str, EntryId]:
        return {}

    redis = open_redis(world.stack.urls.redis_url)
    copier = CursorCopier(redis, nothing_archived, Metrics(), CopyOptions(interval_s=0.01))
    for position in (EntryId(1, 5), EntryId(1, 3), EntryId(1, 0)):
        copier.offer({shard: position})
    assert copier.pending == 1
    copying = asyncio.create_task(copier.run())

    async def is_copied() -> bool:
        return copier.pending == 0 and (await world.redis_cursors("lot-1"))[b"archived"] != b"0"

    await eventually(is_copied, "the position in Redis", seconds=PATIENCE_S)
    assert (await world.redis_cursors("lot-1"))[b"archived"] == b"5"
    assert await world.outbox_ids("lot-1") == [b"6-0", b"7-0", b"8-0", b"9-0"]
    # And a higher number of an older epoch is an older position.
    copier.offer({shard: EntryId(2, 1)})
    copier.offer({shard: EntryId(1, 8)})
    copier.request_stop()
    await asyncio.wait_for(copying, PATIENCE_S)
    assert (await world.redis_cursors("lot-1"))[b"archived"] == b"5"
    await redis.aclose()


async def test_events_of_an_older_shard_epoch_are_stored_and_do_not_move_the_cursor(world: World) -> None:
    await world.fill_outbox("lot-1", 2, epoch=2)
    await world.start_worker()
    await world.publish(1, bid("lot-1", 1), shard_epoch=1)
    await world.publish(2, bid("lot-1", 2), shard_epoch=1)
    await world.all_archived()
    assert await world.outbox_ids("lot-1") == [b"1-0", b"2-0"]
    await world.publish(1, bid("lot-1", 1, epoch=2), shard_epoch=2)
    await world.publish(3, bid("lot-1", 3), shard_epoch=1)

    async def trimmed() -> bool:
        return await world.outbox_ids("lot-1") == [b"2-0"]

    await eventually(trimmed, "the new epoch's first entry archived", seconds=PATIENCE_S)
    assert await world.count("bids") == 4
    (cursor,) = await world.query("SELECT shard_epoch, archived_n FROM shard_cursors WHERE archived_n > 0")
    assert cursor == {"shard_epoch": 2, "archived_n": 1}


async def test_an_item_is_what_its_newest_epoch_says_however_far_the_one_before_had_come(world: World) -> None:
    """A stream that is read again into an older copy of PostgreSQL has both, and the copy knows of no rebuilding."""
    await world.start_worker()
    await world.publish(1, *(bid("lot-1", seq) for seq in range(1, 6)), shard_epoch=1)
    await world.all_archived()
    await world.publish(1, bid("lot-1", 3, epoch=2, user_id="bob"), shard_epoch=2)
    await world.all_archived()
    await world.publish(2, bid("lot-1", 6), shard_epoch=1)
    await world.all_archived()
    (item,) = await world.query("SELECT epoch, seq, current_bid, highest_bidder_id FROM items")
    assert item == {"epoch": 2, "seq": 3, "current_bid": 300, "highest_bidder_id": "bob"}


async def test_terms_may_come_after_the_first_bids(world: World) -> None:
    running = await world.start_worker()
    await world.publish(2, bid("lot-1", 1))
    await world.all_archived()
    (item,) = await world.query("SELECT name, created_at, current_bid FROM items")
    assert item == {"name": "", "created_at": None, "current_bid": 100}
    await world.publish(1, created("lot-1", end_us=1_760_000_000_000_001))
    await world.all_archived()
    (item,) = await world.query("SELECT *, extract(epoch FROM original_end_at)::text AS end_text FROM items")
    assert (item["name"], item["seller_id"], item["reserve_price"]) == ("A clock", "sam", 5_000)
    assert (item["increment_kind"], item["increment_steps"]) == ("ladder", "1000:5,5000:10")
    assert item["end_text"] == "1760000000.000001", "instants are exact"
    assert (item["seq"], item["current_bid"]) == (1, 100), "an older state does not replace a newer one"
    assert running.metrics.dead_letters_by == {}


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
async def test_a_void_reaches_its_bid_in_either_order(world: World, order: tuple[int, int]) -> None:
    running = await world.start_worker()
    # The bid, and the automatic bid that answered it.
    placed = [bid("lot-1", 1), bid("lot-1", 2, bid_id="bid-1-1/proxy", user_id="bob")]
    entries = {1: placed, 2: [voided("lot-1", 3, voids=1)]}
    for n in order:
        await world.publish(n, *entries[n])
        await world.all_archived()
    await world.publish(3, bid("lot-1", 4))
    await world.all_archived()
    rows = await world.query("SELECT seq, status FROM bids ORDER BY seq")
    assert [(row["seq"], row["status"]) for row in rows] == [(1, "voided"), (2, "voided"), (4, "valid")]
    assert running.metrics.events == 1


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
async def test_a_void_reaches_a_bid_of_a_former_epoch(world: World, order: tuple[int, int]) -> None:
    """The item was rebuilt in between. Its bids have the epoch in which they were placed; another archiver may store
    them later, where PostgreSQL has forgotten the rebuilding and the stream is read again."""
    await world.start_worker()
    placed = [bid("lot-1", 1), bid("lot-1", 2, bid_id="bid-1-1/proxy", user_id="bob")]
    first = {1: placed, 2: [voided("lot-1", 3, voids=1, epoch=2)]}
    for epoch in order:
        await world.publish(1, *first[epoch], shard_epoch=epoch)
        await world.all_archived()
    await world.publish(2, bid("lot-1", 4, epoch=2), shard_epoch=2)
    await world.all_archived()
    rows = await world.query("SELECT epoch, seq, status FROM bids ORDER BY epoch, seq")
    assert [tuple(row.values()) for row in rows] == [(1, 1, "voided"), (1, 2, "voided"), (2, 4, "valid")]


async def test_a_stop_gives_back_what_it_has_not_written(world: World) -> None:
    # A batch that never fills and never comes due: at the stop everything received is unwritten.
    source = PullOptions(names.ARCHIVER_DURABLE, ack_wait_s=2 * PATIENCE_S)
    batch = BatchLimits(rows_max=5_000, linger_s=3_600, pull_messages=100)
    running = await world.start_worker(source=source, batch=batch)
    await world.publish_all([(n, [bid("lot-1", n)]) for n in range(1, 21)])

    async def taken() -> bool:
        return await world.unfinished() == (0, 20)

    await eventually(taken, "all messages in the worker's hands", seconds=PATIENCE_S)
    await running.stop()
    assert await world.count("bids") == 0
    assert running.metrics.given_back == 20
    # The ack wait is twice as long as this waits: only what was given back arrives sooner.
    await world.start_worker(source=source)
    await world.all_archived()
    assert await world.count("bids") == 20


async def test_a_stop_right_after_the_start(world: World) -> None:
    running = await world.start_worker()
    await asyncio.wait_for(running.stop(), PATIENCE_S)


async def test_a_stop_during_a_write_finishes_and_acknowledges_the_batch(world: World) -> None:
    committed = asyncio.Event()

    async def stop() -> None:
        world.workers[0].worker.request_stop()
        committed.set()

    await world.fill_outbox("lot-1", 20)
    await world.publish_all([(n, [bid("lot-1", n)]) for n in range(1, 21)])
    running = await world.start_worker(after_commit=stop)
    await asyncio.wait_for(committed.wait(), PATIENCE_S)
    await running.stop()
    await world.all_archived()
    assert await world.count("bids") == 20
    assert await world.outbox_ids("lot-1") == [], "its cursor is copied, too"


async def test_a_stop_during_a_write_gives_back_what_was_asked_for_beside_it(world: World) -> None:
    async def stop() -> None:
        async def taken() -> bool:
            return await world.unfinished() == (20, 20)

        await eventually(taken, "the next messages during the write", seconds=PATIENCE_S)
        world.workers[0].worker.request_stop()

    source = PullOptions(names.ARCHIVER_DURABLE, ack_wait_s=2 * PATIENCE_S)
    batch = BatchLimits(rows_max=10, linger_s=2, pull_messages=10)
    await world.publish_all([(n, [bid("lot-1", n)]) for n in range(1, 41)])
    running = await world.start_worker(source=source, batch=batch, after_commit=stop)
    await asyncio.wait({running.tasks[0]}, timeout=PATIENCE_S)
    assert await world.count("bids") == 10
    assert (running.metrics.acks, running.metrics.given_back) == (10, 10)
    # The ack wait is twice as long as this waits.
    await world.start_worker(source=source, batch=batch)
    await world.all_archived()
    assert await world.count("bids") == 40


async def test_a_full_stream_is_purged_of_archived_messages_only(archive_servers: Stack) -> None:
    limits = StreamLimits(bytes_max=400_000)
    async with new_world(archive_servers, stream=limits) as world:
        running = await world.start_worker()
        await world.publish_all([(n, [bid("lot-1", n)]) for n in range(1, 501)])
        await world.all_archived()
        await running.stop()
        fat = {"lot-1": bid("lot-1", 501, user_id="u" * 64)}["lot-1"]
        await world.publish(501, fat)
        state = (await world.jetstream.stream_info(names.STREAM)).state
        retention = Retention(
            running.link.connected, running.metrics, RetentionOptions(full_ratio=0.3, margin_messages=50)
        )
        assert state.bytes > 0.3 * 400_000
        assert await retention.once() == 451
        after = (await world.jetstream.stream_info(names.STREAM)).state
        assert (after.first_seq, after.last_seq, after.messages) == (452, 501, 50)
        assert await retention.once() == 0
        await running.link.close()


async def shows(http: httpx.AsyncClient, status: int, **expected: Any) -> dict[str, Any]:
    """What /ready says, once it says this; a server that is slow for a moment is not told as `ok`."""

    async def shown() -> dict[str, Any] | None:
        answer = await http.get("/ready")
        body = cast("dict[str, Any]", answer.json())
        return body if (answer.status_code, {**body, **expected}) == (status, body) else None

    return await eventually(shown, f"{status} and {expected} from /ready", seconds=PATIENCE_S)


async def test_the_service_reports_itself_and_ends_on_sigterm(start_stack: StackFactory) -> None:
    stack = await start_stack(services=("archival_worker",))
    async with httpx.AsyncClient(base_url=stack.urls.archiver_url, timeout=30) as http:
        health = (await http.get("/health")).json()
        assert (health["status"], health["service"]) == ("healthy", "archival-worker")
        assert (await http.get("/openapi.json")).status_code == 404
        servers = {"redis": "ok", "nats": "ok", "postgres": "ok"}
        await shows(http, 200, **servers, lag=0, dead_letters=0, clashes=0, alarms={})
        assert "archiver_lag_messages 0\n" in (await http.get("/metrics")).text
        connection = await asyncpg.connect(stack.urls.postgres_url)
        letter = "INSERT INTO dead_letters (reason, detail, subject, stream_seq, data) VALUES ($1, '', '', 1, '')"
        await connection.execute(letter, "poison")
        await shows(http, 200, dead_letters=1, clashes=0, alarms={})
        await connection.execute(letter, "clash")
        await connection.close()
        body = await shows(http, 200, dead_letters=2, clashes=1)
        assert list(body["alarms"]) == ["clashes"]
        assert "archiver_clashes_stored 1\n" in (await http.get("/metrics")).text
        await stack.stop_process("redis")
        broken = await shows(http, 503, postgres="ok")
        assert broken["redis"] != "ok"
    process = stack.processes["archival_worker"]
    process.wanted = False
    stack.kill("archival_worker", signal.SIGTERM)
    assert await stack.wait_ended("archival_worker", 30)
    assert "stopped" in process.log_tail()


async def test_storing_the_same_again_changes_nothing(world: World) -> None:
    running = await world.start_worker()
    batch = [
        delivery(1, created("lot-1")),
        delivery(2, bid("lot-1", 1), bid("lot-1", 2)),
        delivery(3, closed("lot-1", 3)),
    ]
    first = await running.archive.store(batch)
    before = await world.query("SELECT * FROM items")
    again = await running.archive.store(batch)
    assert (first.bids, first.events, first.duplicates) == (2, 2, 0)
    assert (again.bids, again.events, again.duplicates) == (0, 0, 4)
    assert again.positions == first.positions
    assert await world.query("SELECT * FROM items") == before
