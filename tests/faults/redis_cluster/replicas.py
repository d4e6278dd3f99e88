"""Replicas of the nodes of a cluster."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import Any

from redis.exceptions import RedisError

from infrastructure.local.servers.ports import HOST, free_ports
from infrastructure.local.servers.redis_and_nats import redis_url
from infrastructure.local.servers.valkey_cluster import node_spec
from infrastructure.local.stack import Stack
from shared.clients.redis import open_redis
from tests.faults.redis_cluster.moving import Nodes
from tests.waiting import eventually


async def add_replicas_of(stack: Stack, nodes: Nodes, primaries: Iterable[int]) -> dict[int, int]:
    """One more node for each of these ports, which follows the one there and has all of its data; their ports."""
    primaries = list(primaries)
    found = await asyncio.gather(*(_add_replica_of(stack, nodes, port) for port in primaries))
    return dict(zip(primaries, found, strict=True))


async def cut_off(nodes: Nodes, primary: int, replica: int) -> None:
    """The replica gets nothing more of its primary, and remains in the cluster: it has a password that is none."""
    client: Any = open_redis(redis_url(replica), timeout_s=10, connections_max=1)
    try:
        await client.config_set("primaryauth", "none")
        await nodes.clients[primary].execute_command("CLIENT", "KILL", "TYPE", "replica")

        async def is_cut_off() -> bool:
            return bool((await client.info("replication"))["master_link_status"] == "down")

        await eventually(is_cut_off, "the replica is cut off", seconds=10)
    finally:
        await client.aclose()


async def _add_replica_of(stack: Stack, nodes: Nodes, primary: int) -> int:
    port, bus_port = free_ports(2)
    name = f"redis-replica-{port}"
    await stack.add_server(node_spec(name, port, bus_port, stack.data_dir, os.environ, access=stack.redis_access))
    client: Any = open_redis(redis_url(port), timeout_s=10, connections_max=2)
    try:
        await nodes.clients[primary].execute_command("CLUSTER", "MEET", HOST, port, bus_port)
        node = await nodes.id_of(primary)

        async def follows() -> bool:
            try:
                await client.execute_command("CLUSTER", "REPLICATE", node)
            except RedisError:
                return False  # it has not heard of that node yet
            return True

        await eventually(follows, "the primary is known", seconds=20)
        await eventually(lambda: _is_in_step(client), "the replica is in step", seconds=30)
        # The others count on it only once they have heard of it.
        known = [*nodes.clients.values()]
        await eventually(lambda: _all_know(known, port), "all know the replica", seconds=30)
    finally:
        await client.aclose()
    return port


async def _is_in_step(client: Any) -> bool:
    info = await client.info("replication")
    return info["role"] == "slave" and info["master_link_status"] == "up" and not info["master_sync_in_progress"]


async def _all_know(clients: list[Any], port: int) -> bool:
    for client in clients:
        answer: Any = await client.execute_command("CLUSTER", "NODES")
        lines = [line for line in answer.decode().splitlines() if f":{port}@" in line]
        if not any(" slave " in line for line in lines):
            return False
    return True
