"""Two runs of `recover`: the first is suspended while PostgreSQL restarts, and its lock is gone. It writes no more."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import psutil
import pytest
from redis.exceptions import OutOfMemoryError

from archival_worker.errors import RecoveryOvertaken, ShardChanged
from archival_worker.recovery.claims import Claim, ClaimedWrites, Run
from archival_worker.store.queries import load_queries
from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from shared import names
from shared.clients.redis import open_redis
from shared.permissions.accounts import Account
from shared.redis_layout.keys import (
    cursors_key,
    deadlines_key,
    item_key,
    lost_key,
    proxies_key,
    rebuilding_key,
    recent_key,
    verdicts_key,
)
from tests.integration.archive.archive_world import World
from tests.integration.loss.recover_world import House, house_of
from tests.programs import started
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.integration

ITEMS = [f"lot-{number}" for number in range(8)]


@asynccontextmanager
async def suspended_run(house: House, place: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The process that does the work of `bidding recover`, standing still at the place."""
    command = (sys.executable, "-P", "-m", "archival_worker", "recover", "--settle-s", "0")
    async with started(*command, env={**house.stack.env_of(Account.OPERATOR), "STOP_AT": place}) as child:

        async def stands_still() -> bool:
            if child.returncode is not None:
                output, _ = await child.communicate()
                pytest.fail(output.decode())
            return psutil.Process(child.pid).status() == psutil.STATUS_STOPPED

        await eventually(stands_still, seconds=60)
        yield child


async def everything(house: House) -> dict[bytes, Any]:
    """Every key but those that a gateway renews, field by field."""
    found: dict[bytes, Any] = {}
    redis = cast(Any, house.redis)
    async for key in redis.scan_iter("*", count=1_000):
        if not key.endswith(b":lease"):
            found[key] = await redis.dump(key)
    return found


async def settled(house: House) -> dict[bytes, Any]:
    """The same, once nothing changes by itself any more: a gateway marks the cursors of what was rebuilt, and the
    archiver moves them."""
    redis, found = cast(Any, house.redis), await everything(house)

    async def is_still() -> bool:
        nonlocal found
        await asyncio.sleep(1)
        last, found = found, await everything(house)
        marks = [await redis.hget(cursors_key(shard), "run") for shard in names.SHARDS]
        return None not in marks and found == last

    await eventually(is_still, seconds=60)
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("place", ["recover.begun:3", "recover.writing:1", "recover.opening:2"])
async def test_the_first_stops_and_what_the_second_wrote_stands(start_stack: StackFactory, place: str) -> None:
    async with house_of(await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER))) as house:
        for item in ITEMS:
            await house.accepted(item, "ann", f"{item}-1", amount=1, max_amount=5)
        await house.all_archived()
        await house.lose_redis()
        async with suspended_run(house, place) as first:
            await house.stack.restart("postgres")
            code, told = await house.recover()
            assert code == 0, told
            for item in ITEMS:
                await house.accepted(item, "bob", f"{item}-2", amount=9)
            await house.all_archived()
            before, recoveries = await settled(house), await house.query("SELECT * FROM recoveries ORDER BY 1, 2")

            first.send_signal(signal.SIGCONT)
            output, _ = await asyncio.wait_for(first.communicate(), 60)
            assert first.returncode == 1, output.decode()
            assert b"another run of `recover`" in output or b"keeps other runs out is gone" in output, output.decode()
        after = await everything(house)
        assert after.keys() == before.keys()
        assert [key for key in before if after[key] != before[key]] == []
        again = await house.query("SELECT * FROM recoveries ORDER BY 1, 2")
        assert again == recoveries, "no epoch was given out, and none is said to be done by another"
        for item in ITEMS:
            assert (await house.accepted(item, "cyd", f"{item}-3", amount=10))["is_highest"] is True
        await house.all_archived()
        assert await house.query("SELECT * FROM dead_letters") == []


SHARD = names.shard_of("lot-1")


