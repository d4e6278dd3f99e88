"""What a gateway asks about all shards again and again, on a real Redis."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, cast

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from api_gateway.engine.loss.servers import read_servers
from api_gateway.engine.relay.shard_scripts import ShardScripts
from shared import names
from shared.redis_layout.cursors import Lineage
from shared.redis_layout.keys import cursors_key, lease_key, lost_key
from tests.stack import StackFactory

pytestmark = pytest.mark.integration

OURS = Lineage("run-1", 1)
LEASE_MS = 6_000


@pytest_asyncio.fixture
async def shards(redis: Redis) -> list[str]:
    """As many as there are, and none of these: each of OURS, with all of its 7 entries published as message 70."""
    mark = secrets.token_hex(4)
    shards = [f"x{mark}-{number}" for number in range(64)]
    for shard in shards:
        await change(redis, shard, epoch="1", run="run-1", next="7", published="7", stream_id="one", stream_seq="70")
    return shards


async def change(redis: Redis, shard: str, **fields: str) -> None:
    await cast(Any, redis.hset(cursors_key(shard), mapping=cast(Mapping[Any, Any], fields)))


async def test_shards_that_are_as_the_relay_knows_them_are_no_news(
    redis: Redis, scripts: ShardScripts, shards: list[str]
) -> None:
    await redis.script_flush()
    known = dict.fromkeys(shards, (OURS, 7))
    assert await scripts.news({}) == set()
    assert await scripts.news(known) == set()


@pytest.mark.parametrize(
    "fields", [{"next": "8"}, {"epoch": "2"}, {"run": "run-2"}, {"next": "6"}], ids=["entry", "epoch", "run", "fewer"]
)
async def test_another_entry_or_lineage_is_news(
    redis: Redis, scripts: ShardScripts, shards: list[str], fields: dict[str, str]
) -> None:
    for shard in (shards[0], shards[63]):
        await change(redis, shard, **fields)
    assert await scripts.news(dict.fromkeys(shards, (OURS, 7))) == {shards[0], shards[63]}


async def test_a_shard_that_is_lost_or_fails_is_news_and_the_others_are_not(
    redis: Redis, scripts: ShardScripts, shards: list[str]
) -> None:
    await redis.delete(cursors_key(shards[1]), cursors_key(shards[2]))
    await redis.set(cursors_key(shards[2]), "no hash")
    await cast(Any, redis.hdel(cursors_key(shards[3]), "epoch"))
    assert await scripts.news(dict.fromkeys(shards, (OURS, 7))) == {*shards[1:4]}


async def test_a_run_that_was_never_marked_is_known_as_such(
    redis: Redis, scripts: ShardScripts, shards: list[str]
) -> None:
    await cast(Any, redis.hdel(cursors_key(shards[0]), "run"))
    assert await scripts.news({shards[0]: (Lineage("", 1), 7), shards[1]: (Lineage("", 1), 7)}) == {shards[1]}


@pytest.mark.parametrize(
    ("fields", "is_found"),
    [
        ({}, False),
        ({"stream_id": "", "stream_seq": "0"}, False),
        ({"stream_id": "two"}, True),
        ({"stream_seq": "71"}, True),
        ({"stream_seq": "9"}, False),
        ({"republish": "1"}, True),
    ],
)
async def test_what_the_stream_lacks_is_found(
    redis: Redis, scripts: ShardScripts, shards: list[str], fields: dict[str, str], is_found: bool
) -> None:
    await change(redis, shards[5], **({"stream_seq": "70"} | fields))
    await redis.delete(cursors_key(shards[6]))
    found = await scripts.find_unpublished(shards, stream_id="one", last_seq=70)
    assert found == ({shards[5]} if is_found else set())


async def test_a_shard_that_fails_is_no_shard_of_which_the_stream_has_all(
    redis: Redis, scripts: ShardScripts, shards: list[str]
) -> None:
    await redis.delete(cursors_key(shards[5]))
    await redis.set(cursors_key(shards[5]), "no hash")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await scripts.find_unpublished(shards, stream_id="one", last_seq=70)


async def test_of_many_leases_those_of_others_are_told_and_stay_theirs(
    redis: Redis, scripts: ShardScripts, shards: list[str]
) -> None:
    theirs = {shards[0], shards[40], shards[63]}
    for shard in theirs:
        await redis.set(lease_key(shard), "other", px=LEASE_MS)
    assert await scripts.lease(shards, "mine", LEASE_MS) == [shard not in theirs for shard in shards]
    assert {shard for shard in shards if await redis.get(lease_key(shard)) == b"other"} == theirs
    assert 0 < await redis.pttl(lease_key(shards[62])) <= LEASE_MS


async def test_leases_are_renewed_while_redis_is_full(start_stack: StackFactory) -> None:
    """Also behind a shard of another gateway, where this one writes nothing."""
    stack = await start_stack(services=())
    async with Redis.from_url(stack.urls.redis_url, protocol=2) as redis:
        scripts = ShardScripts(redis)
        await redis.set(lease_key("s00"), "other", px=LEASE_MS)
        await redis.config_set("maxmemory", "1")
        assert await scripts.lease(names.SHARDS, "mine", LEASE_MS) == [shard != "s00" for shard in names.SHARDS]


async def test_all_shards_are_read_also_where_redis_does_not_know_the_script(start_stack: StackFactory) -> None:
    stack = await start_stack(services=())
    async with Redis.from_url(stack.urls.redis_url, protocol=2) as redis:
        await ShardScripts(redis).init_shard("s07", run="run-1")
        await change(redis, "s07", next="9", archived="5")
        await change(redis, "s08", stale="3", next="2")
        await cast(Any, redis.sadd(lost_key("s07"), "a", "b"))
        for _ in range(2):
            (server,) = (await read_servers(redis)).servers
            assert server.run == (await redis.info("server"))["run_id"]
            assert list(server.cursors) == list(names.SHARDS)
            assert server.cursors["s07"] == ((1, 9), 5, False, "run-1", 2)
            assert server.cursors["s08"] == (None, 0, True, "", 0)
            assert server.cursors["s09"] == (None, 0, False, "", 0)
            await redis.script_flush()
