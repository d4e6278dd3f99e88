"""New bids are stored by COPY, whatever COPY cannot take by INSERT; either way the tables are the same in the end."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import msgspec
import pytest
import pytest_asyncio

from archival_worker.consume.deliveries import Delivery
from archival_worker.errors import ArchiveUnavailable
from archival_worker.store.archive import Archive, Stored
from archival_worker.store.database import Connection
from archival_worker.store.migrate import migrate
from archival_worker.store.sorted_batch import SortedBatch
from infrastructure.local.stack import Stack
from shared.clients.postgres import open_postgres
from shared.messages import Event
from tests.integration.archive.archive_world import new_database
from tests.unit.archival_worker.events import bid, closed, created, delivery, voided

pytestmark = pytest.mark.integration

LOT = "lot-1"
BIDS = "SELECT epoch, seq, bid_id, user_id, amount, previous_bid, kind, status, leader_id, us_of(placed_at) FROM bids "


@dataclass
class Database:
    """A database of the test's own, and an archive that has not stored anything yet."""

    pool: asyncpg.Pool
    archive: Archive

    async def rows(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.pool.fetch(sql, *arguments)]


async def new_pool(servers: Stack) -> asyncpg.Pool:
    url = await new_database(servers)
    await migrate(url)
    return await open_postgres(url, name="test", timeout_s=10)


@pytest_asyncio.fixture
async def database(servers: Stack) -> AsyncIterator[Database]:
    pool = await new_pool(servers)
    yield Database(pool, Archive(pool))
    pool.terminate()


def outcome(stored: Stored) -> tuple[int, int, int, int]:
    return stored.bids, stored.copied, stored.duplicates, stored.clashes


