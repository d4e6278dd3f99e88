"""Pauses longer than a lease (6 s), and than `recover` waits for gateways (6 s), at any place of a rebuilding."""

from __future__ import annotations

import asyncio

import pytest

from archival_worker.recovery.options import SETTLE_S
from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER, BROADCAST_SERVICE
from tests.faults.partitions.links import Line, Links
from tests.faults.rig.harness import FaultRun, fault_run
from tests.stack import StackFactory

_ENV = {"BID_ACK": "log"}
_LEASE_S = 6.0
_LONG_S = max(SETTLE_S, _LEASE_S) + 2.0
# From FLUSHALL to the end of a rebuilding, with its start: a pause begins somewhere in it.
_REBUILDING_S = 8.0


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.parametrize("sleeper", [API_GATEWAY, ARCHIVAL_WORKER, BROADCAST_SERVICE, "nats"])
async def test_a_part_sleeps_through_a_rebuilding(start_stack: StackFactory, sleeper: str) -> None:
    """SIGSTOP at a random moment around FLUSHALL, for longer than anybody waits; it wakes up in another epoch."""
    async with fault_run(start_stack, env=_ENV) as run:
        awake = await run.add_gateway("second")
        run.bidders.gateways.append(awake)
        async with run.bidders.bidding():
            for _ in range(2):
                await run.bidders.more(run.some(20, 60))
                asleep = asyncio.create_task(_sleep_somewhere(run, sleeper))
                if sleeper == API_GATEWAY:
                    run.bidders.gateways = [awake]
                await _wipe_and_rebuild(run)
                await asleep
                run.bidders.gateways = [run.stack.urls.gateway_url, awake]
                await run.bidders.more(30, within_s=60)
        await run.prove()


async def _sleep_somewhere(run: FaultRun, sleeper: str) -> None:
    """Wakes up in any case: a part that is stopped would not end with the stack in its orderly way."""
    await asyncio.sleep(run.chance.uniform(0, _REBUILDING_S))
    run.suspend(sleeper)
    try:
        await asyncio.sleep(_LONG_S)
    finally:
        run.resume(sleeper)


async def _wipe_and_rebuild(run: FaultRun) -> None:
    await asyncio.sleep(run.chance.uniform(0, 3))
    async with run.redis() as redis:
        await redis.flushall()
    run.lost()
    run.fault("FLUSHALL")
    for _ in range(6):
        code, said = await run.recover()
        if code == 0:
            return
        # A server that it needs is asleep: an operator calls it again, as it says.
        run.note(f"recover said: {said.splitlines()[-1]}")
        await asyncio.sleep(2)
    raise AssertionError("recover did not come to an end")


@pytest.mark.faults
@pytest.mark.timeout(200)
async def test_events_of_a_former_epoch_arrive_when_all_is_rebuilt(start_stack: StackFactory) -> None:
    """What a gateway has sent to NATS is on its way for longer than `recover` waits, and arrives behind the first bids
    of the new epoch. Nobody was told of these bids, and they must not come back to life."""
    async with Links() as links, fault_run(start_stack, env=_ENV, lines=links.between) as run:
        to_nats = Line(API_GATEWAY, "nats")
        second = await run.add_gateway("second")
        async with run.bidders.bidding():
            await run.bidders.more(run.some(20, 40))
            links.part(to_nats, "no requests")
            run.fault("what the first gateway publishes is held up")
            await run.bidders.told("OUTCOME_UNKNOWN", 10)
            assert links.proxies[to_nats].held > 0, "something must be on its way"
            # It relays no more, so that the second gateway publishes what is decided from now on.
            run.suspend(API_GATEWAY)
            run.bidders.gateways = [second]
            await _wipe_and_rebuild(run)
            await run.bidders.more(30, within_s=60)
            links.proxies[to_nats].heal(late=True)
            run.fault("it arrives")
            await run.bidders.more(30)
            run.resume(API_GATEWAY)
            run.bidders.gateways = [run.stack.urls.gateway_url, second]
            await run.bidders.more(30, within_s=60)
        await run.prove()
