"""Closed items out of PostgreSQL: the bytes that the gateway answers while Redis has them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import asyncpg
import pytest

from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from infrastructure.local.stack import Stack
from shared.archive_reads.asking import Asking
from shared.archive_reads.keys import KeyInvalid, catalogue_key, history_key, item_key, state_key
from shared.archive_reads.origin import ArchiveOrigin, decode_state
from shared.clients.postgres import open_postgres
from shared.domain.errors import InvalidInput, Unavailable
from shared.redis_layout.item_hash import decode_item
from shared.redis_layout.keys import item_key as hash_key
from tests.integration.loss.recover_world import House, house_of
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.integration

LADDER = {"kind": "ladder", "steps": [{"below": 100, "increment": 5}, {"increment": 10}]}
SOFT = {"trigger_s": 60, "extend_s": 120, "mode": "from_end", "max_count": 2}


@asynccontextmanager
async def origin_of(stack: Stack, *, connections_max: int = 2, **bounds: float) -> AsyncIterator[ArchiveOrigin]:
    pool = await open_postgres(stack.urls.postgres_url, name="test", connections_max=connections_max)
    try:
        yield ArchiveOrigin(Asking(pool, **bounds))  # type: ignore[arg-type]
    finally:
        pool.terminate()


async def closed_in_every_way(house: House) -> list[str]:
    """Items that ended in different ways, with different terms."""
    await house.create("plain", duration_s=2, description="line\n“two” \\", seller_id="sam")
    await house.accepted("plain", "ann", "plain-1", amount=1)
    await house.accepted("plain", "bob", "plain-2", max_amount=9)
    await house.accepted("plain", "ann", "plain-3", amount=2.5)

    await house.create("reserved", duration_s=2, start_price=10, reserve_price=300, increment=LADDER)
    await house.accepted("reserved", "ann", "reserved-1", amount=20)

    await house.create(
        "yen", currency="JPY", start_price=1, buy_now_price=500, increment={"kind": "percent", "value": 2.5}
    )
    await house.accepted("yen", "ann", "yen-1", amount=500)

    await house.create("extended", duration_s=60, soft_close=SOFT)
    await house.accepted("extended", "ann", "extended-1", amount=1)
    await house.operate("extended/pause")
    await house.operate("extended/resume")
    await house.accepted("extended", "bob", "extended-2", amount=2)
    await house.operate("extended/pause")
    await house.operate("extended/cancel")

    hard = {**SOFT, "hard_end": "2090-01-01T00:00:00Z"}
    await house.create("hard", end_time="2089-01-01T00:00:00Z", soft_close=hard)
    await house.operate("hard/pause")
    await house.operate("hard/resume")
    await house.operate("hard/cancel")

    await house.create("nobody", duration_s=2)
    await house.create("never", start_time="2090-01-01T00:00:00Z", duration_s=5)
    await house.operate("never/cancel")

    await house.create("struck", buy_now_price=50)
    await house.accepted("struck", "ann", "struck-1", amount=1)
    await house.create("struck-buy", buy_now_price=50)
    await house.accepted("struck-buy", "ann", "buy-1", amount=50)
    await house.operate("struck-buy/bids/buy-1/void")
    await house.operate("struck/cancel")
    return ["plain", "reserved", "yen", "extended", "hard", "nobody", "never", "struck", "struck-buy"]


async def all_closed(house: House, item_ids: list[str]) -> bool:
    statuses = [(await house.item(item_id))["status"] for item_id in item_ids]
    return set(statuses) <= {"sold", "unsold", "cancelled"}


async def test_the_archive_answers_with_the_bytes_of_the_gateway(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER))
    async with house_of(stack) as house, origin_of(stack) as origin:
        items = await closed_in_every_way(house)
        await eventually(lambda: all_closed(house, items))
        await house.all_archived()

        async def is_complete() -> bool:
            return all([await origin.get(item_key(item_id)) for item_id in items])

        await eventually(is_complete)
        await assert_same(house, origin, items)

        # Rebuilt, closed items have the new epoch of their shard, and no new event.
        await house.lose_redis()
        code, output = await house.recover()
        assert code == 0, output
        await eventually(house.is_ready)
        assert (await house.item("plain"))["epoch"] == 2
        await assert_same(house, origin, items)


async def assert_same(house: House, origin: ArchiveOrigin, items: list[str]) -> None:
    for item_id in items:
        path = f"/api/v1/items/{item_id}"
        assert await origin.get(item_key(item_id)) == (await house.http.get(path)).content
        assert await origin.get(history_key(item_id)) == (await house.http.get(f"{path}/bids")).content
        page = await house.http.get(f"{path}/bids", params={"limit": 1})
        assert await origin.get(history_key(item_id, limit=1)) == page.content
        if cursor := page.json()["next_cursor"]:
            page = await house.http.get(f"{path}/bids", params={"limit": 1, "cursor": cursor})
            assert await origin.get(history_key(item_id, limit=1, cursor=cursor)) == page.content
        state = await origin.get(state_key(item_id))
        assert state is not None
        in_redis = decode_item(await cast(Any, house.redis.hgetall(hash_key(item_id))))
        found = decode_state(state)
        assert (found.version, found.state.extensions, found.state.hard_end_us, found.min_next_bid) == (
            in_redis.version,
            in_redis.state.extensions,
            in_redis.state.hard_end_us,
            in_redis.min_next_bid,
        )
        assert found.terms.reserve_price in (None, max(found.terms.start_price, 1)), "the reserve is hidden"
        assert (found.state.leader_max, found.state.runner_up) == (0, 0), "maxima are hidden"


async def test_what_is_not_closed_is_not_answered(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER))
    async with house_of(stack) as house, origin_of(stack) as origin:
        await house.create("open")
        await house.accepted("open", "ann", "one", amount=1)
        await house.create("paused")
        await house.operate("paused/pause")
        await house.all_archived()
        for item_id in ("open", "paused", "unknown"):
            for key in (item_key(item_id), state_key(item_id), history_key(item_id)):
                assert await origin.get(key) is None, key

        page = await origin.get(catalogue_key(sort="newest", status=None, limit=1))
        listed = (await house.http.get("/api/v1/items", params={"limit": 1})).json()
        assert page is not None
        assert page.decode() == f'{{"ids":["{listed["items"][0]["id"]}"],"next_cursor":"{listed["next_cursor"]}"}}'
        rest = await origin.get(catalogue_key(sort="newest", status=None, limit=9, cursor=listed["next_cursor"]))
        assert rest == b'{"ids":["open"],"next_cursor":null}'
        assert (
            await origin.get(catalogue_key(sort="ending", status="sold", limit=9)) == b'{"ids":[],"next_cursor":null}'
        )
        with pytest.raises(InvalidInput, match="cursor"):
            await origin.get(catalogue_key(sort="newest", status=None, limit=1, cursor="1:2"))
        with pytest.raises(InvalidInput, match="cursor"):
            await origin.get(history_key("open", cursor="abc"))
        with pytest.raises(KeyInvalid):
            await origin.get("items/open/sealed")


async def test_questions_are_bounded_in_number_and_in_time(postgres_url: str, servers: Stack) -> None:
    async with origin_of(servers, connections_max=1, timeout_s=1.0, questions_max=3) as origin:
        blocker = await asyncpg.connect(postgres_url)
        try:
            async with blocker.transaction():
                await blocker.execute("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
                asked = [asyncio.create_task(origin.get("items/a")) for _ in range(5)]
                outcomes = await asyncio.gather(*asked, return_exceptions=True)
        finally:
            await blocker.close()
        told = [str(outcome) for outcome in outcomes if isinstance(outcome, Unavailable)]
        assert sorted(told) == [
            *["the archive does not answer in time"] * 3,
            *["too many questions to the archive are under way; try again"] * 2,
        ]
        assert await origin.get("items/a") is None, "it answers again"
