"""What is asked about all shards again and again, of three real nodes: each command is about one shard."""

from __future__ import annotations

from typing import Any, cast

import pytest

from api_gateway.engine.item_scripts import ItemScripts, ScriptLimits
from api_gateway.engine.loss.servers import read_servers
from api_gateway.engine.relay.shard_scripts import ShardScripts
from infrastructure.local.servers.valkey_cluster import name_of
from infrastructure.local.stack import Stack
from shared import names
from shared.clients.cluster.client import ClusterClient
from shared.clients.cluster.pipeline import NodeAway
from shared.redis_layout.cursors import Lineage
from shared.redis_layout.keys import cursors_key, deadlines_key
from tests.faults.redis_cluster.moving import Nodes

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

OURS = Lineage("run", 1)
DUE = names.SHARDS[::7]
SPOILT = "s20"


async def test_looks_over_all_nodes_and_over_those_that_are_left(
    cluster: Stack, redis: ClusterClient, nodes: Nodes
) -> None:
    items, scripts = ItemScripts(redis, ScriptLimits()), ShardScripts(redis)
    homes = {shard: await nodes.port_of(shard) for shard in names.SHARDS}
    for shard in names.SHARDS:
        await scripts.init_shard(shard, run="run")
    for shard in DUE:
        await redis.zadd(deadlines_key(shard), {shard: 1_000})
    await redis.set(deadlines_key(SPOILT), "no set")
    await cast(Any, redis.hset(cursors_key("s33"), "next", "1"))
    known = dict.fromkeys(names.SHARDS, (OURS, 0))

    found: dict[str, Any] = await items.due(names.SHARDS, count=9)
    assert "WRONGTYPE" in str(found.pop(SPOILT))
    assert found == {shard: [shard] for shard in DUE}
    assert await scripts.news(known) == {"s33"}
    assert await scripts.find_unpublished(names.SHARDS, stream_id="one", last_seq=0) == set()
    assert all(await scripts.lease(names.SHARDS, "mine", 6_000))
    servers = (await read_servers(redis)).servers
    assert sorted(shard for server in servers for shard in server.cursors) == list(names.SHARDS)
    assert {shard for server in servers for shard, found in server.cursors.items() if found.place == (1, 1)} == {"s33"}

    cluster.kill(name_of(2))
    assert await cluster.wait_ended(name_of(2))
    gone = {shard for shard, port in homes.items() if port == cluster.ports.redis + 1}
    assert gone
    found = await items.due(names.SHARDS, count=9)
    assert {shard for shard, answer in found.items() if isinstance(answer, NodeAway)} == gone
    assert {shard for shard, answer in found.items() if isinstance(answer, list)} == {*DUE} - gone
    assert await scripts.news(known) == gone | {"s33"}
    assert await scripts.lease(names.SHARDS, "mine", 6_000) == [shard not in gone for shard in names.SHARDS]
