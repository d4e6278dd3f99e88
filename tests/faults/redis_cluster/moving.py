"""Moves shards between the nodes of a real cluster, in the two ways that there are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Literal

from infrastructure.local.servers.ports import HOST
from infrastructure.local.servers.redis_and_nats import redis_url
from shared.clients.cluster.slots import SLOTS
from shared.clients.redis import open_redis
from tests.waiting import eventually

Way = Literal["atomic", "key by key"]
"""Valkey 9 takes a whole slot over at once; older servers, and Redis, move one key after the other."""

_KEYS_AT_ONCE = 20


class Nodes:
    """The nodes that listen on these ports of this machine, each with a client of its own."""

    def __init__(self, ports: Iterable[int]) -> None:
        self.clients: dict[int, Any] = {
            port: open_redis(redis_url(port), timeout_s=20, connections_max=2) for port in ports
        }

    async def id_of(self, port: int) -> str:
        """Its id in the cluster."""
        answer: Any = await self.clients[port].execute_command("CLUSTER", "MYID")
        return str(answer.decode())

    async def port_of(self, shard: str) -> int:
        """The node that has the shard, as all of them see it that are primaries and answer.

        Raises:
            AssertionError: they do not agree.
        """
        seen = {await self._seen_by(client, SLOTS[shard]) for client in self.clients.values()}
        assert len(seen) == 1, f"shard {shard} is at {seen}"
        return seen.pop()

    async def _seen_by(self, client: Any, slot: int) -> int:
        for first, last, primary, *_ in await client.execute_command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return int(primary[1])
        return 0

    async def seen_by(self, port: int, shard: str) -> int:
        """The node that has the shard, as this one sees it."""
        return await self._seen_by(self.clients[port], SLOTS[shard])

    async def agree(self, shard: str, port: int) -> None:
        """Wait until all of them know that this node has the shard."""

        async def known() -> bool:
            slot = SLOTS[shard]
            return all([await self._seen_by(client, slot) == port for client in self.clients.values()])

        await eventually(known, f"shard {shard} at {port}", seconds=60)

    async def move(self, shard: str, target: int, way: Way) -> None:
        """Move a shard, and wait until all nodes know it."""
        source = await self.port_of(shard)
        if source == target:
            return
        if way == "atomic":
            await self._take_over(shard, source, target)
        else:
            await self.begin(shard, source, target)
            await self.move_keys(shard, source, target)
            await self.finish(shard, target)
        await self.agree(shard, target)

    async def _take_over(self, shard: str, source: int, target: int) -> None:
        slot, node = SLOTS[shard], await self.id_of(target)
        await self.clients[source].execute_command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", node)

    async def begin(self, shard: str, source: int, target: int) -> None:
        """Begin to move the shard: from here on its keys may be on either node."""
        slot = SLOTS[shard]
        await self.clients[target].execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", await self.id_of(source))
        await self.clients[source].execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", await self.id_of(target))

    async def move_keys(self, shard: str, source: int, target: int) -> None:
        """Move all keys of the shard, some at a time."""
        slot, client = SLOTS[shard], self.clients[source]
        while keys := await client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, _KEYS_AT_ONCE):
            await client.execute_command("MIGRATE", HOST, target, "", 0, 10_000, "KEYS", *keys)
            await asyncio.sleep(0.01)

    async def finish(self, shard: str, target: int) -> None:
        """The shard is the target's; first the target says so."""
        node = await self.id_of(target)
        for port in sorted(self.clients, key=lambda port: port != target):
            await self.clients[port].execute_command("CLUSTER", "SETSLOT", SLOTS[shard], "NODE", node)

    async def aclose(self) -> None:
        for client in self.clients.values():
            await client.aclose()


@asynccontextmanager
async def nodes_at(ports: Iterable[int]) -> AsyncIterator[Nodes]:
    """The nodes on these ports."""
    nodes = Nodes(ports)
    try:
        yield nodes
    finally:
        await nodes.aclose()
