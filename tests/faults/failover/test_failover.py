"""Row 30 of the table in docs/guarantees.md: a failover to a real replica that lacks the newest entries, under load."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Literal

import pytest

from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from shared.names import shard_of
from shared.redis_layout.keys import cursors_key
from tests.faults.failover.replicas import Failover
from tests.faults.partitions.links import Line
from tests.faults.rig.harness import FaultRun, fault_run
from tests.stack import StackFactory
from tests.waiting import eventually

BidAck = Literal["redis", "replica", "log"]
Stream = Literal["the stream is there", "the stream is out of reach"]

_TO_NATS = Line(API_GATEWAY, "nats")
_UNREACHABLE_S = 4.0


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.parametrize("stream", ["the stream is there", "the stream is out of reach"])
@pytest.mark.parametrize("ack", ["redis", "replica", "log"])
async def test_row_30_a_failover_to_a_replica_that_lacks_the_newest_entries(
    start_stack: StackFactory, ack: BidAck, stream: Stream
) -> None:
    """What went back takes no bids until `recover`; what was published or archived comes back; no number twice.

    With `redis`, a bid that only the dead primary knew is lost, which is what that level says; so there the bidders
    rest until the stream has everything. With the other two they never stop: nothing acknowledged may be lost.
    """
    env = {"BID_ACK": ack, "BID_ACK_TIMEOUT_MS": "1500"}
    async with Failover() as failover, fault_run(start_stack, env=env, lines=failover.between) as run:
        async with run.bidders.bidding():
            await run.bidders.more(30)
            if stream == "the stream is out of reach":
                # The archive's word alone would be an old one.
                await run.kill(ARCHIVAL_WORKER)
                await run.bidders.more(run.some(10, 20))
            failover.cut_off(run)
            await _decide_more(run, ack)
            if ack != "redis":
                await _fail_over(run, failover, stream)
        if ack == "redis":
            await eventually(lambda: _all_published(run))
            await _fail_over(run, failover, stream)
        async with run.bidders.bidding():
            if stream == "the stream is out of reach":
                await asyncio.sleep(_UNREACHABLE_S)
                failover.links.proxies[_TO_NATS].heal()
                run.note("the stream is there again")
                await run.start(ARCHIVAL_WORKER)
            await run.bidders.told("BEING_REBUILT", 5, within_s=40)
            code, said = await run.recover()
            assert code == 0, said
            await run.bidders.more(30, within_s=60)
        await run.prove()


async def _decide_more(run: FaultRun, ack: BidAck) -> None:
    """Entries that the replica never gets."""
    if ack == "replica":
        await run.bidders.told("OUTCOME_UNKNOWN", run.some(8, 16))
    else:
        await run.bidders.more(run.some(30, 60))
    async with run.redis() as redis:
        nexts = [await redis.hget(cursors_key(shard_of(item_id)), "next") for item_id in run.items]
    run.note(f"entries given out by the primary: {nexts}")


async def _fail_over(run: FaultRun, failover: Failover, stream: Stream) -> None:
    before = Counter(run.bidders.codes)
    if stream == "the stream is out of reach":
        failover.links.part(_TO_NATS, "refused")
        run.fault("the gateway does not reach the stream")
    await run.kill("redis")
    await failover.promote(run)
    run.note(f"told meanwhile: {dict(+(Counter(run.bidders.codes) - before))}")


async def _all_published(run: FaultRun) -> bool:
    async with run.redis() as redis:
        for item_id in run.items:
            published, newest = await redis.hmget(cursors_key(shard_of(item_id)), ["published", "next"])
            if published != newest:
                return False
    return True
