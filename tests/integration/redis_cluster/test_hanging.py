"""A node that hangs, and the admission of the others."""

from __future__ import annotations

import asyncio
import signal

import pytest

from api_gateway.engine.bids.scripts import BidScripts
from api_gateway.engine.item_scripts import ScriptLimits
from api_gateway.engine.loss.guard import Guard
from api_gateway.engine.loss.servers import read_servers
from infrastructure.local.servers.valkey_cluster import name_of
from infrastructure.local.stack import Stack
from shared import names
from shared.clients.cluster.client import ClusterClient
from shared.clients.redis import open_redis
from shared.domain.errors import Unavailable
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

_TIMEOUT_S = 1.0
"""REDIS_TIMEOUT_MS; a look at a node that hangs takes longer."""


async def test_a_node_that_hangs_keeps_no_other_one_from_being_admitted(cluster: Stack) -> None:
    """A gateway starts meanwhile. All that it asks of the others waits for their comparison, which asks all nodes."""
    unguarded = open_redis(cluster.urls.redis_url, timeout_s=_TIMEOUT_S, connections_max=1)

    async def compare(run: str) -> None:
        if not (await read_servers(unguarded)).has(run):
            raise Unavailable("not found")

    async def all_are_read() -> bool:
        return not (await read_servers(unguarded)).unread

    guard = Guard(compare, is_cluster=True)
    redis = open_redis(cluster.urls.redis_url, timeout_s=_TIMEOUT_S, on_connect=guard.on_connect)
    assert isinstance(redis, ClusterClient)
    victim = cluster.ports.redis + 1
    cluster.kill(name_of(2), signal.SIGSTOP)
    try:
        # As the gateway does every two seconds.
        found = await read_servers(unguarded)
        assert len(found.servers) == 2
        assert found.unread
        others, _ = await redis.nodes(names.SHARDS, fresh=True)
        for node in [node for node in others if node.address.port != victim]:
            bids = BidScripts(node.redis, ScriptLimits(outbox_entries_max=1), timeout_s=_TIMEOUT_S, run_of=guard.run_of)
            async with asyncio.timeout(15):
                while not bids.is_connected:
                    try:
                        await bids.connect()
                    except Unavailable:
                        await asyncio.sleep(0.1)
            await bids.close()
    finally:
        cluster.kill(name_of(2), signal.SIGCONT)
        await redis.aclose()
    try:
        await eventually(all_are_read, "all nodes are read", seconds=30)
    finally:
        await unguarded.aclose()
