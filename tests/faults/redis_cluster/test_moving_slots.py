"""The shards that everybody bids on move between nodes of a cluster."""

from __future__ import annotations

import asyncio

import pytest

from shared.names import shard_of
from tests.faults.redis_cluster.moving import Way, nodes_at
from tests.faults.redis_cluster.progress import bids_on_all
from tests.faults.rig.harness import fault_run
from tests.stack import StackFactory

_MOVES = 6


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("way", "ack"), [("atomic", "redis"), ("key by key", "redis"), ("atomic", "log")])
async def test_busy_shards_move_to_other_nodes(start_stack: StackFactory, way: Way, ack: str) -> None:
    """Bids on them are refused for a moment at most, through either gateway; nothing acknowledged is lost, nothing is
    doubled or hidden."""
    async with fault_run(start_stack, items=6, readers=2, valkey_nodes=3, env={"BID_ACK": ack}) as run:
        run.bidders.gateways.append(await run.add_gateway("second"))
        first = run.stack.ports.redis
        ports = range(first, first + 3)
        shards = sorted({shard_of(item_id) for item_id in run.items})
        assert len(shards) > 1
        async with nodes_at(ports) as nodes, run.bidders.bidding():
            await run.bidders.more(30)
            for _ in range(_MOVES):
                shard = run.chance.choice(shards)
                source = await nodes.port_of(shard)
                target = run.chance.choice([port for port in ports if port != source])
                await nodes.move(shard, target, way)
                run.fault(f"shard {shard} moved from {source} to {target}")
                await asyncio.sleep(run.chance.uniform(0, 0.3))
                await bids_on_all(run, [item_id for item_id in run.items if shard_of(item_id) == shard], within_s=20)
            await bids_on_all(run, run.items)
        await run.prove()


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_a_shard_moves_while_nats_is_away(start_stack: StackFactory) -> None:
    """Whether the shard is an older copy cannot be known then: the node that got it takes no bids until NATS is there
    again. The other nodes do."""
    async with fault_run(start_stack, items=6, valkey_nodes=3) as run:
        first = run.stack.ports.redis
        ports = range(first, first + 3)
        async with nodes_at(ports) as nodes, run.bidders.bidding():
            homes = {item_id: await nodes.port_of(shard_of(item_id)) for item_id in run.items}
            await bids_on_all(run, run.items)
            await run.kill("nats")
            await bids_on_all(run, run.items)
            moving = run.chance.choice(run.items)
            target = run.chance.choice([port for port in ports if port != homes[moving]])
            await nodes.move(shard_of(moving), target, "atomic")
            run.fault(f"shard {shard_of(moving)} moved from {homes[moving]} to {target}")
            await run.bidders.told("UNAVAILABLE", 5, within_s=20)
            elsewhere = [
                item_id for item_id, port in homes.items() if port != target and shard_of(item_id) != shard_of(moving)
            ]
            for _ in range(3):
                await bids_on_all(run, elsewhere, within_s=15)
            await run.start("nats")
            await bids_on_all(run, run.items)
        await run.prove()
