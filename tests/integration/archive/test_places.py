"""One place holds one event, whichever table it is in and whoever comes first; and which items Redis is to have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, cast

import asyncpg
import msgspec
import pytest
import pytest_asyncio

from archival_worker.consume.deliveries import Delivery
from archival_worker.errors import ArchiveUnavailable
from archival_worker.store.archive import Archive
from archival_worker.store.dead_letters import DeadLetters
from archival_worker.store.queries import load_eviction_queries, load_queries
from infrastructure.local.stack import Stack
from shared import names
from shared.clients.postgres import open_postgres
from shared.messages import Event, ItemCreated
from shared.names import OutboxEntry
from tests.integration.archive.archive_world import migrated_database
from tests.unit.archival_worker.events import bid, closed, created, delivery, voided

pytestmark = pytest.mark.integration

LOT, OTHER = "lot-1", "lot-2"
SHARD = names.shard_of(LOT)


@pytest_asyncio.fixture
async def pool(servers: Stack) -> AsyncIterator[asyncpg.Pool]:
    pool = await open_postgres(await migrated_database(servers), name="test", timeout_s=10)
    yield pool
    pool.terminate()


@pytest.fixture
def archive(pool: asyncpg.Pool) -> Archive:
    return Archive(pool)


async def rows(pool: asyncpg.Pool, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await pool.fetch(sql, *arguments)]


@pytest.mark.parametrize("at_once", [True, False], ids=["in one batch", "one after the other"])
async def test_an_event_at_the_place_of_a_bid_is_a_clash_and_changes_nothing(
    pool: asyncpg.Pool, archive: Archive, at_once: bool
) -> None:
    """No constraint keeps two tables apart. The cursor moves past it, so nothing else would tell that it is missing."""
    placed, late = [delivery(1, bid(LOT, 1)), delivery(2, bid(LOT, 2))], [delivery(3, closed(LOT, 2))]
    stored = await archive.store([*placed, *late] if at_once else placed)
    if not at_once:
        stored = await archive.store(late)
    assert (stored.events, stored.clashes) == (0, 1)
    assert [reason for reason, _ in stored.dead_letters] == ["clash"]
    assert stored.positions[SHARD] == (1, 3)
    assert await rows(pool, "SELECT * FROM events") == []
    assert await rows(pool, "SELECT status, seq, current_bid FROM items") == [("open", 2, 200)]


@pytest.mark.parametrize("other", [closed(LOT, 2), voided(LOT, 2, voids=1, status="paused")])
async def test_an_event_at_the_place_of_another_one_is_a_clash(
    pool: asyncpg.Pool, archive: Archive, other: Any
) -> None:
    await archive.store([delivery(1, bid(LOT, 1)), delivery(2, voided(LOT, 2, voids=1))])
    stored = await archive.store([delivery(2, other)])
    assert (stored.events, stored.clashes, stored.duplicates) == (0, 1, 0)
    assert await rows(pool, "SELECT type, body ->> 'status' FROM events") == [("voided", "open")]


async def test_an_item_is_the_same_row_whether_its_terms_came_first_or_last(
    pool: asyncpg.Pool, archive: Archive
) -> None:
    terms: list[Event] = []
    for item_id in (LOT, OTHER):
        event = cast(ItemCreated, created(item_id, end_us=1_760_000_000_000_001))
        terms.append(msgspec.structs.replace(event, buy_now_price=9_000, auto_opened=True, approval_required=True))
    await archive.store([delivery(1, terms[0]), delivery(2, bid(LOT, 1))])
    await archive.store([delivery(2, bid(OTHER, 1))])
    await archive.store([delivery(1, terms[1])])
    one, other = await pool.fetch("SELECT * FROM items ORDER BY item_id")
    assert dict(one) | {"item_id": OTHER} == dict(other)
    told = {name: one[name] for name in dict(one) if name not in ("end_at", "highest_bidder_id", "item_id")}
    assert [name for name, value in told.items() if value in (None, "", False)] == ["reserve_met"], "all terms are told"


async def test_without_the_row_of_its_shard_nothing_is_stored(pool: asyncpg.Pool, archive: Archive) -> None:
    """Nobody would be kept from storing at the same time, and no cursor would move past it."""
    await pool.execute("DELETE FROM shard_cursors WHERE shard = $1", SHARD)
    with pytest.raises(ArchiveUnavailable, match="migrate"):
        await archive.store([delivery(1, bid(LOT, 1)), delivery(1, bid(OTHER, 1))])
    assert await rows(pool, "SELECT * FROM bids") == []
    async with archive.transaction() as connection:
        with pytest.raises(ArchiveUnavailable, match="migrate"):
            await archive.begin_recovery(connection, SHARD)


async def test_a_poison_whatever_it_is_made_of_holds_up_nobody(pool: asyncpg.Pool, archive: Archive) -> None:
    odd = Delivery(
        "auction.events.s04.\0lot", b"\0\xff", "", OutboxEntry(SHARD, 1, 1), None, "odd: \ud800 \0 " + "x" * 900
    )
    stored = await archive.store([odd, delivery(2, bid(LOT, 1))])
    assert (stored.bids, stored.positions[SHARD]) == (1, (1, 2))
    ((detail, subject, data),) = await rows(pool, "SELECT detail, subject, data FROM dead_letters")
    assert (detail.startswith("odd: ? "), len(detail)) == (True, 500)
    assert (subject, data) == ("auction.events.s04.lot", b"\0\xff")


async def test_a_dead_letter_that_is_refused_is_no_reason_to_go_on_without_it(
    pool: asyncpg.Pool, archive: Archive
) -> None:
    """Something is wrong with the table. The message would be acknowledged, and be nowhere."""
    await pool.execute("ALTER TABLE dead_letters ADD CONSTRAINT odd CHECK (false) NOT VALID")
    poison = Delivery("auction.events.s04.lot", b"?", "", OutboxEntry(SHARD, 1, 1), None, "undecodable")
    with pytest.raises(ArchiveUnavailable, match="a dead letter is refused"):
        await archive.store([poison, delivery(2, bid(LOT, 1))])
    assert await rows(pool, "SELECT archived_n FROM shard_cursors WHERE archived_n > 1") == []


async def test_of_a_poison_that_is_mended_one_event_may_clash_and_the_others_are_stored(
    pool: asyncpg.Pool, archive: Archive
) -> None:
    await pool.execute("ALTER TABLE bids ADD CONSTRAINT odd CHECK (user_id <> 'eve')")
    await archive.store([delivery(1, bid(LOT, 1), bid(LOT, 2, user_id="eve"))])
    await archive.store([delivery(2, bid(LOT, 1, bid_id="other"))])
    await pool.execute("ALTER TABLE bids DROP CONSTRAINT odd")
    operator = DeadLetters(archive)
    (letter,) = await operator.list()
    assert (await operator.retry(letter.id)).outcome == "stored"
    assert await rows(pool, "SELECT seq, bid_id FROM bids ORDER BY seq") == [(1, "other"), (2, "bid-1-2")]
    (clash,) = await operator.list()
    assert (clash.reason, clash.item_id, "bid-1-1" in clash.detail) == ("clash", LOT, True)
    assert await archive.dead_letters() == (1, 1, 0)
    # Settled, and the row of the first stays what it is.
    assert (await operator.retry(letter.id)).text == "had been stored by an earlier retry"
    assert (await operator.retry(clash.id)).outcome == "clash"
    assert len(await operator.list(with_stored=True)) == 2


KEEP_S = 3_600.0


@pytest.mark.parametrize(
    ("state", "seq", "age_s", "keep_s", "stays"),
    [
        ("confirmed", 1, KEEP_S + 60, KEEP_S, False),
        ("confirmed", 1, KEEP_S - 60, KEEP_S, True),
        ("confirmed", 1, 10 * KEEP_S, -1.0, True),
        ("confirmed", 1, 60, 0.0, False),
        ("confirmed", 0, KEEP_S + 60, KEEP_S, True),
        ("failing", 1, KEEP_S + 60, KEEP_S, True),
        ("due", 1, KEEP_S + 60, KEEP_S, True),
        (None, 1, KEEP_S + 60, KEEP_S, True),
    ],
    ids=[
        "exported, and its time has come",
        "its time has not come",
        "nothing ever leaves",
        "at once",
        "an earlier state of it is exported",
        "its export fails",
        "its export is due",
        "no export",
    ],
)
async def test_redis_is_to_have_every_item_but_closed_ones_that_would_leave_it_at_once(
    pool: asyncpg.Pool, archive: Archive, state: str | None, seq: int, age_s: float, keep_s: float, stays: bool
) -> None:
    """And no other leaves: the archive is asked in the same way about items that Redis has."""
    await archive.store([delivery(1, created(OTHER)), delivery(1, created(LOT)), delivery(2, closed(LOT, 1))])
    await pool.execute("UPDATE items SET updated_at = now() - $1::interval", timedelta(seconds=age_s))
    if state is not None:
        await pool.execute(
            "INSERT INTO exports (item_id, epoch, seq, head, state, confirmed_at) VALUES ($1, 1, $2, $3, $4, $5)",
            LOT,
            seq,
            bytes(32),
            state,
            await pool.fetchval("SELECT now() - interval '1 day'") if state == "confirmed" else None,
        )
    found = await rows(pool, load_queries().read_item_ids, keep_s)
    assert sorted(item_id for (item_id,) in found) == ([LOT, OTHER] if stays else [OTHER])
    leaving = await rows(pool, load_eviction_queries().read_exported, [LOT, OTHER], [], 60)
    assert leaving == ([(LOT, 1)] if (state, seq) == ("confirmed", 1) else [])


async def test_the_minute_after_the_export_of_a_struck_item_is_asked_of_struck_items_alone(
    pool: asyncpg.Pool, archive: Archive
) -> None:
    for item_id in (LOT, OTHER):
        await archive.store([delivery(1, created(item_id)), delivery(2, closed(item_id, 1))])
        await pool.execute(
            """INSERT INTO exports (item_id, epoch, seq, head, state, confirmed_at)
               VALUES ($1, 1, 1, $2, 'confirmed', now() - interval '30 seconds')""",
            item_id,
            bytes(32),
        )
    sql = load_eviction_queries().read_exported
    assert await rows(pool, sql, [LOT, OTHER], [LOT], 60) == [(OTHER, 1)]
    assert sorted(await rows(pool, sql, [LOT, OTHER], [LOT], 20)) == [(LOT, 1), (OTHER, 1)]
