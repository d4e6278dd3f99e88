"""A bid is struck on an item whose history is far longer than the log in Redis, within the time of one request."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import asyncpg
import httpx2 as httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from api_gateway.engine.bids.voids import Voids
from api_gateway.engine.item_scripts import ItemScripts, ScriptLimits
from api_gateway.reads.archive import Archive
from api_gateway.reads.bids_in_order import PAGE_QUERIES
from infrastructure.local.stack import Stack
from shared.clients.postgres import open_postgres
from shared.domain.errors import Unavailable
from shared.redis_layout.keys import accepted_key, item_key
from shared.redis_layout.limits import ACCEPTED_KEPT
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

ITEM = "very-many-bids"
# Others run beside this: 400,000 take 10 s of a core.
BIDS = 100_000
RAISED_AFTER = BIDS // 2
EPOCH = 1

# A load balancer in front of the gateway closes a connection that is silent for a minute.
WITHIN_S = 60.0

# Zed's maximum of 0.02 comes first. Each bid, all of them under header keys, is 0.01 above the one before. Half way the
# leader raises a maximum by 0.05, which the next bid is above.
PRICE = f"(n + 2 + CASE WHEN n > {RAISED_AFTER} THEN 6 ELSE 0 END)"
FILL = (
    f"""
    INSERT INTO bids (item_id, epoch, seq, bid_id, user_id, amount, previous_bid, kind, placed_at)
    VALUES ('{ITEM}', {EPOCH}, 1, 'of-zed', 'zed', 1, 0, 'bid', now())""",
    f"""
    INSERT INTO bids (item_id, epoch, seq, bid_id, user_id, amount, previous_bid, kind, placed_at)
    SELECT '{ITEM}', {EPOCH}, n + 1, 'b-' || n, 'user-' || n % 1000, {PRICE}, n + 1, 'bid', now()
    FROM generate_series(1, {BIDS}) AS n""",
    f"""
    INSERT INTO sealed (item_id, epoch, n, at, seq, leader_max, runner_up, user_id, bid_id, amount, max_amount, key,
                        verdict, decided_at)
    SELECT '{ITEM}', {EPOCH}, n + 1, 1, n + 1, {PRICE}, n + 1, 'user-' || n % 1000, 'b-' || n, {PRICE}, NULL,
           'key-' || n, 'A|b-' || n, now()
    FROM generate_series(1, {BIDS}) AS n""",
    f"""
    INSERT INTO sealed (item_id, epoch, n, at, seq, leader_max, runner_up, user_id, bid_id, max_amount, verdict,
                        decided_at)
    VALUES ('{ITEM}', {EPOCH}, 1, 1, 1, 2, 0, 'zed', 'of-zed', 2, 'A|of-zed', now()),
           ('{ITEM}', {EPOCH}, {RAISED_AFTER + 1}, 2, {RAISED_AFTER + 1}, {RAISED_AFTER + 7}, 0,
            'user-{RAISED_AFTER % 1000}', 'raised', {RAISED_AFTER + 7}, 'M|raised', now())""",
    f"UPDATE items SET seq = {BIDS + 1}, current_bid = {BIDS + 8}, bid_count = {BIDS + 1} WHERE item_id = '{ITEM}'",
    "ANALYZE bids, sealed",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def long_history(http: httpx.AsyncClient, redis: Redis, gateway_stack: Stack) -> None:
    """The item as many bids have left it, in PostgreSQL and in Redis."""
    answer = await http.post("/api/v1/items", json={"id": ITEM, "name": ITEM})
    assert answer.status_code == 201, answer.text
    connection = await asyncpg.connect(gateway_stack.urls.postgres_url)
    try:
        await eventually(lambda: connection.fetchval("SELECT true FROM items WHERE item_id = $1", ITEM))
        for statement in FILL:
            await connection.execute(statement)
    finally:
        await connection.close()
    numbers = range(BIDS - ACCEPTED_KEPT + 1, BIDS + 1)
    log = [f"{n + 2}|{n + 1}|b-{n}|user-{n % 1000}|{n + 8}||b|{n + 8}|||010" for n in numbers]
    writes: Any = redis.rpush(accepted_key(ITEM), *log)
    await writes
    state: dict[Any, Any] = {
        "seq": BIDS + 1,
        "price": BIDS + 8,
        "leader": f"user-{BIDS % 1000}",
        "leader_max": BIDS + 8,
        "runner_up": BIDS + 7,
        "bid_count": BIDS + 1,
        "bids_counted": BIDS + 2,
        "accepted": BIDS + 2,
    }
    writes = redis.hset(item_key(ITEM), mapping=state)
    await writes


async def test_what_takes_too_long_is_given_up(redis: Redis, gateway_stack: Stack) -> None:
    """Nothing of it is left: the connection that read the history is the pool's again."""
    pool = await open_postgres(gateway_stack.urls.postgres_url, name="test", connections_max=1)
    try:
        archive = Archive(pool)
        voids = Voids(redis, ItemScripts(redis, ScriptLimits()), archive, count_within_s=0.5)
        with pytest.raises(Unavailable, match="too many bids"):
            await voids.strike(ITEM, "of-zed", reason="a mistake", by="olga")
        await archive.ping()
        assert pool.get_idle_size() == 1
    finally:
        pool.terminate()


async def test_a_line_that_breaks_while_a_history_is_read_is_said_so(gateway_stack: Stack) -> None:
    url = gateway_stack.urls.postgres_url
    pool = await open_postgres(url, name="reader", connections_max=1)
    killer = await asyncpg.connect(url)
    try:
        archive = Archive(pool)
        async with aclosing(archive.accepted_bids(ITEM, after=None)) as bids:
            await anext(bids)
            ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'reader'"
            assert await killer.fetchval(ended)
            await asyncio.sleep(0.1)
            with pytest.raises(Unavailable):
                await read_all(bids)
        await archive.ping()
    finally:
        await killer.close()
        pool.terminate()


async def read_all(bids: AsyncIterator[object]) -> None:
    async for _ in bids:
        pass


@pytest.mark.parametrize("query", PAGE_QUERIES)
async def test_a_page_is_read_along_an_index_and_not_sorted(gateway_stack: Stack, query: str) -> None:
    """So each row is read once, however many there are. With the plan that serves any arguments."""
    connection = await asyncpg.connect(gateway_stack.urls.postgres_url)
    try:
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        await connection.execute(f"PREPARE page AS {query}")
        arguments = ", ".join([f"'{ITEM}'", *("0" for number in range(2, 5) if f"${number}" in query)])
        rows = await connection.fetch(f"EXPLAIN EXECUTE page ({arguments})")
    finally:
        await connection.close()
    plan = "\n".join(row[0] for row in rows)
    # "Sort Key" alone stands where the parts are merged: all but the one of the item are left out.
    assert "Sort  (" not in plan, plan
    assert re.search(r"Index Cond: \(\(item_id = \$1\) AND \(ROW\(epoch, .*\) > ROW\(", plan), plan


async def test_a_void_of_an_item_with_very_many_bids_comes_through(
    http: httpx.AsyncClient,
) -> None:
    answer = await http.post(f"/api/v1/items/{ITEM}/bids/b-{BIDS}/void", json={"reason": "a mistake"}, timeout=WITHIN_S)
    assert answer.status_code == 200, answer.text
    after = answer.json()
    assert (round(after["current_bid"] * 100), after["bid_count"]) == (BIDS + 7, BIDS)
    assert after["highest_bidder_id"] == f"user-{(BIDS - 1) % 1000}"
