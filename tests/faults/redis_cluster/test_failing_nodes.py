"""A node of a cluster fails: with a replica, with one that lacks entries, and without one."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from infrastructure.local.servers.valkey_cluster import name_of
from shared.names import shard_of
from shared.redis_layout.keys import cursors_key
from tests.faults.redis_cluster.moving import nodes_at
from tests.faults.redis_cluster.progress import bids_on_all, is_closed
from tests.faults.redis_cluster.replicas import add_replicas_of, cut_off
from tests.faults.rig.harness import FaultRun, fault_run
from tests.stack import StackFactory
from tests.waiting import eventually

BidAck = Literal["redis", "replica", "log"]

_ENV = {"BID_ACK_TIMEOUT_MS": "1500"}


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.parametrize("ack", ["redis", "replica", "log"])
async def test_a_node_fails_over_to_its_replica(start_stack: StackFactory, ack: BidAck) -> None:
    """Bids on its items are refused until its replica has taken over; those of the others go on. It comes back as a
    replica. Nothing acknowledged is lost, but with `redis` for what its replica had not got yet."""
    async with fault_run(start_stack, items=6, valkey_nodes=3, env=_ENV | {"BID_ACK": ack}) as run:
        first = run.stack.ports.redis
        ports = range(first, first + 3)
        async with nodes_at(ports) as nodes:
            homes = {item_id: await nodes.port_of(shard_of(item_id)) for item_id in run.items}
            replicas = await add_replicas_of(run.stack, nodes, ports)
        victim = run.chance.choice(sorted(set(homes.values())))
        name = name_of(victim - first + 1)
        others = [item_id for item_id, port in homes.items() if port != victim]
        async with nodes_at([port for port in ports if port != victim]) as nodes, run.bidders.bidding():
            await run.bidders.more(40)
            await run.kill(name)
            if ack == "redis":
                run.lost()
            await bids_on_all(run, others)
            for item_id in homes.keys() - set(others):
                await nodes.agree(shard_of(item_id), replicas[victim])
            run.note("the replica has taken over")
            await run.start(name)
            if ack == "redis" and await is_closed(run):
                code, said = await run.recover()
                assert code == 0, said
            await bids_on_all(run, run.items)
        await run.prove()


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.parametrize("ack", ["redis", "log"])
async def test_a_node_fails_over_to_a_replica_that_lacks_the_newest_entries(
    start_stack: StackFactory, ack: BidAck
) -> None:
    """Its shards take no bids until `recover`, those of the other nodes go on; no number is given out twice.

    With `redis`, what only the dead node knew is lost, which is what that level says; so there the bidders rest until
    the stream has everything.
    """
    async with fault_run(start_stack, items=6, valkey_nodes=3, env=_ENV | {"BID_ACK": ack}) as run:
        first = run.stack.ports.redis
        ports = range(first, first + 3)
        async with nodes_at(ports) as nodes:
            homes = {item_id: await nodes.port_of(shard_of(item_id)) for item_id in run.items}
            victim = run.chance.choice(sorted(set(homes.values())))
            replicas = await add_replicas_of(run.stack, nodes, [victim])
            others = [item_id for item_id, port in homes.items() if port != victim]
            async with run.bidders.bidding():
                await run.bidders.more(30)
                await cut_off(nodes, victim, replicas[victim])
                run.fault("the replica is cut off")
                await bids_on_all(run, run.items)
                await run.bidders.more(run.some(30, 60))
                if ack == "log":
                    await run.kill(name_of(victim - first + 1))
        if ack == "redis":
            await eventually(lambda: _all_published(run))
            await run.kill(name_of(victim - first + 1))
        run.lost()
        async with nodes_at([port for port in ports if port != victim]) as nodes, run.bidders.bidding():
            for item_id in homes.keys() - set(others):
                await nodes.agree(shard_of(item_id), replicas[victim])
            run.note("the replica has taken over")
            await run.bidders.told("BEING_REBUILT", 5, within_s=40)
            await bids_on_all(run, others)
            code, said = await run.recover()
            assert code == 0, said
            await bids_on_all(run, run.items)
        await run.prove()


async def _all_published(run: FaultRun) -> bool:
    async with run.redis() as redis:
        for item_id in run.items:
            published, newest = await redis.hmget(cursors_key(shard_of(item_id)), ["published", "next"])
            if published != newest:
                return False
    return True


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_a_node_without_a_replica_is_away_for_a_while(start_stack: StackFactory) -> None:
    """Its items take no bids meanwhile; those of the other nodes go on, also while it hangs."""
    async with fault_run(start_stack, items=6, valkey_nodes=3) as run:
        first = run.stack.ports.redis
        async with nodes_at(range(first, first + 3)) as nodes:
            homes = {item_id: await nodes.port_of(shard_of(item_id)) for item_id in run.items}
        victim = run.chance.choice(sorted(set(homes.values())))
        name = name_of(victim - first + 1)
        others = [item_id for item_id, port in homes.items() if port != victim]
        async with run.bidders.bidding():
            await run.bidders.more(40)
            await run.kill(name)
            for _ in range(3):
                await bids_on_all(run, others, within_s=10)
            await asyncio.sleep(run.chance.uniform(1, 4))
            await run.start(name)
            await bids_on_all(run, run.items)
            run.suspend(name)
            for _ in range(5):
                await bids_on_all(run, others, within_s=15)
            run.resume(name)
            await bids_on_all(run, run.items)
        await run.prove()
