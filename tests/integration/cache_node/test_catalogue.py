"""The catalogue through a cache, with nodes and without: how many questions it asks, how old it may be, and what of it
is never taken from a cache."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2 as httpx
import pytest
import pytest_asyncio

from shared.archive_cache.reads import CATALOGUE_OLD_S
from tests.integration.cache_node.cache_world import PATIENT, tell
from tests.integration.cache_node.test_closed_items import Platform, platform_of
from tests.integration.eviction.eviction_world import sold
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

READERS = 200
_LIST = " AS place FROM ("
_STATES = "SELECT i.item_id, i.name, i.description, "


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform() -> AsyncIterator[Platform]:
    async with platform_of(PATIENT) as made:
        stack = made.auction.stack
        with (stack.data_dir / "postgres" / "postgresql.conf").open("a") as settings:
            settings.write("\nlog_statement = 'all'\n")
        stack.kill("postgres", signal.SIGHUP)

        async def logs() -> bool:
            return bool((await made.auction.house.query("SHOW log_statement"))[0]["log_statement"] == "all")

        await eventually(logs)
        yield made


async def listed(gateway: httpx.AsyncClient, **filters: str) -> list[dict[str, Any]]:
    answer = await gateway.get("/api/v1/items", params={"limit": "200"} | filters)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def log_of(platform: Platform, mark: str) -> str:
    """What PostgreSQL was asked so far."""
    await platform.auction.house.query(f"SELECT 'mark {mark}' AS mark")
    path = platform.auction.stack.log_path("postgres")

    async def text() -> str | None:
        log = path.read_text(errors="replace")
        return log if f"'mark {mark}'" in log else None

    return await eventually(text)


async def test_two_hundred_readers_of_a_page_are_a_few_questions(platform: Platform) -> None:
    closed = [f"crowd-{number}" for number in range(12)]
    for item_id in closed:
        await sold(platform.auction.house, item_id)
    await platform.auction.exported(*closed)
    await platform.left(*closed[:8])
    for number, gateway in enumerate(platform.gateways):
        await asyncio.sleep(CATALOGUE_OLD_S)  # nothing is kept of the page
        before = await log_of(platform, f"before {number}")
        began_s = time.monotonic()
        pages = await asyncio.gather(*(listed(gateway, status="sold") for _ in range(READERS)))
        took_s = time.monotonic() - began_s
        asked = (await log_of(platform, f"after {number}"))[len(before) :]
        assert all({item["id"] for item in page} >= set(closed) for page in pages)
        lists, states = asked.count(_LIST), asked.count(_STATES)
        tell(f"{READERS} readers of a page within {took_s:.2f} s: {lists} + {states} questions")
        assert 1 <= lists <= 2 + took_s / (CATALOGUE_OLD_S / 3)
        # A gateway's own cache asks for all eight at once; nodes ask for each by itself.
        assert 1 <= states <= (len(closed) if number == 0 else 3)


async def test_a_page_that_follows_a_cursor_is_shared_and_not_kept(platform: Platform) -> None:
    for item_id in ("next-1", "next-2", "next-3"):
        await sold(platform.auction.house, item_id)
    await platform.auction.exported("next-1", "next-2", "next-3")
    for number, gateway in enumerate(platform.gateways):
        first = (await gateway.get("/api/v1/items", params={"limit": "1", "sort": "newest"})).json()
        params = {"limit": "2", "sort": "newest", "cursor": first["next_cursor"]}
        before = await log_of(platform, f"before cursor {number}")
        for _ in range(5):
            page = (await gateway.get("/api/v1/items", params=params)).json()
            assert [item["id"] for item in page["items"]] == ["next-2", "next-1"]
        asked = (await log_of(platform, f"after cursor {number}"))[len(before) :]
        assert asked.count(_LIST) == 5
        answer = await gateway.get("/api/v1/items", params=params | {"sort": "price"})
        assert (answer.status_code, answer.json()["code"]) == (422, "INVALID")


async def test_an_item_that_closes_is_listed_within_a_second_after_it_is_archived(platform: Platform) -> None:
    item_id = "closing"
    told: list[tuple[float, bool]] = []
    go_on = True

    async def look(gateway: httpx.AsyncClient) -> None:
        while go_on:
            began_s = time.monotonic()
            told.append((began_s, item_id in [item["id"] for item in await listed(gateway, status="sold")]))
            await asyncio.sleep(0.01)

    looking = [asyncio.create_task(look(gateway)) for gateway in platform.gateways for _ in range(3)]
    try:
        await sold(platform.auction.house, item_id)

        async def is_archived() -> bool:
            rows = await platform.auction.house.query("SELECT status FROM items WHERE item_id = $1", item_id)
            return bool(rows) and rows[0]["status"] == "sold"

        await eventually(is_archived)
        archived_s = time.monotonic()
        await asyncio.sleep(1.5)
    finally:
        go_on = False
        await asyncio.gather(*looking)
    late = [was_listed for began_s, was_listed in told if began_s > archived_s + CATALOGUE_OLD_S]
    assert late
    assert all(late)
    last_s = max((began_s for began_s, was_listed in told if not was_listed), default=archived_s)
    tell(f"who asked {last_s - archived_s:.2f} s after an item was archived was the last one who was not told of it")


async def test_what_is_shown_of_an_item_is_never_older_than_the_page(platform: Platform) -> None:
    """The page may be an old one. A live price, and what a void has changed, come from Redis each time."""
    house = platform.auction.house
    await house.create("rising", increment={"kind": "flat", "value": 1})
    await sold(house, "regretted")
    await platform.auction.exported("regretted")
    await platform.left("regretted")

    async def both_listed() -> bool:
        pages = [await listed(gateway) for gateway in platform.gateways]
        return all({"rising", "regretted"} <= {item["id"] for item in page} for page in pages)

    await eventually(both_listed)

    async def shown(gateway: httpx.AsyncClient, item_id: str) -> dict[str, Any]:
        return next(item for item in await listed(gateway) if item["id"] == item_id)

    for amount in range(1, 21):
        await house.accepted("rising", f"user-{amount % 2}", f"rising-{amount}", amount=amount)
        for gateway in platform.gateways:
            assert (await shown(gateway, "rising"))["current_bid"] == amount
    for gateway in platform.gateways:
        assert (await shown(gateway, "regretted"))["status"] == "sold"
    await platform.void("regretted", "regretted-ann")
    for gateway in platform.gateways:
        assert (await platform.read(gateway, "regretted")).json()["status"] == "unsold"
        assert (await shown(gateway, "regretted"))["status"] == "unsold"
