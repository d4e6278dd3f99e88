"""Nodes that talk gRPC: who loads what, what a failure costs, and what never travels."""

from __future__ import annotations

import asyncio
import socket

import pytest

from infrastructure.local.servers.ports import free_ports
from shared.read_cache.errors import Overloaded
from shared.read_cache.groups.group import MISSING, GroupLimits
from shared.read_cache.groups.shedding import SILENT_S
from shared.read_cache.peers.breaker import Breaker
from shared.read_cache.peers.wire import VALUE_BYTES_MAX
from shared.read_cache.ring import Node
from tests.integration.read_cache.cluster_world import World, cluster
from tests.waiting import eventually

pytestmark = pytest.mark.integration


async def everywhere(world: World, key: str, each: int = 1) -> list[bytes | None]:
    return await asyncio.gather(*(cache["items"].get(key) for cache in world.caches.values() for _ in range(each)))


async def asked(world: World, *keys: str) -> None:
    """Wait until the table was asked for these keys, and no others."""

    async def was() -> bool:
        return bool(world.table.asked)

    await eventually(was)
    assert world.table.asked == list(keys)


async def test_a_thousand_gets_of_a_cold_key_through_all_nodes_are_one_load() -> None:
    async with cluster("a", "b", "c", "d", "e") as world:
        world.table.takes_s = 0.2
        assert await everywhere(world, "cold", 200) == [b"a row"] * 1_000
        assert world.table.asked == ["cold"]


async def test_each_key_is_kept_by_its_owner_alone() -> None:
    async with cluster("a", "b", "c") as world:
        keys = [f"k{number}" for number in range(90)]
        for cache in world.caches.values():
            assert await cache["items"].get_many(keys) == dict.fromkeys(keys, b"a row")
        assert sorted(world.table.asked) == sorted(keys)
        assert sum(cache.entries for cache in world.caches.values()) == 90


async def test_values_come_as_they_are_and_absence_too() -> None:
    async with cluster("a", "b") as world:
        (present, absent, empty) = world.owned_by("b", 3)
        world.table.rows = {present: bytes(range(256)) * 100, absent: None, empty: b""}
        group = world.caches["a"]["items"]
        for _ in range(3):
            found = await group.get_many([present, absent, empty])
            assert found == {present: bytes(range(256)) * 100, absent: None, empty: b""}
        assert len(world.table.asked) == 3


async def test_gets_of_one_moment_are_one_message() -> None:
    async with cluster("a", "b") as world:
        keys = world.owned_by("b", 500)
        group, link = world.caches["a"]["items"], world.link(world.caches["a"], "b")
        await asyncio.gather(*map(group.get, keys))
        assert link.messages == 1
        assert len(world.table.asked) == 500
        await group.get_many(world.owned_by("b", 900))
        assert link.messages == 2


async def test_what_is_kept_does_not_wait_for_what_is_loaded() -> None:
    async with cluster("a", "b") as world:
        group = world.caches["a"]["items"]
        warm, cold = world.owned_by("b", 2)
        await group.get(warm)
        world.table.hold = asyncio.Event()
        slow = asyncio.create_task(group.get(cold))
        await eventually(lambda: cold in world.table.asked)
        assert await asyncio.wait_for(group.get(warm), 30) == b"a row"
        assert not slow.done()
        world.table.hold.set()
        assert await slow == b"a row"


async def test_an_origin_slower_than_the_peers_time_out_is_asked_once() -> None:
    """The owner says that it is alive while it loads."""
    async with cluster("a", "b", "c", read_cache_peer_timeout_ms=1_000) as world:
        world.table.takes_s = 3.0
        (key,) = world.owned_by("b")
        assert await everywhere(world, key, 10) == [b"a row"] * 30
        assert world.table.asked == [key]
        assert world.caches["a"].stats.fetch_failures == 0


