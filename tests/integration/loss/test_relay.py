"""The relay alone, beside real servers: what it does with more than it can carry at once."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from api_gateway.engine.relay.relay import Relay, RelayOptions
from api_gateway.engine.relay.shard_scripts import ShardScripts
from shared import names
from shared.clients.nats import NatsLink
from shared.clients.redis import open_redis
from shared.redis_layout.cursors import Lineage
from tests.integration.feed.feed_world import AuctionHouse
from tests.stack import StackFactory

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
        options = RelayOptions(entries_per_shard=3, entries_per_cycle=4, ack_timeout_s=60)
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
