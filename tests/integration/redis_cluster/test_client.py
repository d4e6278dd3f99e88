"""The client of a cluster against three real nodes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError, TryAgainError

from infrastructure.local.servers.valkey_cluster import name_of
from infrastructure.local.stack import Stack
from shared import names
from shared.clients.cluster.client import ClusterClient, nodes_of
from shared.clients.cluster.pipeline import NodeAway
from shared.clients.cluster.search import every_key
from shared.clients.cluster.slots import SLOTS
from shared.clients.redis import open_redis
from shared.redis_layout.keys import REVOCATIONS_KEY, shard_of_key
from shared.redis_layout.revocations import RevocationStore
from shared.redis_layout.scripts import Script
from tests.faults.redis_cluster.moving import Nodes, Way

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

_ADD = Script.of("return redis.call('INCRBY', KEYS[1], ARGV[1])")
_BOTH = Script.of("return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])}")


def key_of(shard: str, name: str) -> str:
    return f"{{{shard}}}:test:{name}"


async def other_than(nodes: Nodes, port: int) -> int:
    return next(each for each in nodes.clients if each != port)


async def test_each_shard_is_where_the_nodes_say(redis: ClusterClient, nodes: Nodes) -> None:
    for shard in names.SHARDS:
        slot = await next(iter(nodes.clients.values())).execute_command("CLUSTER", "KEYSLOT", key_of(shard, "x"))
        assert slot == SLOTS[shard]
        await redis.set(key_of(shard, "place"), shard)
        port = await nodes.port_of(shard)
        assert await nodes.clients[port].get(key_of(shard, "place")) == shard.encode()
    found, missing = await nodes_of(redis, names.SHARDS)
    assert not missing
    assert {node.address.port for node in found} == set(nodes.clients)


async def test_a_pipeline_answers_in_order_whatever_node_has_what(redis: ClusterClient) -> None:
    pipeline = redis.pipeline(transaction=False)
    for shard in names.SHARDS:
        pipeline.set(key_of(shard, "in-order"), shard)
        pipeline.get(key_of(shard, "in-order"))
    pipeline.lrange(key_of("s00", "in-order"), 0, -1)
    answers = await pipeline.execute(raise_on_error=False)
    assert answers[1:-1:2] == [shard.encode() for shard in names.SHARDS]
    assert "WRONGTYPE" in str(answers[-1])
    pipeline.lrange(key_of("s00", "in-order"), 0, -1)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await pipeline.execute()
    assert await pipeline.execute() == []


async def test_a_transaction_is_of_one_shard(redis: ClusterClient) -> None:
    pipeline = redis.pipeline()
    pipeline.set(key_of("s05", "a"), "1")
    pipeline.incr(key_of("s05", "a"))
    assert await pipeline.execute() == [True, 2]
    pipeline.get(key_of("s05", "a"))
    pipeline.get(key_of("s06", "a"))
    with pytest.raises(ValueError, match="one shard"):
        await pipeline.execute()


async def test_calls_of_many_shards_are_made_together_also_where_no_node_knows_the_script(
    redis: ClusterClient, nodes: Nodes
) -> None:
    for client in nodes.clients.values():
        await client.script_flush()
    keys = [key_of(shard, "sum") for shard in names.SHARDS for _ in range(3)]
    answers = await _ADD.run_each(redis, [([key], [place]) for place, key in enumerate(keys)])
    expected: dict[str, int] = {}
    for place, key in enumerate(keys):
        expected[key] = expected.get(key, 0) + place
        assert answers[place] == expected[key]


async def test_the_keys_of_all_nodes_are_found(redis: ClusterClient) -> None:
    wanted = {key_of(shard, "searched").encode() for shard in names.SHARDS}
    for key in wanted:
        await redis.set(key, "1")
    found = [key async for key in every_key(redis, "{s??}:test:searched", count=7)]
    assert sorted(found) == sorted(wanted)


async def test_keys_between_two_nodes_are_not_passed_over_in_silence(redis: ClusterClient, nodes: Nodes) -> None:
    """A search has been at the one node, and then keys come there from the other one. Nothing of the map shows that."""
    shard = "s33"
    await redis.set(key_of(shard, "between"), "1")
    source = await nodes.port_of(shard)
    target = await other_than(nodes, source)
    await nodes.begin(shard, source, target)
    with pytest.raises(RedisConnectionError, match="on their way"):
        _ = [key async for key in every_key(redis, "{s??}:test:between", count=100)]
    await nodes.move_keys(shard, source, target)
    with pytest.raises(RedisConnectionError, match="on their way"):
        _ = [key async for key in every_key(redis, "{s??}:test:between", count=100)]
    await nodes.finish(shard, target)
    await nodes.agree(shard, target)
    found = [key async for key in every_key(redis, "{s??}:test:between", count=100)]
    assert found == [key_of(shard, "between").encode()]


@pytest.mark.parametrize("way", ["atomic", "key by key"])
async def test_commands_follow_a_shard_to_another_node(cluster: Stack, nodes: Nodes, way: Way) -> None:
    """And a connection is made there, and let in, before anything of the shard is asked of that node."""
    connected: list[Any] = []

    async def on_connect(connection: AbstractConnection) -> None:
        await connection.on_connect()
        connected.append(connection)

    shard, other = "s11", "s12"
    redis = open_redis(cluster.urls.redis_url, timeout_s=3.0, on_connect=on_connect)
    try:
        await redis.set(key_of(shard, "moving"), "here")
        for each in names.SHARDS:
            await redis.get(key_of(each, "moving"))
        for kind in ("command", "pipeline", "transaction", "script"):
            source = await nodes.port_of(shard)
            target = await other_than(nodes, source)
            before = len(connected)
            await nodes.move(shard, target, way)
            answer: Any
            if kind == "command":
                answer = await redis.get(key_of(shard, "moving"))
            elif kind == "script":
                answer = (await _BOTH.run(redis, [key_of(shard, "moving"), key_of(shard, "none")], []))[0]
            else:
                pipeline = redis.pipeline(transaction=kind == "transaction")
                pipeline.get(key_of(shard, "moving"))
                if kind == "pipeline":
                    pipeline.get(key_of(other, "moving"))
                answer = (await pipeline.execute())[0]
            assert answer == b"here", kind
            assert any(connection.port == target for connection in connected[before:]), kind
    finally:
        await redis.aclose()


async def test_what_is_of_no_shard_is_found_too_wherever_it_moves(redis: ClusterClient, nodes: Nodes) -> None:
    shard = shard_of_key(REVOCATIONS_KEY)
    assert shard is not None
    store = RevocationStore(redis)
    await store.revoke("user:ada")
    for _ in range(2):
        assert list(await store.read()) == ["user:ada"]
        assert await store.epoch()
        source = await nodes.port_of(shard)
        await nodes.move(shard, await other_than(nodes, source), "atomic")


async def test_a_key_that_has_gone_ahead_is_asked_of_the_node_that_gets_its_slot(
    redis: ClusterClient, nodes: Nodes
) -> None:
    shard = "s20"
    ahead, left = key_of(shard, "ahead"), key_of(shard, "left")
    await redis.set(ahead, "1")
    source = await nodes.port_of(shard)
    target = await other_than(nodes, source)
    await nodes.begin(shard, source, target)
    await nodes.move_keys(shard, source, target)
    # A new key would go to the target; this one is put behind the others.
    assert await redis.get(ahead) == b"1"
    pipeline = redis.pipeline(transaction=False)
    pipeline.get(ahead)
    pipeline.get(key_of("s21", "x"))
    assert (await pipeline.execute())[0] == b"1"
    # A command with two keys, one of which does not exist: no node carries it out before the slot has moved.
    with pytest.raises(TryAgainError):
        await _BOTH.run(redis, [ahead, left], [])
    asked = asyncio.create_task(_BOTH.run(redis, [ahead, left], []))
    await asyncio.sleep(0.05)
    await nodes.finish(shard, target)
    assert await asked == [b"1", None]


async def test_commands_on_other_nodes_go_on_while_one_is_away(
    cluster: Stack, redis: ClusterClient, nodes: Nodes
) -> None:
    for shard in names.SHARDS:
        await redis.set(key_of(shard, "up"), shard)
    homes = {shard: await nodes.port_of(shard) for shard in names.SHARDS}
    victim = cluster.ports.redis + 1
    name = name_of(2)
    cluster.kill(name)
    assert await cluster.wait_ended(name)
    pipeline = redis.pipeline(transaction=False)
    for shard in names.SHARDS:
        pipeline.get(key_of(shard, "up"))
    answers = await pipeline.execute(raise_on_error=False)
    for shard, answer in zip(names.SHARDS, answers, strict=True):
        assert isinstance(answer, NodeAway) if homes[shard] == victim else answer == shard.encode()
    with pytest.raises(RedisConnectionError):
        await redis.get(key_of(next(shard for shard in homes if homes[shard] == victim), "up"))
    assert await redis.ping()
    await cluster.start_process(name)

    async def all_there() -> bool:
        for shard in names.SHARDS:
            assert await redis.get(key_of(shard, "up")) == shard.encode()
        return True

    async with asyncio.timeout(30):
        while True:
            try:
                await all_there()
                break
            except (ResponseError, RedisConnectionError):
                await asyncio.sleep(0.1)


async def test_a_url_that_says_cluster_of_a_server_that_is_none_says_so(redis_url: str) -> None:
    client: Any = open_redis(redis_url.replace("redis://", "redis+cluster://"))
    try:
        with pytest.raises(RedisConnectionError, match="is no node of a cluster"):
            await client.get("{s00}:x")
    finally:
        await client.aclose()


async def test_no_node_that_answers_is_an_error_of_the_connection(free_port: int) -> None:
    client: Any = open_redis(f"redis+cluster://127.0.0.1:{free_port}")
    try:
        with pytest.raises(RedisConnectionError, match="no node of the cluster answers"):
            await client.get("{s00}:x")
        with pytest.raises(RedisConnectionError):
            await client.ping()
    finally:
        await client.aclose()
