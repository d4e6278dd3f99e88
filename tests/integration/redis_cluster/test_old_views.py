"""A node that is cut off from the others, and says who had which shards before."""

from __future__ import annotations

import signal

import pytest

from infrastructure.local.servers.valkey_cluster import name_of
from infrastructure.local.stack import Stack
from shared.clients.cluster.addresses import Address
from shared.clients.cluster.client import ClusterClient
from shared.clients.redis import open_redis
from tests.faults.redis_cluster.bus import ADDRESSES_OF_LOOPBACK, bus_of
from tests.faults.redis_cluster.moving import Nodes, nodes_at
from tests.waiting import eventually

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(200),
    pytest.mark.skipif(not ADDRESSES_OF_LOOPBACK, reason="needs several addresses of loopback"),
]

_SHARD = "s11"


def home_of(redis: ClusterClient) -> Address | None:
    placed = redis.placed(_SHARD)
    return None if placed is None else placed[0]


async def test_who_has_a_shard_is_not_what_a_node_says_that_was_cut_off(
    cluster: Stack, redis: ClusterClient, nodes: Nodes
) -> None:
    """1. A node is cut off. 2. A shard moves between the two others. 3. Whatever is asked of the one that knows only
    what was before, also while it is the only one that answers, the shard is taken to be where it is."""
    first = cluster.ports.redis
    ports = range(first, first + 3)
    async with bus_of({port: port + 3 for port in ports}) as bus:
        await redis.refresh()
        source = await nodes.port_of(_SHARD)
        target, cut_off = (port for port in ports if port != source)
        await redis.set(f"{{{_SHARD}}}:test:view", "here")
        bus.cut_off([cut_off])
        try:
            async with nodes_at([source, target]) as side:
                await side.move(_SHARD, target, "atomic")
            assert await nodes.seen_by(cut_off, _SHARD) == source, "it has not heard of it"
            for _ in range(20):
                await redis.refresh()
                assert home_of(redis) in (None, ("127.0.0.1", target))
            assert await redis.get(f"{{{_SHARD}}}:test:view") == b"here"
            assert home_of(redis) == ("127.0.0.1", target)
            names = [name_of(port - first + 1) for port in (source, target)]
            for name in names:
                cluster.kill(name, signal.SIGSTOP)
            try:
                await redis.refresh()
                assert home_of(redis) == ("127.0.0.1", target)
            finally:
                for name in names:
                    cluster.kill(name, signal.SIGCONT)
        finally:
            bus.join()
        # A client that knows only that node hears of the others there, and asks them.
        seed = open_redis(f"redis+cluster://127.0.0.1:{cut_off}", timeout_s=3)
        try:

            async def is_read() -> bool:
                return bool(await seed.get(f"{{{_SHARD}}}:test:view") == b"here")

            await eventually(is_read, seconds=60)
        finally:
            await seed.aclose()
        await nodes.agree(_SHARD, target)
