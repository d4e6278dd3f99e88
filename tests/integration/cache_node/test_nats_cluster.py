"""Three NATS servers as one cluster agree on the ring of the read cache. One of them is killed: the one that leads the
ring's key, and one that leads nothing of it. Nodes join and die all the same, and no reader sees an error."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import pytest
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from shared.clients.nats import open_nats
from shared.read_cache.settings import ReadCacheSettings
from tests.faults.cluster.nats_cluster import NAMES, NatsCluster, copies_of
from tests.integration.cache_node.cache_world import SLOWNESS, CacheWorld, cache_world, tell
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.integration

FRONT_END: Final = "front"
AGREED_S: Final = 15.0
"""Seconds until a ring without a dead node is agreed: up to 9 s in which NATS chooses another leader, and then the
dead node's lease of 3 s."""
_BUCKET: Final = f"KV_{ReadCacheSettings.model_fields['read_cache_bucket'].default}"
_RING: Final = f"{_BUCKET}_ring"
_LEASES: Final = f"{_BUCKET}_leases"


@asynccontextmanager
async def jetstream_of(cluster: NatsCluster) -> AsyncIterator[JetStreamContext]:
    async with asyncio.timeout(30):
        client = await open_nats(cluster.url, name="test")
    try:
        yield client.jetstream(timeout=2)
    finally:
        await client.close()


async def leaders_once_in_step(jetstream: JetStreamContext) -> tuple[str, str]:
    """The servers that lead the ring and the leases, once all three have both."""

    async def found() -> tuple[str, str] | None:
        leaders = []
        try:
            for stream in (_RING, _LEASES):
                leader, others = await copies_of(jetstream, stream)
                if len(others) != 2 or any(peer.offline or not peer.current for peer in others):
                    return None
                leaders.append(leader)
        except (NatsError, OSError, TimeoutError):
            return None
        return (leaders[0], leaders[1]) if all(leaders) else None

    return await eventually(found, "all three NATS servers have the ring and the leases", seconds=60)


class Readers:
    """Ten readers at the front end, for as long as they are wanted."""

    def __init__(self, world: CacheWorld, items: list[str]) -> None:
        self._world = world
        self._items = items
        self.answers = 0
        self.wrong: list[object] = []
        self.slowest_s = 0.0

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._read(number)) for number in range(10)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended

    async def _read(self, number: int) -> None:
        for turn in itertools.count(number * 37):
            item = self._items[turn % len(self._items)]
            began_s = time.monotonic()
            try:
                answer = await self._world.value(FRONT_END, f"items/{item}")
            except (aiohttp.ClientError, TimeoutError) as error:
                self.wrong.append(error)
            else:
                if answer.status != 200 or f'"id":"{item}"'.encode() not in answer.body:
                    self.wrong.append(answer)
            self.answers += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
            await asyncio.sleep(0.05)


async def test_membership_changes_while_one_of_three_nats_servers_is_dead(start_stack: StackFactory) -> None:
    stack = await start_stack(services=())
    async with NatsCluster() as cluster, cache_world(stack) as world:
        await cluster.start(stack)
        env = {"NATS_URL": cluster.url, "NATS_STREAM_REPLICAS": "3"}
        there = ["n0", "n1", "n2", "n3"]
        await world.start(*there, module_env=env)
        await world.start(FRONT_END, role="front_end", module_env=env)
        await world.agreed(*there)
        items = [f"closed-{number}" for number in range(200)]
        await world.add_closed(*items)
        readers = Readers(world, items)
        async with jetstream_of(cluster) as jetstream, readers.reading():
            for joins, leads in (("n4", "the ring"), ("n5", "neither ring nor leases")):
                leaders = await leaders_once_in_step(jetstream)
                victim = leaders[0] if leads == "the ring" else next(each for each in NAMES if each not in leaders)
                before = await world.agreed(*there)
                stack.kill(victim)
                assert await stack.wait_ended(victim)
                began_s = time.monotonic()
                # Ready is who is in the ring.
                await world.start(joins, module_env=env)
                there.append(joins)
                joined = await world.agreed(*there)
                joined_s = time.monotonic() - began_s
                world.kill(there.pop(0))
                began_s = time.monotonic()
                after = await world.agreed(*there)
                took_s = time.monotonic() - began_s
                tell(
                    f"the NATS server that leads {leads} is killed: a node has joined after {joined_s:.1f} s, one that "
                    f"died is out after {took_s:.1f} s"
                )
                assert before["epoch"] < joined["epoch"] < after["epoch"]
                assert joined_s < AGREED_S * SLOWNESS
                assert took_s < AGREED_S * SLOWNESS
                await stack.start_process(victim)
        tell(f"{readers.answers} answers of the front end meanwhile, the slowest after {readers.slowest_s:.2f} s")
        assert readers.wrong == []
        assert readers.answers > 100
