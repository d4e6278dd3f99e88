"""What is due, asked of many shards at once on a real Redis."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from api_gateway.engine.closer import Closer
from api_gateway.engine.item_scripts import ItemScripts, ScriptLimits
from api_gateway.engine.rulings.scripts import RulingScripts
from shared.domain.errors import BiddingError
from shared.redis_layout.keys import deadlines_key, spreading_key

pytestmark = pytest.mark.integration

LONG_AGO_US, FAR_AHEAD_US = 1_000_000, 9_000_000_000_000_000


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url, protocol=2) as client:
        yield client


@pytest.fixture
def scripts(redis: Redis) -> ItemScripts:
    return ItemScripts(redis, ScriptLimits())


@pytest.fixture
def shards() -> list[str]:
    """As many as there are, and none of these, so that nobody else touches them."""
    mark = secrets.token_hex(4)
    return [f"x{mark}-{number}" for number in range(64)]


async def test_only_shards_that_have_something_due_are_told_of(
    redis: Redis, scripts: ItemScripts, shards: list[str]
) -> None:
    await redis.script_flush()
    assert await scripts.due(shards, count=9) == {}
    for shard in shards[::2]:
        await redis.zadd(deadlines_key(shard), {"later": FAR_AHEAD_US})
    due = {shards[0]: ["a", "b"], shards[30]: ["c"], shards[63]: ["d", "e", "f"]}
    for shard, item_ids in due.items():
        # The earliest is added last.
        times = {item_id: LONG_AGO_US + place for place, item_id in reversed(list(enumerate(item_ids)))}
        await redis.zadd(deadlines_key(shard), times)
    assert await scripts.due(shards, count=9) == due


async def test_of_a_shard_no_more_are_told_than_asked_for(
    redis: Redis, scripts: ItemScripts, shards: list[str]
) -> None:
    for shard in shards[:2]:
        await redis.zadd(deadlines_key(shard), {f"item-{n}": LONG_AGO_US + n for n in range(5)})
    assert await scripts.due(shards, count=3) == {shard: ["item-0", "item-1", "item-2"] for shard in shards[:2]}


async def test_more_shards_than_one_command_takes_are_told_of_by_their_names(
    redis: Redis, scripts: ItemScripts, shards: list[str]
) -> None:
    many = [*shards, *(f"{shard}-more" for shard in shards)]
    for shard in (many[5], many[64], many[127]):
        await redis.zadd(deadlines_key(shard), {shard: LONG_AGO_US})
    assert await scripts.due(many, count=9) == {shard: [shard] for shard in (many[5], many[64], many[127])}


async def test_what_is_due_is_due_by_the_clock_of_redis(redis: Redis, scripts: ItemScripts, shards: list[str]) -> None:
    seconds, micros = await redis.time()
    now_us = int(seconds) * 1_000_000 + int(micros)
    await redis.zadd(deadlines_key(shards[0]), {"now": now_us, "soon": now_us + 3_600_000_000})
    assert await scripts.due(shards[:1], count=9) == {shards[0]: ["now"]}


async def test_a_shard_whose_deadlines_are_something_else_fails_alone(
    redis: Redis, scripts: ItemScripts, shards: list[str]
) -> None:
    await redis.set(deadlines_key(shards[0]), "no set")
    await redis.zadd(deadlines_key(shards[1]), {"sound": LONG_AGO_US})
    await redis.set(deadlines_key(shards[63]), "no set")
    found: dict[str, Any] = await scripts.due(shards, count=9)
    assert found.keys() == {shards[0], shards[1], shards[63]}
    assert found[shards[1]] == ["sound"]
    for shard in (shards[0], shards[63]):
        assert isinstance(found[shard], ResponseError)
        assert "WRONGTYPE" in str(found[shard])


async def test_a_deadline_of_no_item_holds_up_no_other_one(
    redis: Redis, scripts: ItemScripts, shards: list[str]
) -> None:
    deadlines: dict[Any, Any] = {b"\xff\xfe": LONG_AGO_US, "sound": LONG_AGO_US + 1}
    await redis.zadd(deadlines_key(shards[0]), deadlines)
    due = await scripts.due(shards[:1], count=9)
    assert due == {shards[0]: ["\\xff\\xfe", "sound"]}
    (answer,) = await scripts.advance(["\\xff\\xfe"])
    assert isinstance(answer, BiddingError), "it is told of, and no item is touched"


async def test_rulings_to_be_spread_are_found_beside_a_shard_that_fails(redis: Redis, shards: list[str]) -> None:
    await redis.set(spreading_key(shards[0]), "no set")
    await redis.zadd(spreading_key(shards[1]), {"ruling": LONG_AGO_US, "later": FAR_AHEAD_US})
    found = await RulingScripts(redis, ScriptLimits()).pending(shards, count=9)
    assert [(shard, [one.field for one in pending]) for shard, pending in found.items()] == [(shards[1], ["ruling"])]


async def test_a_ruling_to_be_spread_that_is_no_text_holds_up_no_other_one(redis: Redis, shards: list[str]) -> None:
    members: dict[Any, Any] = {b"\xff\xfe": LONG_AGO_US, "ruling": LONG_AGO_US + 1}
    await redis.zadd(spreading_key(shards[0]), members)
    found = await RulingScripts(redis, ScriptLimits()).pending(shards, count=9)
    assert [(one.field, one.value) for one in found[shards[0]]] == [("\\xff\\xfe", None), ("ruling", None)]


async def test_an_idle_closer_finds_what_becomes_due_within_its_interval(
    redis: Redis, scripts: ItemScripts, shards: list[str]
) -> None:
    """Nobody has the item, so it is found by being counted as one that cannot be closed."""
    closer = Closer(scripts, owned_shards=lambda: shards, on_outbox=lambda _: None)
    task = asyncio.create_task(closer.run())
    try:
        await asyncio.sleep(0.3)
        seconds, micros = await redis.time()
        due_us = int(seconds) * 1_000_000 + int(micros) + 300_000
        due_s = time.monotonic() + 0.3
        await redis.zadd(deadlines_key(shards[40]), {"nobody-s": due_us})
        while not closer.stuck:
            await asyncio.sleep(0.005)
            assert time.monotonic() < due_s + 10
        # 100 ms, and what a busy machine adds.
        assert -0.05 < time.monotonic() - due_s < 2
    finally:
        task.cancel()
        await asyncio.wait([task])