async def test_rows_that_are_not_those_of_the_bids_are_not_believed(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """They are made apart from the bids. A cursor must not pass a bid whose row was never sent."""
    each = delivery(1, bid(LOT, 1))
    stored = await database.archive.store([msgspec.structs.replace(each, bid_rows=b"")])
    assert outcome(stored) == (1, 0, 0, 0), "it is stored by INSERT"
    assert len(await database.rows(BIDS)) == 1
    assert "COPY 0" in caplog.text


async def test_of_rows_that_are_not_believed_none_stays(database: Database) -> None:
    other = delivery(1, bid("lot-9", 1))
    await database.archive.store(
        [msgspec.structs.replace(delivery(1, bid(LOT, 1), bid(LOT, 2)), bid_rows=other.bid_rows)]
    )
    assert await database.rows("SELECT item_id, seq FROM bids ORDER BY seq") == [(LOT, 1), (LOT, 2)]


async def test_both_ways_store_the_same_rows(database: Database) -> None:
    def some(item_id: str) -> list[Delivery]:
        beaten, odd = bid(item_id, 2, user_id="bob", leader="ada"), bid(item_id, 3, user_id="“é\U0001f570”")
        events = [bid(item_id, 1), beaten, odd]
        return [delivery(n, event) for n, event in enumerate(events, start=1)]

    copied = await database.archive.store(some("lot-1"))
    assert outcome(copied) == (3, 3, 0, 0)
    twice = some("lot-2")
    inserted = await database.archive.store([*twice, twice[0]])
    assert outcome(inserted) == (3, 0, 1, 0)
    one, other = [await database.rows(BIDS + "WHERE item_id = $1 ORDER BY seq", item) for item in ("lot-1", "lot-2")]
    assert one == other
    assert len(one) == 3


async def test_a_known_bid_sends_its_batch_the_other_way_and_new_ones_come_back_to_copy(database: Database) -> None:
    async def store(first: int, last: int) -> Stored:
        return await database.archive.store([delivery(n, bid(LOT, n)) for n in range(first, last + 1)])

    assert outcome(await store(1, 3)) == (3, 3, 0, 0)
    assert outcome(await store(3, 5)) == (2, 0, 1, 0)
    assert outcome(await store(1, 5)) == (0, 0, 5, 0)
    assert outcome(await store(6, 7)) == (2, 0, 0, 0), "as the last ones were known, COPY was not tried"
    assert outcome(await store(8, 9)) == (2, 2, 0, 0)
    assert await database.rows("SELECT seq FROM bids ORDER BY seq") == [(seq,) for seq in range(1, 10)]


@pytest.mark.parametrize("batch", ["new", "known", "known in part", "clashing", "without a bid"])
async def test_however_a_batch_is_stored_there_is_a_moment_to_ask_for_the_next_one(
    database: Database, batch: str
) -> None:
    """It comes before the COMMIT, so that the next batch arrives meanwhile."""
    archived: list[Any] = []

    async def note() -> None:
        archived.extend(await database.rows("SELECT archived_n FROM shard_cursors WHERE archived_n > 0"))

    await database.archive.store([delivery(1, bid(LOT, 1)), delivery(2, closed(LOT, 7))])
    if batch == "known":
        await database.archive.store([delivery(1, bid(LOT, 1))])
    batches = {
        "new": [delivery(3, bid(LOT, 2))],
        "known": [delivery(1, bid(LOT, 1)), delivery(3, bid(LOT, 2))],
        "known in part": [delivery(1, bid(LOT, 1)), delivery(3, bid(LOT, 2))],
        "clashing": [delivery(3, bid(LOT, 7))],
        "without a bid": [delivery(3, closed(LOT, 8))],
    }
    stored = await database.archive.store(batches[batch], meanwhile=note)
    assert stored.copied == (1 if batch == "new" else 0)
    assert archived in ([(2,)], [(2,), (2,)]), "once, or twice where a COPY was undone"
    assert await database.rows("SELECT archived_n FROM shard_cursors WHERE archived_n > 0") == [(3,)]


async def test_the_place_of_another_event_is_not_for_a_bid(database: Database) -> None:
    await database.archive.store([delivery(1, closed(LOT, 3))])
    stored = await database.archive.store([delivery(n, bid(LOT, n)) for n in (1, 2, 3)])
    assert outcome(stored) == (2, 0, 0, 1)
    assert await database.rows("SELECT reason, n FROM dead_letters") == [("clash", 3)]
    beside = await Archive(database.pool).store([delivery(n, bid(LOT, n, epoch=2)) for n in (1, 2, 3)])
    assert outcome(beside) == (3, 3, 0, 0), "another epoch"


async def test_an_event_among_the_bids_but_at_the_place_of_none_is_no_reason_against_copy(database: Database) -> None:
    await database.archive.store([delivery(2, closed(LOT, 2))])
    stored = await database.archive.store([delivery(1, bid(LOT, 1)), delivery(3, bid(LOT, 3))])
    assert outcome(stored) == (2, 2, 0, 0)


@pytest.mark.parametrize(
    "other", [{"amount": 999}, {"user_id": "eve"}, {"bid_id": "other"}], ids=["amount", "bidder", "id"]
)
async def test_the_same_place_with_one_other_fact_is_a_clash_and_no_duplicate(
    database: Database, other: dict[str, Any]
) -> None:
    await database.archive.store([delivery(1, bid(LOT, 1))])
    assert outcome(await database.archive.store([delivery(1, bid(LOT, 1))])) == (0, 0, 1, 0)
    assert outcome(await database.archive.store([delivery(1, bid(LOT, 1, **other))])) == (0, 0, 0, 1)
    assert await database.rows("SELECT bid_id, user_id, amount FROM bids") == [("bid-1-1", "ada", 100)]
    assert await database.rows("SELECT reason, n FROM dead_letters") == [("clash", 1)]


async def test_a_bid_id_that_is_taken_is_a_clash_and_the_others_are_stored(database: Database) -> None:
    await database.archive.store([delivery(1, bid(LOT, 1))])
    batch = [delivery(2, bid(LOT, 2)), delivery(3, bid(LOT, 3, bid_id="bid-1-1")), delivery(4, bid(LOT, 4))]
    assert outcome(await database.archive.store(batch)) == (2, 0, 0, 1)
    assert await database.rows("SELECT seq FROM bids ORDER BY seq") == [(1,), (2,), (4,)]
    assert await database.rows("SELECT reason, n FROM dead_letters") == [("clash", 3)]


@pytest.mark.parametrize("refused", [bid(LOT, 2, user_id="a\0b"), bid(LOT, 2, amount=2**70), bid(LOT, 2, epoch=2**40)])
async def test_what_copy_refuses_is_a_poison_alone(database: Database, refused: Event) -> None:
    batch = [delivery(1, bid(LOT, 1)), delivery(2, refused), delivery(3, bid(LOT, 3))]
    stored = await database.archive.store(batch)
    assert (stored.bids, [reason for reason, _ in stored.dead_letters]) == (2, ["poison"])
    await database.archive.store([delivery(4, bid(LOT, 4))])
    assert (await database.archive.store([delivery(5, bid(LOT, 5))])).copied == 1, "its connection is as good as before"
    assert await database.rows("SELECT archived_n FROM shard_cursors WHERE archived_n > 0") == [(5,)]


async def test_after_a_copy_that_failed_the_next_batch_goes_by_insert(database: Database) -> None:
    """What failed half-way has left dead rows, and the halves of a refused batch may fail again."""
    refused = [delivery(1, bid(LOT, 1)), delivery(2, bid(LOT, 2, user_id="a\0b"))]
    assert outcome(await database.archive.store(refused)) == (1, 0, 0, 0)
    assert outcome(await database.archive.store([delivery(3, bid(LOT, 3))])) == (1, 0, 0, 0)
    assert outcome(await database.archive.store([delivery(4, bid(LOT, 4))])) == (1, 1, 0, 0)


async def test_an_instant_that_python_does_not_know_is_stored_all_the_same(database: Database) -> None:
    far_us = 300_000_000_000_000_000  # in the year 11476
    late = msgspec.structs.replace(bid(LOT, 1), ts_us=far_us)
    assert outcome(await database.archive.store([delivery(1, late)])) == (1, 0, 0, 0)
    assert await database.rows("SELECT us_of(placed_at) FROM bids") == [(far_us,)]


async def test_what_was_copied_goes_with_its_transaction(database: Database) -> None:
    await database.pool.execute("ALTER TABLE items RENAME TO items_away")
    batch = [delivery(1, bid(LOT, 1)), delivery(2, bid(LOT, 2))]
    with pytest.raises(ArchiveUnavailable):
        await database.archive.store(batch)
    assert await database.rows("SELECT * FROM bids") == []
    assert await database.rows("SELECT * FROM shard_cursors WHERE archived_n > 0") == []
    await database.pool.execute("ALTER TABLE items_away RENAME TO items")
    assert outcome(await database.archive.store(batch)) == (2, 2, 0, 0)


class WithoutCopy(Archive):
    """Stores everything by INSERT."""

    async def _copy_bids(self, connection: Connection, batch: SortedBatch, meanwhile: object) -> int:
        return 0


def random_batches(seed: int) -> list[list[Delivery]]:
    """Batches of two items' events: in any order, some twice, and some that contradict the event in their place."""
    random_ = random.Random(seed)
    entries: list[tuple[int, Sequence[Event]]] = []
    for item_id in ("lot-1", "lot-2"):
        entries.append((1, [created(item_id)]))
        entries += [(n, [bid(item_id, 2 * n - 3), bid(item_id, 2 * n - 2)]) for n in range(2, 20)]
        entries += [(20, [voided(item_id, 37, voids=8)]), (21, [closed(item_id, 38)])]
        entries.append((22, [bid(item_id, random_.randrange(1, 40), bid_id="other", user_id="eve")]))
        entries.append((23, [bid(item_id, 50, bid_id=f"bid-1-{random_.randrange(1, 37)}", user_id="eve")]))
    messages = [delivery(n, *events) for n, events in entries]
    # Contradicting events must not come first in one run and last in the other: the order is the same for both.
    messages += random_.sample(messages, 10)
    random_.shuffle(messages)
    batches = []
    while messages:
        size = random_.randrange(1, 5)
        batches.append(messages[:size])
        messages = messages[size:]
    return batches


@pytest.mark.parametrize("seed", range(3))
async def test_random_batches_end_the_same_with_copy_and_without(servers: Stack, seed: int) -> None:
    ends = []
    copied = 0
    for kind in (Archive, WithoutCopy):
        pool = await new_pool(servers)
        archive = kind(pool)
        for batch in random_batches(seed):
            copied += (await archive.store(batch)).copied
        ends.append(
            [
                [tuple(row) for row in await pool.fetch(sql)]
                for sql in (
                    "SELECT * FROM bids ORDER BY item_id, epoch, seq",
                    "SELECT * FROM events ORDER BY item_id, epoch, seq",
                    "SELECT * FROM items ORDER BY item_id",
                    "SELECT * FROM shard_cursors ORDER BY shard",
                    "SELECT reason, detail, subject, n, data FROM dead_letters ORDER BY subject, n, data",
                )
            ]
        )
        pool.terminate()
    assert ends[0] == ends[1]
    assert copied > 0, "COPY had its part in it"
