"""A void costs the archive one look at the item's bids, however many others of them were struck before."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest
import pytest_asyncio

from archival_worker.consume.deliveries import Delivery
from archival_worker.store.archive import Archive
from archival_worker.store.migrate import migrate
from infrastructure.local.stack import Stack
from shared import names
from shared.clients.postgres import open_postgres
from tests.integration.archive.archive_world import new_database
from tests.unit.archival_worker.events import bid, delivery, voided

pytestmark = pytest.mark.integration

BIDS = 20_000
FEW, MANY = 2, 300
ITEMS = {"few-voids": FEW, "many-voids": MANY}

# Bids, voids of every tenth bid, and all of it archived.
FILL = (
    """
    INSERT INTO bids (item_id, epoch, seq, bid_id, user_id, amount, previous_bid, kind, status, placed_at)
    SELECT $1, 1, n, 'bid-1-' || n, 'ann', n, n - 1, 'bid',
           CASE WHEN n % 10 = 0 AND n <= $3 * 10 THEN 'voided' ELSE 'valid' END, now()
    FROM generate_series(1, $2::integer) AS n""",
    """
    INSERT INTO events (item_id, epoch, seq, type, body, at)
    SELECT $1, 1, $2::integer + n, 'voided', jsonb_build_object('bid_id', 'bid-1-' || n * 10, 'voided_seq', n * 10,
           'bidder_id', 'ann', 'automatic_until', null, 'current_bid', $2::integer), now()
    FROM generate_series(1, $3::integer) AS n""",
)


@pytest_asyncio.fixture
async def pool(servers: Stack) -> AsyncIterator[asyncpg.Pool]:
    url = await new_database(servers)
    await migrate(url)
    pool = await open_postgres(url, name="test", timeout_s=120)
    for item_id, voids in ITEMS.items():
        for statement in FILL:
            await pool.execute(statement, item_id, BIDS, *([voids] if "$3" in statement else []))
        await pool.execute(
            "UPDATE shard_cursors SET shard_epoch = 1, archived_n = 9, ahead = '{20,20}' WHERE shard = $1",
            names.shard_of(item_id),
        )
    await pool.execute("ANALYZE bids, events")
    yield pool
    pool.terminate()


def a_void(item_id: str, number: int) -> Delivery:
    return delivery(11 + number, voided(item_id, BIDS + MANY + 1 + number, voids=5))


def a_late_bid(item_id: str, number: int) -> Delivery:
    """Entries that come after it are stored already."""
    return delivery(11 + number, bid(item_id, BIDS + MANY + 1 + number))


@pytest.mark.parametrize("message", [a_void, a_late_bid])
async def test_what_is_stored_costs_the_same_after_many_voids(
    pool: asyncpg.Pool, message: Callable[[str, int], Delivery]
) -> None:
    archive = Archive(pool)
    took_s = dict.fromkeys(ITEMS, float("inf"))
    for number in range(8):
        for item_id in ITEMS:
            began_s = time.perf_counter()
            await archive.store([message(item_id, number)])
            took_s[item_id] = min(took_s[item_id], time.perf_counter() - began_s)
    assert took_s["many-voids"] < 10 * took_s["few-voids"], took_s
    struck = await pool.fetch("SELECT item_id, count(*) AS bids FROM bids WHERE status = 'voided' GROUP BY item_id")
    assert {row["item_id"]: row["bids"] for row in struck} == {
        item_id: voids + (message is a_void) for item_id, voids in ITEMS.items()
    }
