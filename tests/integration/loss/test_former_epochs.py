"""What comes late, of an epoch that is over: no row, no frame and no link of a chain moves, and somebody is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
import pytest
import pytest_asyncio

from archival_worker.consume.deliveries import read_delivery
from archival_worker.store.archive import Archive
from archival_worker.store.dead_letters import DeadLetters
from infrastructure.local.services import ALL_SERVICES
from infrastructure.local.stack import Stack
from shared import names
from shared.clients.postgres import open_postgres
from shared.messages import Event, encode_event, frame_batch
from tests.acceptance.crowd import Viewer
from tests.acceptance.test_one_bid_end_to_end import feed_url
from tests.integration.chain.chain_world import World, chain_world
from tests.integration.loss.recover_world import RENEWED, House, house_of
from tests.stack import StackFactory
from tests.unit.archival_worker.events import bid, created, delivery, message_id, message_of, sealed
from tests.waiting import eventually

pytestmark = pytest.mark.integration

LOT = "lot-1"
SHARD = names.shard_of(LOT)
FORMER = "former_epoch"


@pytest_asyncio.fixture
async def world(servers: Stack) -> AsyncIterator[World]:
    async with chain_world(servers) as world:
        yield world


async def begin_recovery(world: World) -> int:
    """Begin a recovery as a run does, before it reads anything of the shard."""
    async with world.archive.transaction() as connection:
        return await world.archive.begin_recovery(connection, SHARD)


async def cursor(world: World) -> tuple[Any, ...]:
    row = await world.pool.fetchrow("SELECT shard_epoch, archived_n, ahead FROM shard_cursors WHERE shard = $1", SHARD)
    return tuple(row or ())


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Archive]:
    """The archive over new connections."""
    pool = await open_postgres(url, name="test", timeout_s=10)
    try:
        yield Archive(pool)
    finally:
        pool.terminate()


async def letters(world: World) -> list[tuple[Any, ...]]:
    rows = await world.pool.fetch("SELECT reason, shard, shard_epoch, n FROM dead_letters ORDER BY id")
    return [tuple(row) for row in rows]


async def rows_of(world: World) -> list[list[Any]]:
    tables = ("items", "bids", "events", "sealed", "shard_cursors", "chains", "event_hashes")
    return [await world.pool.fetch(f"SELECT * FROM {table} ORDER BY 1, 2, 3") for table in tables]


async def test_an_event_of_a_former_epoch_is_quarantined_and_nothing_moves(world: World) -> None:
    await world.archive.store([delivery(1, created(LOT)), delivery(2, bid(LOT, 1)), delivery(4, bid(LOT, 3))])
    world.chainer.offer([LOT])
    await world.chain()
    assert await begin_recovery(world) == RENEWED
    before = await rows_of(world)
    for late in ([delivery(3, bid(LOT, 2))], [delivery(5, bid(LOT, 4))]):
        stored = await world.archive.store(late)
        assert (stored.bids, stored.events, stored.duplicates, stored.clashes) == (0, 0, 0, 0)
        assert [reason for reason, _ in stored.dead_letters] == [FORMER]
        assert stored.positions[SHARD] == (1, 2), "neither the gap is filled, nor what is behind it is reached"
    assert await rows_of(world) == before
    assert await letters(world) == [(FORMER, SHARD, 1, 3), (FORMER, SHARD, 1, 5)]
    told = await world.archive.dead_letters()
    assert (told.all, told.clashes, told.former) == (2, 0, 2)


async def test_what_is_known_of_a_former_epoch_is_a_duplicate(world: World) -> None:
    facts = message_of(LOT, 3, [], [sealed(LOT, 1, 500)])
    known = [delivery(1, created(LOT)), delivery(2, bid(LOT, 1))]
    fact = read_delivery(names.subject_of(LOT), facts, "", message_id(3, LOT))
    await world.archive.store([*known, fact])
    await begin_recovery(world)
    before = await rows_of(world)
    stored = await world.archive.store([*known, fact])
    assert (stored.duplicates, stored.dead_letters) == (3, [])
    other = read_delivery(names.subject_of(LOT), message_of(LOT, 4, [], [sealed(LOT, 1, 900)]), "", message_id(4, LOT))
    stored = await world.archive.store([other, delivery(5, created(LOT, epoch=2, seq=1), shard_epoch=2)])
    assert [reason for reason, _ in stored.dead_letters] == [FORMER], "a maximum is no less of a former epoch"
    assert stored.events == 1, "the new epoch goes on beside it"
    assert (await cursor(world))[0] == 2
    assert (await rows_of(world))[3] == before[3]


async def test_the_chain_goes_on_past_what_was_quarantined(world: World) -> None:
    await world.store(created(LOT), bid(LOT, 1))
    await begin_recovery(world)
    await world.archive.store([delivery(3, bid(LOT, 2, amount=700))])
    renewed: list[Event] = [bid(LOT, 2, epoch=2), bid(LOT, 3, epoch=2)]
    await world.archive.store([delivery(n, event, shard_epoch=2) for n, event in enumerate(renewed, start=1)])
    # A last one, after the new epoch has begun.
    await world.archive.store([delivery(4, bid(LOT, 3, amount=800))])
    world.chainer.offer([LOT])
    await world.chain()
    chain = await world.pool.fetchrow("SELECT epoch, seq FROM chains WHERE item_id = $1", LOT)
    assert tuple(chain or ()) == (2, 3)
    assert world.chainer.alarms == {}
    assert (await world.audit(LOT)).is_sound
    assert [reason for reason, *_ in await letters(world)] == [FORMER, FORMER]


async def waits(task: asyncio.Task[Any]) -> bool:
    await asyncio.sleep(0.3)
    return not task.done()


async def test_whoever_stores_and_whoever_begins_wait_for_each_other(world: World) -> None:
    await world.archive.store([delivery(1, created(LOT))])
    async with world.archive.transaction() as connection:
        stored = await world.archive.write(connection, [delivery(2, bid(LOT, 1))])
        beginning = asyncio.create_task(begin_recovery(world))
        assert await waits(beginning), "or it would read the shard without what is being stored"
    assert (stored.bids, await beginning) == (1, RENEWED)

    async with world.archive.transaction() as connection:
        assert await world.archive.begin_recovery(connection, SHARD) == RENEWED + 1
        storing = asyncio.create_task(world.archive.store([delivery(1, bid(LOT, 2, epoch=2), shard_epoch=RENEWED)]))
        assert await waits(storing), "or it would be judged by what was the case before"
    assert [reason for reason, _ in (await storing).dead_letters] == [FORMER]


async def test_a_retry_does_not_let_it_in_and_settles_it(world: World) -> None:
    await world.archive.store([delivery(1, created(LOT))])
    await begin_recovery(world)
    await world.archive.store([delivery(2, bid(LOT, 1))])
    operator = DeadLetters(world.archive)
    (letter,) = await operator.list()
    retried = await operator.retry(letter.id)
    assert (retried.outcome, "epoch is over" in retried.text) == (FORMER, True)
    assert await operator.list() == []
    assert [each.outcome for each in await operator.list(with_stored=True)] == [FORMER]
    told = await world.archive.dead_letters()
    assert (told.all, told.former) == (0, 0), "somebody has looked at it"
    assert await world.value("SELECT count(*) FROM bids") == 0
    assert (await cursor(world))[:2] == (1, 1)


async def test_a_retry_stores_what_is_of_the_present_epoch(world: World) -> None:
    """On a rebuilt shard a bid of the new epoch that could not be stored is no less wanted than on any other."""
    await world.pool.execute("ALTER TABLE bids ADD CONSTRAINT odd CHECK (user_id <> 'eve')")
    renewed = await begin_recovery(world)
    messages = [created(LOT, epoch=renewed), bid(LOT, 1, epoch=renewed, user_id="eve")]
    await world.archive.store([delivery(n, each, shard_epoch=renewed) for n, each in enumerate(messages, start=1)])
    operator = DeadLetters(world.archive)
    (letter,) = await operator.list()
    assert letter.reason == "poison"
    await world.pool.execute("ALTER TABLE bids DROP CONSTRAINT odd")
    assert (await operator.retry(letter.id)).outcome == "stored"
    assert await world.value("SELECT user_id FROM bids") == "eve"
    assert await operator.list() == []


async def test_the_epochs_of_a_shard_rise_whoever_gives_them_out(world: World) -> None:
    assert [await begin_recovery(world) for _ in range(3)] == [2, 3, 4]
    await world.archive.store([delivery(1, created(LOT, epoch=7), shard_epoch=7)])
    assert await begin_recovery(world) == 8


async def test_a_transaction_of_the_archive_is_safe_on_a_server_that_is_set_up_for_less(world: World) -> None:
    """`make_safe`: the outbox is trimmed on the word of a COMMIT, and a vanished worker must not keep its locks."""
    name = world.url.rpartition("/")[2].partition("?")[0]
    await world.pool.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    await world.pool.execute(f'ALTER DATABASE "{name}" SET idle_in_transaction_session_timeout = 0')
    async with asyncio.timeout(60), opened(world.url) as archive, archive.transaction() as connection:
        assert await connection.fetchval("SHOW synchronous_commit") == "on"
        assert await connection.fetchval("SHOW idle_in_transaction_session_timeout") == "30s"
    await world.pool.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = remote_apply')
    async with asyncio.timeout(60), opened(world.url) as archive, archive.transaction() as connection:
        assert await connection.fetchval("SHOW synchronous_commit") == "remote_apply", "more than asked for stays"


async def late_message(house: House, item_id: str, n: int, event: Event, *, epoch: int = 1) -> None:
    """What a relay that slept past the recovery publishes after it."""
    client = await nats.connect(house.stack.urls.nats_url)
    shard = names.shard_of(item_id)
    await client.jetstream().publish(
        names.subject_of(item_id),
        frame_batch(shard, epoch, n, item_id, b"[%b]" % encode_event(event)),
        headers={"Nats-Msg-Id": names.message_id(shard, epoch, n)},
    )
    await client.close()


@pytest.mark.timeout(300)
async def test_a_relay_that_slept_past_a_recovery_changes_nothing(start_stack: StackFactory) -> None:
    """FAULTS row 34, with a message published by hand; a later bid shows that it was not only slow."""
    async with house_of(await start_stack(services=ALL_SERVICES)) as house:
        for number in (1, 2, 3):
            await house.accepted(LOT, "ann", f"bid-{number}", amount=number)
        viewer = Viewer(feed_url(house.stack), LOT)
        await viewer.start()
        await viewer.reached(3)
        await house.all_archived()
        await house.lose_redis()
        code, told = await house.recover()
        assert code == 0, told
        # By itself, without an event of the new epoch: that a shard has another epoch is looked at.
        await eventually(lambda: version_is(viewer, (RENEWED, 3)), seconds=60)
        before = await house.hash(LOT)

        late = bid(LOT, 4, bid_id="late", user_id="eve", amount=9_900)
        await late_message(house, LOT, 99, late)

        async def dead_letter() -> bool:
            return len(await house.query("SELECT * FROM dead_letters")) == 1

        await eventually(dead_letter, seconds=60)
        assert await house.query("SELECT * FROM bids WHERE bid_id = 'late'") == []
        assert await house.hash(LOT) == before
        sql = "SELECT shard_epoch, archived_n, ahead FROM shard_cursors WHERE shard = $1"
        (cursor,) = await house.query(sql, SHARD)
        assert tuple(cursor) == (1, 4, []), "the new epoch has not archived anything yet"

        async def is_told() -> bool:
            """The alarm, the figures and the line, which follow a moment after the row."""
            archiver = house.stack.urls.archiver_url
            alarms = (await house.http.get(f"{archiver}/ready")).json()["alarms"]
            metrics = (await house.http.get(f"{archiver}/metrics")).text
            log = (house.stack.data_dir / "logs" / "archival_worker.log").read_text()
            return (
                "former_epochs" in alarms
                and 'archiver_dead_letters_total{reason="former_epoch"} 1' in metrics
                and "archiver_former_epochs_stored 1" in metrics
                and "dead letter, former_epoch" in log
            )

        await eventually(is_told, "the alarm, the metrics and the log", seconds=60)

        answer = await house.accepted(LOT, "bob", "bid-4", amount=4)
        assert answer["event_id"] == f"{LOT}:{RENEWED}:4"
        await viewer.reached(4)
        await late_message(house, LOT, 100, bid(LOT, 5, bid_id="later", user_id="eve", amount=9_950))
        await house.accepted(LOT, "cyd", "bid-5", amount=5)
        await viewer.reached(5)
        assert all(frame.get("user_id") != "eve" for frame in viewer.frames)
        versions = [(frame["epoch"], frame["seq"]) for frame in viewer.frames if "seq" in frame and "epoch" in frame]
        assert versions == sorted(versions)
        await viewer.stop()
        await house.all_archived()
        assert [bid_["seq"] for bid_ in await house.history(LOT)] == [5, 4, 3, 2, 1]

        async def chained() -> bool:
            (chain,) = await house.query("SELECT epoch, seq FROM chains WHERE item_id = $1", LOT)
            return tuple(chain) == (RENEWED, 5)

        await eventually(chained, seconds=60)
        reasons = [row["reason"] for row in await house.query("SELECT reason FROM dead_letters")]
        assert reasons == [FORMER, FORMER]
        code, told = await house.bidding("dead-letters", "retry", "--all")
        assert (code, "its epoch is over" in told) == (1, True), told


async def version_is(viewer: Viewer, version: tuple[int, int]) -> bool:
    return viewer.version == version
