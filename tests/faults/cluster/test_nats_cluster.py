"""Row 39 of the table in docs/guarantees.md, and the defaults of production: three NATS servers with R3, `BID_ACK=log`,
Redis with a replica that follows it in its own time."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER, BROADCAST_SERVICE
from infrastructure.local.stack import Stack
from tests.faults.cluster.nats_cluster import NatsCluster
from tests.faults.failover.replicas import Failover
from tests.faults.rig.harness import fault_run
from tests.stack import StackFactory

_ENV = {"BID_ACK": "log", "BID_ACK_TIMEOUT_MS": "2000", "NATS_STREAM_REPLICAS": "3"}
# Until the two others have noticed that a silent leader is gone and have chosen another one.
_ELECTED_S = 90.0


@pytest.mark.faults
@pytest.mark.timeout(400)
async def test_row_39_the_defaults_of_production_and_their_servers_fail(start_stack: StackFactory) -> None:
    """The leader of the stream is killed, the next one cut off, one loses its disk, and last Redis fails over: nothing
    acknowledged is lost, nothing doubled, and bids go on after each."""
    async with (
        NatsCluster() as cluster,
        Failover() as failover,
    ):

        async def lines(stack: Stack) -> Mapping[str, Mapping[str, str]]:
            await cluster.start(stack)
            env = await failover.between(stack)
            services = (API_GATEWAY, BROADCAST_SERVICE, ARCHIVAL_WORKER)
            return {name: {**env[name], "NATS_URL": cluster.url} for name in services}

        async with fault_run(start_stack, bidders=4, env=_ENV, lines=lines) as run:
            run.nats_url = cluster.url
            async with run.bidders.bidding():
                await run.bidders.more(20)
                await cluster.in_step(run)

                victim = await cluster.leader(run)
                await run.kill(victim)
                await run.bidders.more(run.some(20, 40), within_s=_ELECTED_S)
                await run.start(victim)
                await cluster.in_step(run)

                victim = await cluster.leader(run)
                cluster.cut_off(run, victim)
                await run.bidders.more(run.some(20, 40), within_s=_ELECTED_S)
                cluster.join(run, victim)
                await cluster.in_step(run)
                await run.bidders.more(10)

                victim = run.chance.choice(("nats-0", "nats-1", "nats-2"))
                await run.kill(victim)
                cluster.wipe(run, victim)
                await run.bidders.more(run.some(20, 40), within_s=_ELECTED_S)
                await run.start(victim)
                await cluster.in_step(run)
                await run.bidders.more(10)

                failover.cut_off(run)
                await run.bidders.more(run.some(20, 40))
                await run.kill("redis")
                await failover.promote(run)
                await run.bidders.told("BEING_REBUILT", 5, within_s=40)
                code, said = await run.recover()
                assert code == 0, said
                await run.bidders.more(30, within_s=60)
            await run.prove()