async def test_a_dead_owner_costs_one_load_in_all_and_no_error() -> None:
    """All ask the node after it, which loads once."""
    async with cluster("a", "b", "c", "d", "e") as world:
        (key,) = world.owned_by("c")
        await world.stop("c")
        assert await everywhere(world, key, 250) == [b"a row"] * 1_000
        assert world.table.asked == [key]


async def test_an_owner_that_dies_in_the_middle_costs_one_more_load() -> None:
    async with cluster("a", "b", "c", "d", "e") as world:
        (key,) = world.owned_by("c")
        world.table.takes_s = 0.3
        readers = [cache for name, cache in world.caches.items() if name != "c"]
        gets = [asyncio.create_task(cache["items"].get(key)) for cache in readers for _ in range(250)]
        await asked(world, key)
        # The owner dies without a good-bye: each link to it breaks.
        for name in ("a", "b", "d", "e"):
            world.link(world.caches[name], "c")._break("was killed by the test")
        assert await asyncio.gather(*gets) == [b"a row"] * 1_000
        assert world.table.asked == [key, key]


async def test_a_peer_that_accepts_and_says_nothing_costs_its_time_out_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with cluster("a", "b", read_cache_peer_timeout_ms=150) as world:
            await world.stop("b")
            port = silent.getsockname()[1]
            world.nodes["b"] = Node("b", f"127.0.0.1:{port}")
            await world.stop("a")
            cache = await world.start("a")
            keys = world.owned_by("b", 50)
            link = world.link(cache, "b")
            # Its first pause is over after a tenth of a second, in which a busy machine may do nothing.
            link.breaker = Breaker(first_s=60, most_s=60)
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            assert await cache["items"].get(keys[0]) == b"a row"
            assert loop.time() - began_s > 0.1
            assert link.messages == 1
            assert await cache["items"].get_many(keys) == dict.fromkeys(keys, b"a row")
            assert link.messages == 1, "a node that was just silent is not asked"


async def test_nodes_that_mean_different_rings_answer_each_other_nothing() -> None:
    async with cluster("a", "b") as world:
        (key,) = world.owned_by("b")
        await world.caches["b"]["items"].get(key)
        await world.stop("a")
        (port,) = free_ports(1)
        world.nodes["c"] = Node("c", f"127.0.0.1:{port}")
        cache = await world.start("a")
        (key,) = world.owned_by("b", by=cache)
        world.table.rows[key] = b"newer"
        assert await cache["items"].get(key) == b"newer"
        assert (cache.stats.other_ring, cache.stats.fetch_failures) == (1, 1)


async def test_an_overloaded_owner_is_told_to_the_reader() -> None:
    async with cluster("a", "b", read_cache_loads_max=1, read_cache_waiting_max=1) as world:
        world.table.takes_s = 0.3
        keys = world.owned_by("b", 5)
        results = await asyncio.gather(*map(world.caches["a"]["items"].get, keys), return_exceptions=True)
        assert sorted(map(type, results), key=str) == [bytes] * 2 + [Overloaded] * 3


async def test_an_owner_whose_origin_is_silent_costs_no_reader_an_error() -> None:
    """It cannot tell whether the origin is silent for others too. Each of them has a bound of its own."""
    async with cluster("a", "b", read_cache_loads_max=1, read_cache_waiting_max=1) as world:
        first, *keys = world.owned_by("b", 6)
        world.table.hold = asyncio.Event()
        stuck = asyncio.create_task(world.caches["b"]["items"].get(first))
        await asked(world, first)
        await asyncio.sleep(SILENT_S)
        world.table.hold = None
        for key in keys:
            assert await asyncio.wait_for(world.caches["a"]["items"].get(key), 30) == b"a row"
        assert (world.caches["a"].stats.loads, world.caches["b"].stats.loads) == (5, 1)
        stuck.cancel()


async def test_an_origin_that_fails_for_the_owner_is_asked_from_here() -> None:
    async with cluster("a", "b") as world:
        (key,) = world.owned_by("b")
        world.table.error = ConnectionError("away")
        with pytest.raises(ConnectionError, match="away"):
            await world.caches["a"]["items"].get(key)
        assert world.table.asked == [key, key]


