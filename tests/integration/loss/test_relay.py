"""The relay alone, beside real servers: what it does with more than it can carry at once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import pytest
from redis import Redis

from api_gateway.engine.relay.options import RelayOptions
from api_gateway.engine.relay.relay import Relay
from api_gateway.engine.relay.shard_scripts import ShardScripts
from shared import names
from shared.clients.nats import NatsLink
from shared.clients.redis import open_redis
from shared.redis_layout.cursors import Lineage
from shared.redis_layout.keys import cursors_key
from tests.faults.rig.proxy import FaultyProxy
from tests.integration.feed.feed_world import AuctionHouse
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.integration


async def test_what_many_shards_have_waiting_is_carried_in_bounded_loads(start_stack: StackFactory) -> None:
    """As after an outage of NATS: 7 and 3 entries, at most 4 in one cycle, at most 3 of them of one shard."""
    stack = await start_stack(services=())
    moves: list[tuple[str, int]] = []
    carried = asyncio.Event()

    def moved(shard: str, _: Lineage, entry: int) -> None:
        moves.append((shard, entry))
        if moves.count((long, 7)) and moves.count((short, 3)):
            carried.set()

    async with AuctionHouse.at(stack.urls.redis_url, stack.urls.nats_url) as house:
        long, short = names.shard_of("long"), names.shard_of("short")
        assert long != short
        for item, bids in (("long", 6), ("short", 2)):
            await house.create(item)
            for number in range(1, bids + 1):
                await house.decide(item, 100 * number)
        redis, link = open_redis(stack.urls.redis_url), NatsLink(stack.urls.nats_url, name="relay")
        # A PubAck that a slow disk holds back would divide a cycle.
        options = RelayOptions(entries_per_shard=3, entries_per_turn=4, ack_timeout_s=60)
        relay = Relay(redis, ShardScripts(redis), link, options=options, on_published=moved)
        running = asyncio.create_task(relay.run())
        try:
            async with asyncio.timeout(90):
                await carried.wait()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await relay.release()
            await link.close()
            await redis.aclose()
    # In the first cycle the relay may look at all shards, and takes one entry of each.
    of_short = [entry for shard, entry in moves if shard == short]
    assert of_short in ([2, 3], [1, 3])
    of_long = [entry for shard, entry in moves if shard == long]
    assert of_long[:2] == [of_short[0], of_short[0] + 2], "while the other shard has something, each gets its share"
    steps = [after - before for before, after in itertools.pairwise([0, *of_long])]
    assert max(steps) <= 3
    assert of_long[-1] == 7


@asynccontextmanager
async def relaying(redis_url: str, nats_port: int) -> AsyncIterator[Relay]:
    """One gateway's relay, with short leases."""
    redis, link = open_redis(redis_url), NatsLink(f"nats://127.0.0.1:{nats_port}", name="relay", timeout_s=3)
    options = RelayOptions(lease_ms=4_000, poll_ms=50, ack_timeout_s=3, backoff_max_s=0.2)
    relay = Relay(redis, ShardScripts(redis), link, options=options)
    running = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await relay.release()
        await link.close()
        await redis.aclose()


@pytest.mark.timeout(300)
async def test_shards_go_to_a_gateway_that_reaches_nats_and_stay_where_none_does(start_stack: StackFactory) -> None:
    stack = await start_stack(services=())
    item, every = "lot", set(names.SHARDS)
    cursors = cursors_key(names.shard_of(item))
    async with AsyncExitStack() as around:
        house = await around.enter_async_context(AuctionHouse.at(stack.urls.redis_url, stack.urls.nats_url))
        line, other_line = [await around.enter_async_context(FaultyProxy(stack.ports.nats)) for _ in range(2)]
        redis = around.enter_context(contextlib.closing(Redis.from_url(stack.urls.redis_url, protocol=2)))
        await house.create(item)
        one = await around.enter_async_context(relaying(stack.urls.redis_url, line.port))

        async def all_published() -> bool:
            entry, published = cast(Any, redis.hmget(cursors, ["next", "published"]))
            return bool(entry == published)

        def is_cut_off(relay: Relay, expected: bool = True) -> Callable[[], Awaitable[bool]]:
            async def is_it() -> bool:
                return relay.health.cut_off is expected

            return is_it

        def owner_is(relay: Relay, shards: Collection[str] = every) -> Callable[[], Awaitable[bool]]:
            async def owns() -> bool:
                return set(relay.owned_shards()) == set(shards)

            return owns

        await eventually(all_published, seconds=60)
        two = await around.enter_async_context(relaying(stack.urls.redis_url, other_line.port))
        await eventually(owner_is(one), seconds=60)

        line.refuse()
        await house.decide(item, 100)
        await eventually(all_published, seconds=60)
        await eventually(owner_is(two), seconds=60)
        await eventually(owner_is(one, ()), seconds=60)
        assert one.health.cut_off
        line.heal()
        await eventually(is_cut_off(one, False), seconds=60)
        await asyncio.sleep(4.5)
        assert set(two.owned_shards()) == every, "who came back takes nothing from one that publishes"

        line.refuse()
        other_line.refuse()
        await house.decide(item, 200)
        await eventually(is_cut_off(one), seconds=60)
        await eventually(is_cut_off(two), seconds=60)
        for _ in range(100):
            assert set(two.owned_shards()) == every, "items close on time, whether NATS is there or not"
            await asyncio.sleep(0.05)
        line.heal()
        await eventually(all_published, seconds=60)
        await eventually(owner_is(one), seconds=60)
        other_line.heal()
