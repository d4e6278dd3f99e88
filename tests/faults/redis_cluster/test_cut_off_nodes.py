"""A primary of a cluster is cut off from all other nodes, or sleeps, until its replica has taken over.

The gateway still reaches it: the worst case, since it goes on asking a node that does not know what it has lost.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal

import pytest

from infrastructure.local.servers.valkey_cluster import name_of
from shared.names import shard_of
from tests.faults.redis_cluster.bus import ADDRESSES_OF_LOOPBACK, bus_of
from tests.faults.redis_cluster.moving import nodes_at
from tests.faults.redis_cluster.progress import bids_on_all, is_closed
from tests.faults.redis_cluster.replicas import add_replicas_of, cut_off
from tests.faults.rig.harness import FaultRun, fault_run
from tests.faults.rig.history import violations
from tests.stack import StackFactory

BidAck = Literal["redis", "replica", "log"]

_ENV = {"BID_ACK_TIMEOUT_MS": "1500"}


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.skipif(not ADDRESSES_OF_LOOPBACK, reason="needs several addresses of loopback")
@pytest.mark.parametrize(("ack", "is_careful"), [("redis", False), ("redis", True), ("replica", False), ("log", False)])
async def test_a_primary_is_cut_off_from_all_other_nodes(
    start_stack: StackFactory, ack: BidAck, is_careful: bool
) -> None:
    """It takes bids until it notices, 5 s later. With `replica` and `log` nothing that was acknowledged is lost, nor
    with `min-replicas-to-write`; with `redis` what was decided then may be."""
    async with fault_run(start_stack, items=6, valkey_nodes=3, env=_ENV | {"BID_ACK": ack}) as run:
        first = run.stack.ports.redis
        ports = range(first, first + 3)
        async with nodes_at(ports) as nodes:
            homes = {item_id: await nodes.port_of(shard_of(item_id)) for item_id in run.items}
            replicas = await add_replicas_of(run.stack, nodes, ports)
            victim = run.chance.choice(sorted(set(homes.values())))
            others = [item_id for item_id, port in homes.items() if port != victim]
            if is_careful:
                for client in nodes.clients.values():
                    await client.config_set("min-replicas-to-write", "1")
                    await client.config_set("min-replicas-max-lag", "2")
            async with bus_of(await _bus_ports([*ports, *replicas.values()])) as bus, run.bidders.bidding():
                await run.bidders.more(40)
                bus.cut_off([victim])
                await cut_off(nodes, victim, replicas[victim])
                cut_s = time.monotonic()
                run.fault(f"the node on {victim} is cut off from all others")
                await bids_on_all(run, others)
                async with nodes_at([port for port in ports if port != victim]) as side:
                    for item_id in homes.keys() - set(others):
                        await side.agree(shard_of(item_id), replicas[victim])
                taken_s = time.monotonic()
                if ack == "redis" and not is_careful:
                    run.lost()
                run.note("its replica has taken over")
                assert bus.held
                await bids_on_all(run, others)
                bus.join()
                run.note("the partition is over")
                for item_id in homes.keys() - set(others):
                    await nodes.agree(shard_of(item_id), replicas[victim])
                if await is_closed(run):
                    code, said = await run.recover()
                    assert code == 0, said
                await bids_on_all(run, run.items)
        if ack != "redis" or is_careful:
            await run.prove()
        else:
            await _judge_what_may_be_lost(run, others, cut_s, taken_s)


async def _judge_what_may_be_lost(run: FaultRun, others: list[str], cut_s: float, taken_s: float) -> None:
    """Bids that the node which was cut off acknowledged meanwhile, and nothing else."""
    meanwhile = lost = 0
    for history in await run.settle():
        if history.item_id in others:
            assert not violations(history)
            continue
        assert not history.doubled
        for sent in history.ledger.acknowledged:
            told_s = min(each.completed_s for each in sent.oks)
            meanwhile += cut_s <= told_s <= taken_s
            if sent.position is None:
                assert cut_s - 1 <= told_s <= taken_s + 1, f"{sent.name} was acknowledged at another time"
                lost += 1
    run.note(f"{lost} of {meanwhile} bids that were acknowledged meanwhile are lost")


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_a_primary_sleeps_while_its_replica_takes_over(start_stack: StackFactory) -> None:
    """It wakes up, believes for a moment that nothing has happened, and has requests that wait for it."""
    async with fault_run(start_stack, items=6, valkey_nodes=3, env=_ENV | {"BID_ACK": "replica"}) as run:
        first = run.stack.ports.redis
        ports = range(first, first + 3)
        async with nodes_at(ports) as nodes:
            homes = {item_id: await nodes.port_of(shard_of(item_id)) for item_id in run.items}
            replicas = await add_replicas_of(run.stack, nodes, ports)
            victim = run.chance.choice(sorted(set(homes.values())))
            name = name_of(victim - first + 1)
            others = [item_id for item_id, port in homes.items() if port != victim]
            async with run.bidders.bidding():
                await run.bidders.more(40)
                run.suspend(name)
                await bids_on_all(run, others)
                async with nodes_at([port for port in ports if port != victim]) as side:
                    for item_id in homes.keys() - set(others):
                        await side.agree(shard_of(item_id), replicas[victim])
                run.note("its replica has taken over")
                await asyncio.sleep(run.chance.uniform(0, 3))
                run.resume(name)
                if await is_closed(run):
                    code, said = await run.recover()
                    assert code == 0, said
                await bids_on_all(run, run.items)
                for item_id in homes.keys() - set(others):
                    await nodes.agree(shard_of(item_id), replicas[victim])
        await run.prove()


async def _bus_ports(ports: list[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    async with nodes_at(ports) as nodes:
        for port, client in nodes.clients.items():
            answer: Any = await client.config_get("cluster-port")
            found[port] = int(answer["cluster-port"])
    return found
