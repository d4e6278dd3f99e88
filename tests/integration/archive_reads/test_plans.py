"""With many open items, and with an item of very many bids, what the product asks the archive goes along an index.

The statements are those that the product's own functions send, under the plans that they get there: one for all
arguments where a pool only looks up, and one for these arguments elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import asyncpg
import pytest
import pytest_asyncio

from api_gateway.own.bid_on import bid_on
from api_gateway.own.watch_lists import WatchLists
from api_gateway.reads.archive import Archive
from bench.full_archive import LONG, Explained, fill, rows_of
from infrastructure.local.stack import Stack
from shared.archive_reads.asking import Asking
from shared.archive_reads.catalogue import Sort, catalogue_page
from shared.archive_reads.feed_reads import FeedReads
from shared.archive_reads.history import archived_bids
from shared.archive_reads.keyed_verdicts import keyed_verdicts
from shared.archive_reads.origin import closed_items
from shared.archive_reads.statements import statements

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

ITEMS, BIDS = 30_000, 60_000
LOOKED_AT_MAX = 1_500
"""Rows that one answer may look at: some pages' worth, and nothing that grows with the archive."""
SMALL = {"shard_cursors", "recoveries"}


_BIDDERS = """
    INSERT INTO bidders SELECT user_id, item_id, created_at FROM items, unnest('{ann,bob}'::text[]) AS u (user_id)"""
_WATCHED = """
    INSERT INTO watched SELECT user_id, item_id, created_at, 7
    FROM (SELECT * FROM items LIMIT 500) AS lots,
         (SELECT 'user-' || n FROM generate_series(1, 60) AS n UNION SELECT 'ann') AS u (user_id)"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def connection(archive_servers: Stack) -> AsyncIterator[Any]:
    found = await asyncpg.connect(archive_servers.urls.postgres_url)
    await fill(found, items=ITEMS, bids=BIDS)
    # One seller with many items, and one bidder who bids on all of them.
    await found.execute("UPDATE items SET seller_id = 'sam' WHERE item_id > 'lot-5'")
    await found.execute(_BIDDERS)
    await found.execute(_WATCHED)
    for table in ("items", "bidders", "watched"):
        await found.execute(f"VACUUM ANALYZE {table}")
    yield found
    await found.close()


@pytest_asyncio.fixture(loop_scope="module", params=["force_generic_plan", "force_custom_plan"])
async def explained(connection: Any, request: pytest.FixtureRequest) -> Explained:
    await connection.execute(f"SET plan_cache_mode = {request.param}")
    return Explained(connection)


def archive_of(explained: Explained) -> Archive:
    archive = Archive(cast(Any, None))
    archive.asking = asking_of(explained)
    return archive


def asking_of(explained: Explained) -> Asking:
    return cast(Asking, explained)


def assert_along_an_index(explained: Explained) -> None:
    for node in explained.nodes():
        kind, table = node["Node Type"], node.get("Relation Name", "")
        shown = f"{kind} on {table}: {rows_of(node):.0f} rows\n{explained.plans}"
        assert "Seq Scan" not in kind or table in SMALL, shown
        assert rows_of(node) <= LOOKED_AT_MAX, shown


async def page_of(explained: Explained, sort: Sort, status: str | None, cursor: str | None) -> tuple[list[str], str]:
    page = await catalogue_page(explained, status=status, sort=sort, cursor=cursor, limit=50)
    assert page.next_cursor is not None
    return page.ids, page.next_cursor


@pytest.mark.parametrize("sort", ["newest", "ending"])
@pytest.mark.parametrize("status", [None, "open", "paused"])
async def test_pages_of_the_catalogue(explained: Explained, sort: Sort, status: str | None) -> None:
    ids, cursor = await page_of(explained, sort, status, None)
    for _ in range(3):
        more, cursor = await page_of(explained, sort, status, cursor)
        ids += more
    assert len(set(ids)) == 200
    assert_along_an_index(explained)


@pytest.mark.parametrize("status", [None, "open"])
async def test_pages_of_a_seller(explained: Explained, status: str | None) -> None:
    ids, cursor = list[str](), None
    for _ in range(3):
        page = await catalogue_page(explained, status=status, sort="newest", cursor=cursor, limit=50, seller="sam")
        ids, cursor = ids + page.ids, page.next_cursor
    assert len(set(ids)) == 150
    assert_along_an_index(explained)


async def test_pages_of_what_somebody_has_bid_on(explained: Explained) -> None:
    ids, cursor = list[str](), None
    for _ in range(3):
        page = await bid_on(asking_of(explained), "ann", cursor=cursor, limit=50)
        ids, cursor = ids + [item.item_id for item in page.items], page.next_cursor
    assert len(set(ids)) == 150
    assert_along_an_index(explained)


async def test_a_watch_list(explained: Explained) -> None:
    assert len(await WatchLists(asking_of(explained)).read("ann")) == 500
    assert_along_an_index(explained)


async def test_the_catalogue_by_price_reads_the_items_once_and_keeps_a_page(explained: Explained) -> None:
    """The exception: an index of prices would make the archive write every bid four times slower (decision 0054)."""
    ids, cursor = await page_of(explained, "price", "open", None)
    more, _ = await page_of(explained, "price", "open", cursor)
    assert len({*ids, *more}) == 100
    sorts = [node for node in explained.nodes() if node["Node Type"] == "Sort"]
    assert sorts
    assert {node["Sort Method"] for node in sorts} <= {"top-N heapsort", "quicksort"}
    assert all(node["Sort Space Type"] == "Memory" and node["Sort Space Used"] < 1_000 for node in sorts)


NEWEST_EVENTS = statements("rebuild")["read_log"]
Ask = Callable[[Explained], Awaitable[Any]]

QUESTIONS: dict[str, Ask] = {
    "the newest bids": lambda asked: archived_bids(asked.fetch, LONG, before=None, limit=51),
    "bids in the middle": lambda asked: archived_bids(asked.fetch, LONG, before=(1, BIDS // 2), limit=201),
    "the oldest bids": lambda asked: archived_bids(asked.fetch, LONG, before=(1, 30), limit=51),
    "how far it is archived": lambda asked: archive_of(asked).version(LONG),
    "ids that nobody has": lambda asked: archive_of(asked).known([f"new-{number}" for number in range(256)]),
    "ids that are known": lambda asked: archive_of(asked).known([f"lot-{number}" for number in range(1, 257)]),
    "a closed item": lambda asked: closed_items(asked.fetch, [LONG]),
    "many closed items": lambda asked: closed_items(asked.fetch, [f"lot-{number}" for number in range(1, 201)]),
    "a bid by its key": lambda asked: keyed_verdicts(asked.fetch, "lot-2", "user-7", "lot-2-7"),
    "the newest voids": lambda asked: FeedReads(asking_of(asked)).voids("lot-2"),
    "the newest events": lambda asked: asked.fetch(NEWEST_EVENTS, [LONG], 512),
}


@pytest.mark.parametrize("question", QUESTIONS)
async def test_questions_about_an_item(explained: Explained, question: str) -> None:
    await asyncio.wait_for(QUESTIONS[question](explained), 20)
    assert explained.plans
    assert_along_an_index(explained)
