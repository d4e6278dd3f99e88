"""What somebody who is signed in finds again on every device: what they watch, have bid on, and sell."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx2 as httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from api_gateway.own.errors import WatchListFull, WatchListsFull
from api_gateway.own.watch_lists import LIST_ITEMS_MAX, WatchLists
from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from infrastructure.local.signing_key import signing_key
from infrastructure.local.stack import Stack
from shared.archive_reads.asking import Asking
from shared.identity.tokens import Role
from shared.names import shard_of
from tests.integration.gateway.identity.access_world import ITEMS, Callers
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

LIST = "/api/v1/me/watch-list"
LONG_OVER = "UPDATE items SET status = 'cancelled', updated_at = now() - interval '31 days'"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack() -> AsyncIterator[Stack]:
    factory = StackFactory()
    try:
        yield await factory(services=(API_GATEWAY, ARCHIVAL_WORKER), env={"AUTH_MODE": "jwt"})
    finally:
        await factory.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def callers(stack: Stack) -> AsyncIterator[Callers]:
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=30) as http:
        yield Callers(http, signing_key(stack.data_dir))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(stack: Stack) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(stack.urls.postgres_url, min_size=0, max_size=8) as pool:
        yield pool


def somebody() -> str:
    return f"user-{secrets.token_hex(6)}"


async def watched(callers: Callers, user: str, role: Role = Role.BIDDER) -> list[str]:
    answer = await callers.call(user, role, "GET", LIST)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store"), answer.text
    return [each["item_id"] for each in answer.json()["items"]]


async def pages(callers: Callers, user: str, role: Role, path: str, id_name: str, limit: int, **more: str) -> list[str]:
    """All of a list, page by page."""
    found: list[str] = []
    params: dict[str, Any] = {"limit": limit, **more}
    while True:
        answer = await callers.call(user, role, "GET", path, params=params)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert len(told["items"]) <= limit
        found += [each[id_name] for each in told["items"]]
        if told["next_cursor"] is None:
            return found
        params["cursor"] = told["next_cursor"]


async def test_a_list_belongs_to_one_person_and_to_nobody_else(callers: Callers) -> None:
    first, second = await callers.item(), await callers.item()
    bea, eve = somebody(), somebody()
    for item in (first, second, first):
        told = await callers.call(bea, Role.BIDDER, "PUT", f"{LIST}/{item}")
        assert (told.status_code, told.json()) == (200, {"item_id": item, "watched": True})
    # On another device, and with another role: it is the same person.
    assert await watched(callers, bea) == await watched(callers, bea, Role.SELLER) == [second, first]
    assert await watched(callers, eve) == []
    # Nobody takes anything off the list of another.
    for item in (first, second):
        assert (await callers.call(eve, Role.BIDDER, "DELETE", f"{LIST}/{item}")).json()["watched"] is False
    assert await watched(callers, bea) == [second, first]
    for _ in range(2):
        assert (await callers.call(bea, Role.BIDDER, "DELETE", f"{LIST}/{second}")).status_code == 200
    assert await watched(callers, bea) == [first]
    missing = await callers.call(bea, Role.BIDDER, "PUT", f"{LIST}/never-made")
    malformed = await callers.call(bea, Role.BIDDER, "PUT", f"{LIST}/no%20id")
    assert [(each.status_code, each.json()["code"]) for each in (missing, malformed)] == [
        (404, "ITEM_NOT_FOUND"),
        (422, "INVALID"),
    ]
    # A page of another site has no token to send, and a form cannot send PUT; said so anyway.
    foreign = {"origin": "https://elsewhere.example"}
    refused = await callers.call(bea, Role.BIDDER, "DELETE", f"{LIST}/{first}", headers=foreign)
    assert (refused.status_code, refused.json()["code"]) == (403, "ORIGIN_NOT_ALLOWED")
    assert await watched(callers, bea) == [first]


async def test_a_full_list_takes_no_more(callers: Callers, pool: asyncpg.Pool) -> None:
    item, bea = await callers.item(), somebody()
    await pool.execute(
        "INSERT INTO watched (user_id, item_id, part)"
        " SELECT $1, 'lot-' || n, $2 FROM generate_series(1, $3::integer) AS n",
        *(bea, part_of(bea), LIST_ITEMS_MAX),
    )
    await pool.execute("UPDATE watch_parts SET items = items + $2 WHERE part = $1", part_of(bea), LIST_ITEMS_MAX)
    full = await callers.call(bea, Role.BIDDER, "PUT", f"{LIST}/{item}")
    assert (full.status_code, full.json()["code"]) == (409, "WATCH_LIST_FULL")
    assert "500" in full.json()["detail"]
    assert (await callers.call(bea, Role.BIDDER, "DELETE", f"{LIST}/lot-7")).status_code == 200
    assert (await callers.call(bea, Role.BIDDER, "PUT", f"{LIST}/{item}")).status_code == 200
    # What the platform does not know is on the list, too, and does no harm.
    assert (await watched(callers, bea))[0] == item
    assert len(await watched(callers, bea)) == LIST_ITEMS_MAX


def part_of(user: str) -> int:
    return int(shard_of(user)[1:])


@asynccontextmanager
async def counted(pool: asyncpg.Pool) -> AsyncIterator[None]:
    """Afterwards each part counts the rows that it has."""
    yield
    wrong = await pool.fetch(
        "SELECT part, items, count(user_id) AS rows FROM watch_parts LEFT JOIN watched USING (part)"
        " GROUP BY part, items HAVING items <> count(user_id)"
    )
    assert [tuple(row) for row in wrong] == []


async def test_bounds_hold_however_many_add_at_once(pool: asyncpg.Pool) -> None:
    user = somebody()
    others = [other for other in (somebody() for _ in range(2_000)) if part_of(other) == part_of(user)][:4]
    async with counted(pool):
        used = await pool.fetchval("SELECT items FROM watch_parts WHERE part = $1", part_of(user))
        # As two gateways, each with turns of its own.
        gateways = [WatchLists(Asking(pool), list_items_max=3, part_items_max=used + 10) for _ in range(2)]
        adding = [gateways[n % 2].add(user, f"lot-{n // 2}") for n in range(12)]
        told = await asyncio.gather(*adding, return_exceptions=True)
        assert {type(each) for each in told} == {type(None), WatchListFull}
        assert await pool.fetchval("SELECT count(*) FROM watched WHERE user_id = $1", user) == 3
        adding = [gateways[n % 2].add(other, f"lot-{n}") for n in range(3) for other in others]
        told = await asyncio.gather(*adding, return_exceptions=True)
        assert {type(each) for each in told} == {type(None), WatchListsFull}
        assert await pool.fetchval("SELECT items FROM watch_parts WHERE part = $1", part_of(user)) == used + 10
        taking_off = [gateways[n % 2].remove(other, f"lot-{n}") for n in range(6) for other in (*others, user)]
        for start in range(0, len(taking_off), 6):
            await asyncio.gather(*taking_off[start : start + 6])
        assert await pool.fetchval("SELECT items FROM watch_parts WHERE part = $1", part_of(user)) == used


async def test_what_is_long_over_leaves_and_makes_room(callers: Callers, pool: asyncpg.Pool) -> None:
    items, user = [await callers.item() for _ in range(3)], somebody()
    await eventually(lambda: archived(pool, items), "the items are archived", seconds=60)
    lists = WatchLists(Asking(pool), list_items_max=2)
    async with counted(pool):
        for item in items[:2]:
            await lists.add(user, item)
        await callers.call("oda", Role.OPERATOR, "POST", f"{ITEMS}/{items[0]}/cancel", {"reason": "a test"})
        await eventually(lambda: archived(pool, items[:1], "cancelled"), "the end is archived", seconds=60)
        assert await watched(callers, user) == [items[1], items[0]], "it stays for a while"
        with pytest.raises(WatchListFull):
            await lists.add(user, items[2])
        await pool.execute(f"{LONG_OVER} WHERE item_id = $1", items[0])
        assert await watched(callers, user) == [items[1]]
        await lists.add(user, items[2])
        assert await watched(callers, user) == [items[2], items[1]]
        # The same where the part is full: by the lists of others, too.
        await pool.execute(
            "UPDATE items SET status = 'sold', updated_at = now() - interval '31 days' WHERE item_id = $1", items[1]
        )
        used = await pool.fetchval("SELECT items FROM watch_parts WHERE part = $1", part_of(user))
        await WatchLists(Asking(pool), part_items_max=used).add(user, items[0])
        rows = await pool.fetch("SELECT item_id FROM watched WHERE user_id = $1", user)
        assert {row["item_id"] for row in rows} == {items[2], items[0]}


async def archived(pool: asyncpg.Pool, items: list[str], status: str = "open") -> bool:
    found = await pool.fetchval("SELECT count(*) FROM items WHERE item_id = ANY ($1) AND status = $2", items, status)
    return bool(found == len(items))


async def test_on_what_somebody_has_bid(callers: Callers) -> None:
    bea, eve = somebody(), somebody()
    items = [await callers.item() for _ in range(5)]
    for item in items:
        await callers.bid(item, bea)
    await callers.bid(await callers.item(), eve)
    # A second bid makes no second entry.
    again = await callers.call(bea, Role.BIDDER, "POST", f"{ITEMS}/{items[0]}/bid", {"amount": 50})
    assert again.status_code == 201
    newest_first = items[::-1]

    async def listed() -> bool:
        return await pages(callers, bea, Role.BIDDER, "/api/v1/me/bids", "item_id", 2) == newest_first

    await eventually(listed, "five items, by the first bid", seconds=60)
    assert not set(items) & set(await pages(callers, eve, Role.BIDDER, "/api/v1/me/bids", "item_id", 2))
    for cursor in ("x", "WyJuZXdlc3QiLG51bGwsImEiXQ"):
        bad = await callers.call(bea, Role.BIDDER, "GET", "/api/v1/me/bids", params={"cursor": cursor})
        assert (bad.status_code, bad.json()["code"]) == (422, "INVALID")


async def test_a_seller_lists_what_they_sell(callers: Callers) -> None:
    sam, sue = somebody(), somebody()
    items = [await callers.item(sam) for _ in range(4)]
    of_sue = await callers.item(sue)
    await callers.bid(items[0])
    await callers.call(sam, Role.SELLER, "POST", f"{ITEMS}/{items[1]}/cancel", {"reason": "it broke"})
    path = f"/api/v1/sellers/{sam}/items"

    async def all_of_them() -> bool:
        return await pages(callers, sam, Role.SELLER, path, "id", 3) == items[::-1]

    await eventually(all_of_them, "four items, the newest first", seconds=60)
    for role in (Role.OPERATOR, Role.AUDITOR):
        assert await pages(callers, "oda", role, path, "id", 50) == items[::-1]

    async def cancelled() -> bool:
        return await pages(callers, sam, Role.SELLER, path, "id", 50, status="cancelled") == [items[1]]

    await eventually(cancelled, "the one that is withdrawn", seconds=60)
    told = (await callers.call(sam, Role.SELLER, "GET", path, params={"status": "open"})).json()["items"]
    # Each item comes with its live state.
    assert [(each["id"], each["bid_count"]) for each in told] == [(items[3], 0), (items[2], 0), (items[0], 1)]
    refused = await callers.call(sue, Role.SELLER, "GET", path)
    assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")
    assert await pages(callers, sue, Role.SELLER, f"/api/v1/sellers/{sue}/items", "id", 50) == [of_sue]


# It takes Redis away: the last one.
async def test_a_list_outlives_its_gateway_and_redis(callers: Callers, stack: Stack) -> None:
    item, bea = await callers.item(), somebody()
    assert (await callers.call(bea, Role.BIDDER, "PUT", f"{LIST}/{item}")).status_code == 200
    await stack.restart("api_gateway")
    assert await watched(callers, bea) == [item]
    async with Redis.from_url(stack.urls.redis_url) as redis:
        await redis.flushall()

    async def is_lost() -> bool:
        return (await callers.http.get(f"{ITEMS}/{item}")).status_code == 503

    await eventually(is_lost, "Redis has lost the item", seconds=60)
    assert await watched(callers, bea) == [item]
    assert (await callers.call(bea, Role.BIDDER, "DELETE", f"{LIST}/{item}")).status_code == 200
    assert await watched(callers, bea) == []