async def test_a_value_that_is_too_large_to_send_is_loaded_here() -> None:
    async with cluster("a", "b", limits=GroupLimits(value_bytes_max=10 * VALUE_BYTES_MAX)) as world:
        large, largest_that_travels = world.owned_by("b", 2)
        world.table.rows = {large: b"x" * (VALUE_BYTES_MAX + 1), largest_that_travels: b"x" * VALUE_BYTES_MAX}
        found = await world.caches["a"]["items"].get_many([large, largest_that_travels])
        assert list(map(len, found.values())) == [VALUE_BYTES_MAX + 1, VALUE_BYTES_MAX]  # type: ignore[arg-type]
        assert world.table.asked.count(large) == 2
        assert world.table.asked.count(largest_that_travels) == 1


async def test_many_large_values_of_one_moment_fit_into_messages() -> None:
    async with cluster("a", "b", limits=GroupLimits(value_bytes_max=VALUE_BYTES_MAX)) as world:
        keys = world.owned_by("b", 40)
        world.table.default = b"x" * 700_000
        found = await world.caches["a"]["items"].get_many(keys)
        assert {len(value or b"") for value in found.values()} == {700_000}
        assert len(world.table.asked) == 40


async def test_a_removal_is_heard_by_all_nodes() -> None:
    async with cluster("a", "b", "c", limits=GroupLimits(mirror_ttl_s=60)) as world:
        (key,) = world.owned_by("b")
        for _ in range(20):
            await everywhere(world, key)
        assert all(cache["items"].cached(key) == b"a row" for cache in world.caches.values())
        world.table.rows[key] = b"changed"
        assert await world.caches["a"]["items"].remove(key) == []
        assert all(cache["items"].cached(key) is MISSING for cache in world.caches.values())
        assert await everywhere(world, key) == [b"changed"] * 3
        world.table.rows[key] = b"changed again"
        assert await world.caches["c"]["items"].reset() == []
        assert await everywhere(world, key) == [b"changed again"] * 3


async def test_a_removal_names_the_nodes_that_did_not_hear_it() -> None:
    async with cluster("a", "b", "c") as world:
        await world.stop("b")
        assert await world.caches["a"]["items"].remove("k1") == ["b"]


async def test_a_load_at_the_owner_that_began_before_a_removal_from_elsewhere_is_not_kept() -> None:
    async with cluster("a", "b") as world:
        (key,) = world.owned_by("b")
        world.table.takes_s = 0.2
        world.table.rows[key] = b"old"
        early = asyncio.create_task(world.caches["a"]["items"].get(key))
        await asked(world, key)
        world.table.rows[key] = b"new"
        assert await world.caches["a"]["items"].remove(key) == []
        assert await early == b"old"
        assert await world.caches["a"]["items"].get(key) == b"new"
        assert await world.caches["b"]["items"].get(key) == b"new"


async def test_a_reader_without_a_node_reads_through_the_ring() -> None:
    async with cluster("a", "b", "c") as world:
        reader = await world.start(None)
        keys = [f"k{number}" for number in range(60)]
        assert await reader["items"].get_many(keys) == dict.fromkeys(keys, b"a row")
        assert sorted(world.table.asked) == sorted(keys)
        assert reader.stats.loads == 0
        assert (reader.stats.fetches, reader.entries) == (60, 0)


async def test_a_node_that_stops_answers_what_it_was_asked() -> None:
    async with cluster("a", "b") as world:
        (key,) = world.owned_by("b")
        world.table.takes_s = 0.3
        get = asyncio.create_task(world.caches["a"]["items"].get(key))
        await asked(world, key)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        stopping = asyncio.create_task(world.stop("b"))
        assert await get == b"a row"
        await stopping
        assert loop.time() - began_s < 30
        assert world.table.asked == [key]
        assert world.caches["a"].stats.fetch_failures == 0
