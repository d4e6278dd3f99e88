"""Nodes that come and go while their cluster is read and changed; who is there is agreed through JetStream."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from infrastructure.local.servers.ports import free_ports
from shared.clients.nats import NatsLink
from shared.read_cache.cache import ReadCache
from shared.read_cache.groups.group import GroupLimits
from shared.read_cache.membership.jetstream import JetStreamMembership
from shared.read_cache.ring import Node
from tests.integration.read_cache.cluster_world import World
from tests.waiting import eventually

pytestmark = pytest.mark.integration


@asynccontextmanager
async def agreed(nats_url: str, *names: str, **changes: Any) -> AsyncIterator[tuple[World, NatsLink]]:
    """A world of these nodes, which have all heard of each other."""
    async with AsyncExitStack() as stack:
        link = NatsLink(nats_url, name="test")
        stack.push_async_callback(link.close)
        settings = {
            "read_cache_membership": "jetstream",
            "read_cache_bucket": f"cache_{uuid.uuid4().hex[:12]}",
            "read_cache_lease_s": 6.0,
        }
        world = World(stack, GroupLimits(), settings | changes)
        for name in names:
            await join(world, name, link)
        yield world, link


async def join(world: World, name: str, link: NatsLink) -> ReadCache:
    (port,) = free_ports(1)
    world.nodes[name] = Node(name, f"127.0.0.1:{port}")
    cache = await world.start(name, nats=link)
    await all_see(world)
    return cache


async def all_see(world: World) -> None:
    async def seen() -> bool:
        views = [cache.cluster.view() for cache in world.caches.values() if cache.cluster is not None]
        found = {(view.epoch, len(view.ring)) if view is not None else (0, 0) for view in views}
        return len(found) == 1 and found.pop()[1] == len(world.caches)

    await eventually(seen, seconds=60)


def membership_of(cache: ReadCache) -> JetStreamMembership:
    assert cache.cluster is not None
    membership = cache.cluster._membership
    assert isinstance(membership, JetStreamMembership)
    return membership


async def test_a_node_that_joins_takes_over_what_the_others_kept(nats_url: str) -> None:
    async with agreed(nats_url, "a", "b") as (world, link):
        keys = [f"k{number}" for number in range(300)]
        await world.caches["a"]["items"].get_many(keys)
        assert sorted(world.table.asked) == sorted(keys)
        cache = await join(world, "c", link)
        own = world.owned_by("c", 100, by=cache)
        own = [key for key in own if key in set(keys)]
        assert len(own) > 50

        async def warm() -> bool:
            return len(cache["items"].keys_kept()) == len(own)  # type: ignore[arg-type]

        await eventually(warm, seconds=60)
        assert sorted(cache["items"].keys_kept()) == sorted(own)
        for each in world.caches.values():
            assert await each["items"].get_many(keys) == dict.fromkeys(keys, b"a row")
        assert len(world.table.asked) == 300


async def test_a_removal_reaches_a_node_that_this_process_has_not_seen_yet(nats_url: str) -> None:
    async with agreed(nats_url, "a") as (world, link):
        reader = await world.start(None, nats=link)
        assert reader.cluster is not None
        blind = membership_of(reader)

        async def looks_no_more() -> None:
            blind._reliance.renew(blind._reliance._view, blind._reliance._until_s + 60)  # type: ignore[arg-type]

        blind._look = looks_no_more  # type: ignore[method-assign]
        await asyncio.sleep(0.6)
        cache = await join(world, "b", link)
        view = reader.cluster.view()
        assert view is not None
        assert [node.name for node in view.ring.nodes] == ["a"]
        (key,) = world.owned_by("b", by=cache)
        world.table.rows[key] = b"old"
        assert await cache["items"].get(key) == b"old"
        world.table.rows[key] = b"new"
        assert await reader["items"].remove(key) == []
        assert await cache["items"].get(key) == b"new"


async def test_a_node_that_leaves_in_good_order_costs_no_failure(nats_url: str) -> None:
    async with agreed(nats_url, "a", "b", "c") as (world, _):
        keys = [f"k{number}" for number in range(100)]
        await world.caches["a"]["items"].get_many(keys)
        await world.stop("c")
        await all_see(world)
        for cache in world.caches.values():
            assert await cache["items"].get_many(keys) == dict.fromkeys(keys, b"a row")
            assert cache.stats.fetch_failures == 0


async def test_a_node_whose_view_lapses_drops_what_it_kept_and_serves_on(nats_url: str) -> None:
    async with agreed(nats_url, "a", "b") as (world, _):
        cache = world.caches["a"]
        (key,) = world.owned_by("a", by=cache)
        await cache["items"].get(key)
        world.table.rows[key] = b"changed, and nobody could tell"
        assert await cache["items"].get(key) == b"a row"
        membership_of(cache)._reliance._until_s = 0
        assert await cache["items"].get(key) == b"changed, and nobody could tell"
        assert cache.stats.lapses == 1
        await all_see(world)
        assert await world.caches["b"]["items"].get(key) == b"changed, and nobody could tell"
