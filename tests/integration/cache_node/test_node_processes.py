"""Five nodes as processes before a real PostgreSQL: one question for a thousand readers, and nodes that come and go in
good order, and one that dies while it asks.

PostgreSQL's own log tells how often it was asked. The tests share their nodes; each leaves five behind.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp
import psutil
import pytest
import pytest_asyncio

from shared.read_cache.ring import Node, Ring
from tests.integration.cache_node.cache_world import PATIENT, SLOWNESS, Answer, CacheWorld, Json, cache_world, tell
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

NAMES = [f"n{number}" for number in range(5)]
FRONT_END = "front"
READERS = 1_000

_fresh = itertools.count()


def fresh() -> str:
    """An item id that nobody has asked for."""
    return f"cold-{next(_fresh)}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_world() -> AsyncIterator[CacheWorld]:
    factory = StackFactory()
    try:
        async with cache_world(await factory(services=(), env=PATIENT)) as world:
            yield world
    finally:
        await factory.close()


@pytest_asyncio.fixture(loop_scope="module")
async def world(shared_world: CacheWorld) -> CacheWorld:
    await five_nodes(shared_world)
    return shared_world


async def five_nodes(world: CacheWorld) -> None:
    """Return once there are five nodes that agree and keep values, and a front end."""
    for name in NAMES:
        if world.stack.processes.get(name) is not None:
            world.kill(name, signal.SIGCONT)
    await world.start(*NAMES)
    if FRONT_END not in world.http:
        await world.start(FRONT_END, role="front_end")
    await world.agreed(*NAMES)
    await world.in_step(*NAMES)


def ring_of(told: Json) -> Ring:
    return Ring(Node(name, address) for name, address in told["nodes"].items())


async def gets_of(world: CacheWorld, key: str, names: list[str]) -> list[asyncio.Task[Answer]]:
    """A thousand gets through all of these at once."""
    return [asyncio.create_task(world.value(names[number % len(names)], key)) for number in range(READERS)]


async def have_asked(world: CacheWorld, names: list[str], before: int) -> None:
    """Return once the nodes have got all of the gets that are under way."""

    async def have() -> bool:
        return await world.total("gets", names) - before >= READERS * 0.95

    await eventually(have, seconds=60)


async def test_a_thousand_gets_of_a_cold_key_through_five_nodes_are_one_question(world: CacheWorld) -> None:
    item = fresh()
    await world.add_closed(item)
    before = await world.total("loads", NAMES)
    began_s = time.monotonic()
    gets = await gets_of(world, f"items/{item}", NAMES)
    answers = await asyncio.gather(*gets)
    took_s = time.monotonic() - began_s
    assert Counter(answer.status for answer in answers) == {200: READERS}
    assert len({answer.body for answer in answers}) == 1
    questions, loads = await world.questions_about(item), await world.total("loads", NAMES) - before
    tell(f"{READERS} gets of a cold key through 5 nodes: {questions} question at PostgreSQL, {took_s:.2f} s")
    assert (questions, loads) == (1, 1)
    # And of one that is not there: its absence is kept for a quarter of a second.
    missing = fresh()
    answers = await asyncio.gather(*[world.value(name, f"items/{missing}") for name in NAMES * 20])
    assert {answer.status for answer in answers} == {404}
    assert await world.questions_about(missing) <= 1 + 5 * (time.monotonic() - began_s)


async def test_while_the_owner_dies_in_the_middle_there_are_two_at_most(world: CacheWorld) -> None:
    told = await world.agreed(*NAMES)
    item = next(item for item in iter(fresh, "") if ring_of(told).owner(f"items/{item}").name == "n1")
    await world.add_closed(item)
    others = [name for name in NAMES if name != "n1"]
    before, loads_before = await world.total("gets", others), await world.total("loads", others)
    owner_before = await world.total("loads", ["n1"])

    async def owner_asks() -> bool:
        return await world.total("loads", ["n1"]) > owner_before

    async def another_asks() -> bool:
        return await world.total("loads", others) > loads_before

    # Nobody is answered while the owner lives: all of them see its death. They are patient: by default each would ask
    # PostgreSQL itself after 250 ms.
    async with world.held_up():
        gets = await gets_of(world, f"items/{item}", others)
        await eventually(owner_asks)
        await have_asked(world, others, before)
        world.kill("n1")
        await eventually(another_asks)
    answers = await asyncio.gather(*gets)
    assert Counter(answer.status for answer in answers) == {200: READERS}, "no reader sees the death"
    # PostgreSQL may notice that the owner has gone before it answers that one's question.
    questions, loads = await world.questions_about(item), 1 + await world.total("loads", others) - loads_before
    tell(f"{READERS} gets of a cold key while its owner is killed: {loads} loads, {questions} answered by PostgreSQL")
    assert loads == 2
    assert questions in (1, 2)


async def test_nodes_come_and_take_over_what_the_others_kept(world: CacheWorld) -> None:
    """Two of five leave in good order and come back: the ring is agreed within seconds, and nothing is loaded anew."""
    items = [fresh() for _ in range(300)]
    await world.add_closed(*items)
    for name in ("n3", "n4"):
        began_s = time.monotonic()
        await world.stack.stop_process(name)
        tell(f"{name} left in {time.monotonic() - began_s:.2f} s")
    three = [name for name in NAMES if name not in ("n3", "n4")]
    await world.agreed(*three)
    for item in items:
        assert (await world.value(FRONT_END, f"items/{item}")).status == 200
    began_s = time.monotonic()
    await world.start("n3", "n4")
    after = ring_of(await world.agreed(*NAMES))
    took_s = time.monotonic() - began_s
    theirs = [item for item in items if after.owner(f"items/{item}").name in ("n3", "n4")]
    assert 0.25 < len(theirs) / len(items) < 0.55

    async def is_warm() -> bool:
        told = [await world.stats(name) for name in ("n3", "n4")]
        return bool(sum(one["entries"] for one in told if one is not None) >= len(theirs))

    await eventually(is_warm, seconds=60)
    before = await world.total("loads")
    for item in items:
        assert (await world.value(FRONT_END, f"items/{item}")).status == 200
    loads = await world.total("loads") - before
    tell(f"3 to 5 nodes, from their start on: {took_s:.1f} s; {len(theirs)} of {len(items)} keys moved, {loads} loads")
    assert took_s < 4 * SLOWNESS
    assert loads == 0


async def test_a_slow_archive_sheds_and_what_is_kept_is_told_all_the_same(world: CacheWorld) -> None:
    item = fresh()
    await world.add_closed(item)
    assert (await world.value("n0", f"items/{item}")).status == 200
    async with world.held_up():
        # More keys of one node than may be asked for and wait at a time.
        told = await world.agreed(*NAMES)
        ring = ring_of(told)
        keys = [f"items/{each}" for each in (fresh() for _ in range(9_000)) if ring.owner(f"items/{each}").name == "n0"]
        assert len(keys) > 1_200
        began_s = time.monotonic()
        gets = [asyncio.create_task(world.value("n0", key)) for key in keys[:1_200]]
        assert (await world.value("n1", f"items/{item}")).status == 200
        answers = await asyncio.gather(*gets)
        took_s = time.monotonic() - began_s
    statuses = Counter(answer.status for answer in answers)
    tell(f"1,200 gets of an archive that does not answer: {dict(statuses)} within {took_s:.1f} s")
    assert set(statuses) == {503}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
    assert took_s < 10 * SLOWNESS

    async def answers_again() -> bool:
        return (await world.value("n0", keys[0])).status == 404

    await eventually(answers_again, seconds=60)


async def test_a_node_is_ready_soon_and_leaves_without_an_error(world: CacheWorld) -> None:
    """As a program, not as a fork of one that has its libraries already."""
    environment = world.stack.service_env | {
        "CACHE_NODE_PORT": str(int((await world.agreed(*NAMES))["nodes"]["n4"].rpartition(":")[2])),
        "CACHE_PORT": world.http["n4"].rpartition(":")[2],
        "CACHE_NODE_NAME": "n4",
        "CACHE_POSTGRES_TIMEOUT_S": "5",
    }
    await world.stack.stop_process("n4")
    began_s = time.monotonic()
    process = await asyncio.create_subprocess_exec(sys.executable, "-P", "-m", "cache_node", env=environment)
    try:

        async def is_ready() -> bool:
            try:
                return (await world.get("n4", "/ready")).status == 200
            except aiohttp.ClientError:
                return False

        await eventually(is_ready, seconds=2 * SLOWNESS * 4)
        ready_s = time.monotonic() - began_s
        used_s = sum(psutil.Process(process.pid).cpu_times()[:2])
        tell(f"a node is ready {ready_s:.2f} s after its start, of which it has computed for {used_s:.2f} s")
        assert ready_s < 2 * SLOWNESS
        item = fresh()
        await world.add_closed(item)
        before = await world.total("gets", ["n4"])

        async def is_asked() -> bool:
            return await world.total("gets", ["n4"]) > before

        async def takes_no_more() -> bool:
            return await world.stats("n4") is None

        async with world.held_up():
            get = asyncio.create_task(world.value("n4", f"items/{item}"))
            await eventually(is_asked)
            process.terminate()
            await eventually(takes_no_more)
        assert (await get).status == 200, "what was under way is answered"
        assert await asyncio.wait_for(process.wait(), 30) in (0, -signal.SIGTERM)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    await world.agreed(*NAMES[:4])
