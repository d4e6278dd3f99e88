"""Five nodes as processes before a real PostgreSQL, of which one is killed, or stopped and goes on.

With the settings that nodes have: 250 ms of silence, and leases of 3 s. The tests share their nodes; each leaves five
behind.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import aiohttp
import grpc
import pytest
import pytest_asyncio

from shared.archive_cache.reads import name_of_group
from shared.read_cache.peers import cache_pb2 as pb
from shared.read_cache.peers.wire import SERVICE
from tests.integration.cache_node.cache_world import SLOWNESS, CacheWorld, Json, cache_world, tell
from tests.integration.cache_node.test_node_processes import (
    FRONT_END,
    NAMES,
    five_nodes,
    fresh,
    ring_of,
)
from tests.stack import StackFactory

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_world() -> AsyncIterator[CacheWorld]:
    factory = StackFactory()
    try:
        async with cache_world(await factory(services=())) as world:
            yield world
    finally:
        await factory.close()


@pytest_asyncio.fixture(loop_scope="module")
async def world(shared_world: CacheWorld) -> CacheWorld:
    await five_nodes(shared_world)
    return shared_world


async def test_a_node_is_killed_under_load(world: CacheWorld) -> None:
    """No reader sees an error, one key of five moves and no other, and the ring is agreed again."""
    items = [fresh() for _ in range(500)]
    keys = [f"items/{item}" for item in items]
    await world.add_closed(*items)
    before = ring_of(await world.agreed(*NAMES))
    survivors = [name for name in NAMES if name != "n2"]
    readers_at = [*survivors, FRONT_END]
    assert {(await world.value(FRONT_END, key)).status for key in keys} == {200}
    warm_loads = await world.total("loads", [*survivors, FRONT_END])
    wrong: list[object] = []
    slowest_s = 0.0
    count = 0
    go_on = True

    async def read(number: int) -> None:
        nonlocal count, slowest_s
        while go_on:
            count += 1
            key = keys[(number * 37 + count) % len(keys)]
            began_s = time.monotonic()
            try:
                answer = await world.value(readers_at[number % len(readers_at)], key)
            except (aiohttp.ClientError, TimeoutError) as error:
                wrong.append(error)
            else:
                if answer.status != 200 or f'"id":"{key[6:]}"'.encode() not in answer.body:
                    wrong.append(answer)
            slowest_s = max(slowest_s, time.monotonic() - began_s)
            await asyncio.sleep(0.02)

    readers = [asyncio.create_task(read(number)) for number in range(20)]
    await asyncio.sleep(0.5)
    world.kill("n2")
    killed_s = time.monotonic()
    after = ring_of(await world.agreed(*survivors))
    agreed_s = time.monotonic() - killed_s
    await asyncio.sleep(1)
    go_on = False
    await asyncio.gather(*readers)
    loads = await world.total("loads", [*survivors, FRONT_END]) - warm_loads
    moved = [key for key in keys if before.owner(key) != after.owner(key)]
    tell(
        f"a node killed under load: {count} gets, {len(wrong)} wrong, slowest {slowest_s:.2f} s, agreed again after "
        f"{agreed_s:.1f} s, {len(moved) / len(keys):.1%} of the keys moved, {loads} questions for them"
    )
    assert wrong == []
    assert count > 100
    assert agreed_s < 5 * SLOWNESS
    assert moved == [key for key in keys if before.owner(key).name == "n2"]
    assert 0.12 < len(moved) / len(keys) < 0.28


async def ask_peer(told: Json, name: str, ask: pb.Ask) -> pb.Answer:
    """Ask one node, as a peer does."""
    async with grpc.aio.insecure_channel(told["nodes"][name]) as channel:
        call = channel.unary_unary(
            f"/{SERVICE}/Get",
            request_serializer=pb.Ask.SerializeToString,
            response_deserializer=pb.Answer.FromString,
        )
        answer: pb.Answer = await call(ask, timeout=60)
        return answer


async def test_a_node_that_was_stopped_never_answers_under_the_old_epoch(world: CacheWorld) -> None:
    """The questions lie before it when it wakes up: it has had no time to notice anything before it reads them."""
    told = await world.agreed(*NAMES)
    ring = ring_of(told)
    item = next(item for item in iter(fresh, "") if ring.owner(f"items/{item}").name == "n0")
    key = f"items/{item}"
    await world.add_closed(item)
    old = await world.value("n1", key)
    ask = pb.Ask(
        ring=pb.RingId(epoch=told["epoch"], fingerprint=ring.fingerprint),
        forwarded=True,
        group=name_of_group("items"),
        first=1,
        keys=[key],
    )
    assert list((await ask_peer(told, "n0", ask)).values) == [old.body]

    world.kill("n0", signal.SIGSTOP)
    early = [asyncio.create_task(ask_peer(told, "n0", ask)) for _ in range(3)]
    await world.agreed(*NAMES[1:])
    async with world.connected() as connection:
        await connection.execute("UPDATE items SET name = 'another' WHERE item_id = $1", item)
    through_others = await world.value("n1", key)
    assert b'"name":"another"' in through_others.body, "its next owner asked anew"
    world.kill("n0", signal.SIGCONT)
    for answer in await asyncio.gather(*early):
        assert (list(answer.states), list(answer.values)) == ([pb.OTHER_RING], [b""])
    after = await world.agreed(*NAMES)
    assert after["epoch"] > told["epoch"]
    assert b'"name":"another"' in (await world.value("n0", key)).body
