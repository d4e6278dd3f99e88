"""Row 41 of the table in docs/guarantees.md: Redis is wiped and rebuilt while bids come in and viewers watch."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.rig.harness import FaultRun, fault_run
from tests.stack import StackFactory

# What is acknowledged is in the stream: FLUSHALL takes away the rest, and that is what `redis` as a level says.
_ENV = {"BID_ACK": "log"}
_WATCHERS_S = 30.0


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_row_41_redis_is_wiped_and_rebuilt_again_and_again_under_load(start_stack: StackFactory) -> None:
    """Bidders never stop and are told 503 meanwhile; what they were told before is there, in one history, afterwards.

    Nobody reads from the gateways: with `log`, a read may show a bid that is not acknowledged yet, and never is.
    """
    async with fault_run(start_stack, bidders=8, viewers=6, env=_ENV) as run:
        async with run.bidders.bidding():
            await run.bidders.more(30)
            for epoch in (2, 3, 4):
                await _wipe_and_rebuild(run)
                await run.bidders.more(run.some(20, 60))
                await asyncio.gather(*(watcher.reached(1, within_s=_WATCHERS_S) for watcher in run.watchers))
                async with run.postgres() as postgres:
                    newest = await postgres.fetchval("SELECT max(epoch) FROM bids")
                assert newest == epoch, "the bids since then must be of the new epoch"
        await run.prove()
        assert run.bidders.codes["BEING_REBUILT"] > 0
        epochs = {frame.epoch for watcher in run.watchers for frames in watcher.view().connections for frame in frames}
        assert epochs == {1, 2, 3, 4}, "the viewers must have watched through all of it"


async def _wipe_and_rebuild(run: FaultRun) -> None:
    async with run.redis() as redis:
        await redis.flushall()
    run.lost()
    run.fault("FLUSHALL")
    await run.bidders.told("BEING_REBUILT", 20)
    # An operator takes a moment; bidders do not wait for it.
    await asyncio.sleep(run.chance.uniform(0, 2))
    code, said = await run.recover()
    assert code == 0, said
