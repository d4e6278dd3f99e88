"""What a pool for look-ups saves: plans for each question, and the cleaning of connections between two."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from infrastructure.local.stack import Stack
from shared.archive_reads.asking import Asking
from shared.archive_reads.catalogue import Sort, catalogue_page
from shared.archive_reads.origin import ArchiveOrigin
from shared.clients.postgres import open_postgres

pytestmark = pytest.mark.integration

_PLANS = """
    SELECT sum(generic_plans)::integer AS generic, sum(custom_plans)::integer AS custom
    FROM pg_prepared_statements WHERE statement LIKE '%JOIN chains%' AND statement NOT LIKE '%_plans%'"""


@asynccontextmanager
async def pool_of(url: str, *, only_looks_up: bool) -> AsyncIterator[asyncpg.Pool]:
    """A pool of one connection, so that everything happens in one session."""
    pool = await open_postgres(url, name="look-ups", connections_max=1, only_looks_up=only_looks_up)
    try:
        yield pool
    finally:
        await pool.close()


@pytest.mark.parametrize("only_looks_up", [True, False])
async def test_a_look_up_is_planned_once_for_all_questions(postgres_url: str, only_looks_up: bool) -> None:
    async with pool_of(postgres_url, only_looks_up=only_looks_up) as pool:
        origin = ArchiveOrigin(Asking(pool))
        for number in range(10):
            assert await origin.get(f"items/nobody-{number}") is None
        plans = await pool.fetchrow(_PLANS)
        assert plans is not None
        assert (plans["generic"] == 10) == only_looks_up
        assert (plans["custom"] == 0) == only_looks_up


@pytest.mark.parametrize("only_looks_up", [True, False])
async def test_a_session_is_cleaned_unless_it_only_looks_up(postgres_url: str, only_looks_up: bool) -> None:
    async with pool_of(postgres_url, only_looks_up=only_looks_up) as pool:
        await pool.execute("SET statement_timeout = '1234ms'")
        assert (await pool.fetchval("SHOW statement_timeout") == "1234ms") == only_looks_up


async def test_a_question_that_fails_leaves_a_connection_that_answers(postgres_url: str) -> None:
    async with pool_of(postgres_url, only_looks_up=True) as pool:
        with pytest.raises(asyncpg.DivisionByZeroError):
            async with pool.acquire() as connection, connection.transaction():
                await connection.fetchval("SELECT 1 / 0")
        assert await pool.fetchval("SELECT 1") == 1


class Explained:
    """Explains what it is asked instead of answering it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.plan = ""

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        await self._connection.execute(f"PREPARE page AS {query}")
        given = ", ".join(f"'{argument}'" for argument in arguments)
        rows = await self._connection.fetch(f"EXPLAIN EXECUTE page{f'({given})' if given else ''}")
        self.plan = "\n".join(row[0] for row in rows)
        return []


@pytest.mark.parametrize(
    ("sort", "status", "index"),
    [
        ("newest", None, "items_by_created"),
        ("newest", "open", "items_by_status_created"),
        ("ending", None, "items_by_end"),
        ("ending", "open", "items_by_status_end"),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
async def test_a_page_of_the_catalogue_is_found_by_its_index_without_its_values(
    archive_servers: Stack, sort: Sort, status: str | None, index: str, is_first: bool
) -> None:
    """A plan that holds for all values cannot leave out a condition that one of them makes void."""
    place = "2026-11-29 08:00:00+00"
    cursor = (
        None if is_first else base64.urlsafe_b64encode(json.dumps([sort, place, "a"]).encode()).decode().rstrip("=")
    )
    async with (
        pool_of(archive_servers.urls.postgres_url, only_looks_up=True) as pool,
        pool.acquire() as connection,
        connection.transaction(),
    ):
        await connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
        explained = Explained(connection)
        await catalogue_page(explained, status=status, sort=sort, cursor=cursor, limit=50)
    assert f"using {index} on items" in explained.plan, explained.plan
    found = [line for line in explained.plan.splitlines() if "Index Cond: " in line]
    assert (bool(found) and all("status = $1" in line for line in found)) == (status is not None), explained.plan
    ranges = [line for line in found if "ROW(created_at, item_id) < " in line or "ROW(end_at, item_id) > " in line]
    assert len(ranges) == (0 if is_first else 1), explained.plan