class Held:
    """A connection that would hold the lock, of which only numbers are asked."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = list(numbers)

    async def fetchval(self, query: str) -> int:
        assert "recovery_runs" in query
        return self._numbers.pop(0)


async def test_a_claim_is_taken_over_by_later_runs_only(world: World) -> None:
    redis = open_redis(world.stack.urls.redis_url)
    sql, held = load_queries(), Held(1, 2, 1)
    first, second = [await Run.begin(redis, cast(Any, None), held, sql) for _ in range(2)]
    key = item_key("lot-1")

    def write(run: Run, value: str) -> ClaimedWrites:
        writes = run.writes(SHARD)
        writes.hset(key, mapping={"price": value})
        return writes

    def write_verdict(run: Run) -> ClaimedWrites:
        writes = run.writes(SHARD)
        writes.put(verdicts_key("lot-1"), ("b:late",), b"of a run that is over")
        return writes

    with pytest.raises(RecoveryOvertaken):
        await write(first, "unclaimed").execute()
    assert await first.claim(SHARD) is Claim.CLAIMED
    assert await first.claim(SHARD) is Claim.CLAIMED, "a claim may be repeated"
    await write(first, "1").execute()
    assert await second.claim(SHARD) is Claim.TAKEN_OVER
    for attempt in (
        write(first, "2").execute,
        write_verdict(first).execute,
        lambda: first.claim(SHARD),
        lambda: first.open(SHARD, 2),
    ):
        with pytest.raises(RecoveryOvertaken, match=SHARD):
            await attempt()
    assert not await redis.hexists(verdicts_key("lot-1"), "b:late")
    assert await cast(Any, redis).hget(key, "price") == b"1"
    assert not await redis.exists(cursors_key(SHARD))

    # PostgreSQL was put back, and counts anew: whoever holds the lock is the later one all the same.
    third = await Run.begin(redis, cast(Any, None), held, sql)
    assert await third.claim(SHARD) is Claim.TAKEN_OVER
    with pytest.raises(RecoveryOvertaken):
        await second.open(SHARD, 3)
    await cast(Any, redis).sadd(lost_key(SHARD), "lot-1")
    await third.open(SHARD, 4)
    assert await cast(Any, redis).hget(cursors_key(SHARD), "epoch") == b"4"
    assert not await redis.exists(rebuilding_key(SHARD), lost_key(SHARD))
    with pytest.raises(RecoveryOvertaken):
        await third.open(SHARD, 5)
    with pytest.raises(RecoveryOvertaken):
        await write(third, "3").execute()
    assert await third.claim(SHARD) is Claim.IS_OPEN, "it lives"
    await redis.aclose()


async def test_of_two_runs_with_one_number_the_second_takes_nothing_over(world: World) -> None:
    """PostgreSQL was put back while the first was at work, and nobody can tell which of them is the later one."""
    async with open_redis(world.stack.urls.redis_url) as redis:
        first, second = [Run(redis, cast(Any, None), cast(Any, None), 7) for _ in range(2)]
        assert await first.claim(SHARD) is Claim.CLAIMED
        with pytest.raises(RecoveryOvertaken):
            await second.claim(SHARD)
        await first.open(SHARD, 2)


async def test_a_shard_that_was_closed_since_its_outbox_was_archived_is_not_claimed(world: World) -> None:
    """A gateway may close it right before the claim. The run would drop an outbox that it has not archived."""
    redis = open_redis(world.stack.urls.redis_url)
    run = await Run.begin(redis, cast(Any, None), Held(1), load_queries())
    await cast(Any, redis).hset(cursors_key(SHARD), "stale", "3")
    for known in (None, 2):
        with pytest.raises(ShardChanged):
            await run.claim(SHARD, stale=known)
    assert not await redis.exists(rebuilding_key(SHARD))
    assert await run.claim(SHARD, stale=3)
    await redis.aclose()


async def test_a_shard_is_rebuilt_while_redis_is_full(world: World) -> None:
    """One that is closed frees what it has only once it is claimed, and takes no more than that afterwards."""
    redis = open_redis(world.stack.urls.redis_url)
    key, verdicts = item_key("lot-1"), verdicts_key("lot-1")
    await redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(OutOfMemoryError):
            await redis.set("anything", "1")
        run = await Run.begin(redis, cast(Any, None), Held(1), load_queries())
        assert await run.claim(SHARD)
        writes = run.writes(SHARD)
        writes.hset(key, mapping={"price": "1"})
        await writes.execute()
        writes.put(verdicts, ("b:id",), b"ann")
        await writes.execute()
        await run.open(SHARD, 2)
    finally:
        await redis.config_set("maxmemory", "0")
    again = cast(Any, redis)
    assert (await again.hget(key, "price"), await again.hget(verdicts, "b:id")) == (b"1", b"ann")
    assert await again.hget(cursors_key(SHARD), "epoch") == b"2"
    await redis.aclose()


async def test_writes_of_any_size_arrive_in_order(world: World) -> None:
    """An item may have tens of thousands of bidders; Lua cannot unpack that many at once."""
    redis = open_redis(world.stack.urls.redis_url)
    run = await Run.begin(redis, cast(Any, None), Held(1), load_queries())
    assert await run.claim(SHARD)
    writes, values = run.writes(SHARD), [str(number) for number in range(30_001)]
    hash_key, list_key, verdicts = proxies_key("lot-1"), recent_key("lot-1"), verdicts_key("lot-1")
    writes.hset(hash_key, mapping=dict.fromkeys(values, 7))
    writes.rpush(list_key, *values)
    writes.zadd(deadlines_key(SHARD), {value: int(value) for value in values})
    for user in ("ann", "bob"):
        writes.put(verdicts, ("h:k", f"u:{user}|k"), user.encode())
    for user in ("ann", "bob"):
        writes.put(verdicts, ("b:id",), user.encode())
    writes.expire_at(verdicts, 4_000_000_000_000)
    await writes.execute()
    again = cast(Any, redis)
    assert await again.hlen(hash_key) == len(values)
    assert await again.lrange(list_key, 0, -1) == [value.encode() for value in values]
    assert await again.zcard(deadlines_key(SHARD)) == len(values)
    # Each in the first of its fields that is free; where none is, the first one stays.
    assert await again.hgetall(verdicts) == {b"h:k": b"ann", b"u:bob|k": b"bob", b"b:id": b"ann"}
    assert await again.pttl(verdicts) > 0
    writes.delete(hash_key, list_key)
    writes.forget()
    await writes.execute()
    assert await again.exists(hash_key, list_key) == 2
    writes.delete(hash_key)
    writes.unlink(list_key)
    await writes.execute()
    assert await again.exists(hash_key, list_key) == 0
    await redis.aclose()
