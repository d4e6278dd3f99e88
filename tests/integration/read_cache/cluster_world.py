"""Clusters of nodes in this process, with one origin that counts, and readers without a node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from infrastructure.local.servers.ports import free_ports
from shared.clients.nats import NatsLink
from shared.read_cache.cache import GroupSpec, ReadCache
from shared.read_cache.errors import PeerFailed
from shared.read_cache.groups.group import GroupLimits
from shared.read_cache.opening import open_read_cache
from shared.read_cache.peers.link import Link
from shared.read_cache.ring import Node
from shared.read_cache.settings import ReadCacheSettings
from tests.waiting import eventually


class Table:
    """An origin: what every key has, how long a look takes, and how often it was asked; ``hold``: looks wait for it."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes | None] = {}
        self.default: bytes | None = b"a row"
        self.takes_s = 0.0
        self.hold: asyncio.Event | None = None
        self.asked: list[str] = []
        self.error: Exception | None = None

    async def load(self, key: str) -> bytes | None:
        self.asked.append(key)
        value = self.rows.get(key, self.default)
        if self.takes_s:
            await asyncio.sleep(self.takes_s)
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error
        return value


class World:
    """Nodes by name; they share one table."""

    def __init__(self, stack: AsyncExitStack, limits: GroupLimits, changes: dict[str, Any]) -> None:
        self.table = Table()
        self.nodes: dict[str, Node] = {}
        self.caches: dict[str, ReadCache] = {}
        self._closing: dict[str, AsyncExitStack] = {}
        self._stack = stack
        self._limits = limits
        self._changes = changes

    def settings(self) -> ReadCacheSettings:
        nodes = ",".join(f"{node.name}={node.address}" for node in self.nodes.values())
        values: dict[str, Any] = {
            "read_cache": "cluster",
            "read_cache_membership": "static",
            "read_cache_nodes": nodes,
            # Whatever the machine does beside: a peer that is slow is not to be taken for dead here.
            "read_cache_peer_timeout_ms": 5_000,
        }
        return ReadCacheSettings(**values | self._changes)

    async def start(self, name: str | None, *, nats: NatsLink | None = None) -> ReadCache:
        """A node of that name, or a reader."""
        node = self.nodes[name] if name is not None else None
        stack = AsyncExitStack()
        cache = await stack.enter_async_context(
            open_read_cache(self.settings(), [GroupSpec("items", self.table.load, self._limits)], node=node, nats=nats)
        )
        self._stack.push_async_callback(stack.aclose)
        if name is not None:
            self.caches[name] = cache
            self._closing[name] = stack
        await eventually(self._sees_a_ring(cache), seconds=60)
        return cache

    @staticmethod
    def _sees_a_ring(cache: ReadCache) -> Any:
        async def sees() -> bool:
            assert cache.cluster is not None
            return cache.cluster.view() is not None

        return sees

    async def connected(self) -> None:
        """Wait until every node has reached every other: the first to start found the others away."""

        async def reached() -> bool:
            try:
                for name, cache in self.caches.items():
                    for other in self.caches:
                        if other != name:
                            await self.link(cache, other).forget("items", [])
            except PeerFailed:
                return False
            return True

        await eventually(reached, seconds=60)

    async def stop(self, name: str) -> None:
        """Stop the node in good order."""
        await self._closing.pop(name).aclose()
        del self.caches[name]

    def owned_by(self, name: str, count: int = 1, *, by: ReadCache | None = None) -> list[str]:
        """Keys of that node, by the ring of this cache."""
        cluster = (by or next(iter(self.caches.values()))).cluster
        assert cluster is not None
        view = cluster.view()
        assert view is not None
        found = (key for number in range(10**6) if view.ring.owner(key := f"k{number}").name == name)
        return [key for key, _ in zip(found, range(count), strict=False)]

    def link(self, cache: ReadCache, name: str) -> Link:
        assert cache.cluster is not None
        link = cache.cluster.link(name)
        assert link is not None
        return link


@asynccontextmanager
async def cluster(
    *names: str, limits: GroupLimits | None = None, nats: NatsLink | None = None, **changes: Any
) -> AsyncIterator[World]:
    """Nodes of these names; ``changes`` are settings."""
    async with AsyncExitStack() as stack:
        world = World(stack, limits or GroupLimits(), changes)
        for name, port in zip(names, free_ports(len(names)), strict=True):
            world.nodes[name] = Node(name, f"127.0.0.1:{port}")
        for name in names:
            await world.start(name, nats=nats)
        await world.connected()
        yield world
