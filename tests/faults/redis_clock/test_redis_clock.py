"""Row 42 of the table in docs/guarantees.md: the clock under Redis jumps, and nobody else's does."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import httpx2 as httpx
import pytest

from infrastructure.local.services import API_GATEWAY
from infrastructure.local.stack import Stack
from tests.faults.redis_clock.shifted import RedisClock, needs_compiler
from tests.faults.rig.harness import FaultRun, fault_run
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = needs_compiler

_HOUR_S = 3_600
_ENDS_IN_S = 1_800
_TIMES = """
SELECT seq, placed_at AS at FROM bids WHERE item_id = $1 UNION ALL SELECT seq, at FROM events WHERE item_id = $1
ORDER BY seq
"""
_CLOSED = "SELECT seq, at FROM events WHERE item_id = $1 AND type = 'closed'"
_LAST_BID = "SELECT max(seq) FROM bids WHERE item_id = $1"


class _Clocks:
    """A clock for the Redis of a run, made when its stack is there."""

    clock: RedisClock

    async def under(self, stack: Stack) -> Mapping[str, Mapping[str, str]]:
        self.clock = RedisClock(stack.data_dir / "clock")
        await self.clock.start_under(stack)
        return {}

    async def jump(self, run: FaultRun, shift_s: int) -> None:
        """Jump, and see that Redis does."""
        self.clock.jump_to(shift_s)
        off_s = await self.clock.shift_s(run)
        assert abs(off_s - shift_s) < 60, f"Redis is {off_s} s off"
        run.wall_offset_s = None  # the judge cannot compare its clock with ours any more
        run.fault(f"the clock of Redis is {shift_s} s off")


async def test_row_42_bids_go_on_whatever_the_clock_of_redis_does(start_stack: StackFactory) -> None:
    """An hour back, an hour forward, an hour back over a restart, and right again: nobody is refused for it."""
    clocks = _Clocks()
    async with fault_run(start_stack, lines=clocks.under) as run:
        async with run.bidders.bidding():
            await run.bidders.more(20)
            await clocks.jump(run, -_HOUR_S)
            await run.bidders.more(40)
            await clocks.jump(run, _HOUR_S)
            await run.bidders.more(40)
            await run.kill("redis")
            clocks.clock.jump_to(-_HOUR_S)
            await run.start("redis")
            await run.bidders.more(40)
            await clocks.jump(run, 0)
            await run.bidders.more(40)
        await run.prove()
        await _times_never_fall(run)


async def _times_never_fall(run: FaultRun) -> None:
    async with run.postgres() as postgres:
        for item_id in run.items:
            times = [(row["seq"], row["at"]) for row in await postgres.fetch(_TIMES, item_id)]
            back = [pair for pair in itertools.pairwise(times) if pair[1][1] < pair[0][1]]
            assert not back, f"{item_id}: the time of an event is before that of the one before it: {back[:3]}"


@pytest.mark.faults
@pytest.mark.timeout(240)
async def test_row_42_ends_and_pauses_when_the_clock_jumps(start_stack: StackFactory) -> None:
    """Ahead: what ends within the hour is closed, once and for good. Back: the end waits for the clock of Redis, and a
    pause never takes time away from an item."""
    clocks = _Clocks()
    async with fault_run(start_stack, items=0, bidders=0, viewers=0, lines=clocks.under) as run:
        await run.create({name: {"duration_s": _ENDS_IN_S} for name in ("early", "paused", "late")})
        async with httpx.AsyncClient(base_url=run.stack.urls.gateway_url, timeout=20) as http:
            await _bid(http, run, "early", 1, "ok")
            await _bid(http, run, "late", 1, "ok")
            await _operate(http, "paused", "pause")
            end = await _end(http, "paused")

            await clocks.jump(run, -_HOUR_S)
            await _bid(http, run, "late", 2, "ok")
            await _operate(http, "paused", "resume")
            assert await _end(http, "paused") >= end, "the pause has taken time away"
            await _bid(http, run, "paused", 2, "ok")
            await _operate(http, "late", "pause")

            await clocks.jump(run, _HOUR_S)
            await _is(http, "early", "sold")
            await _is(http, "paused", "sold")
            await _bid(http, run, "early", 100, "refused")
            # Two hours of pause by the clock that decides.
            await _operate(http, "late", "resume")
            await _bid(http, run, "late", 100, "ok")

            await clocks.jump(run, 0)
            for name in ("early", "paused"):
                await _bid(http, run, name, 200, "refused")
            await _bid(http, run, "late", 200, "ok")
            late_end = await _end(http, "late")
            remaining_s = (late_end - datetime.now(late_end.tzinfo)).total_seconds()
            # Ahead again, past its end: the hour that the clock was ahead while it was open belongs to its end.
            await clocks.jump(run, int(remaining_s) + 60)
            await _is(http, "late", "sold")
            await clocks.jump(run, 0)
            await _bid(http, run, "late", 300, "refused")
        await run.prove()
        await _times_never_fall(run)
        async with run.postgres() as postgres:
            for item_id in run.items:
                (closed,) = await postgres.fetch(_CLOSED, item_id)
                assert await postgres.fetchval(_LAST_BID, item_id) < closed["seq"], f"{item_id}: a bid after its close"


@pytest.mark.faults
@pytest.mark.timeout(240)
async def test_row_42_no_lease_outlives_the_clock(start_stack: StackFactory) -> None:
    """The owner of all shards dies, and the clock goes back an hour: its leases must not last for that hour."""
    clocks = _Clocks()
    async with fault_run(start_stack, lines=clocks.under) as run:
        second = await run.add_gateway("second")
        async with run.bidders.bidding():
            await run.bidders.more(20)
            run.bidders.gateways = [second]
            await run.kill(API_GATEWAY)
            await clocks.jump(run, -_HOUR_S)
            await run.bidders.more(40)
        await eventually(lambda: _all_archived(run), seconds=30)
        run.note("the other gateway relays all shards")
        await run.start(API_GATEWAY)
        await run.prove()


@pytest.mark.faults
@pytest.mark.timeout(240)
async def test_row_42_leases_and_a_clock_that_goes_ahead(start_stack: StackFactory) -> None:
    """Every lease has run out at once, while both gateways live: whoever takes them, nothing is lost or doubled."""
    clocks = _Clocks()
    async with fault_run(start_stack, lines=clocks.under) as run:
        run.bidders.gateways.append(await run.add_gateway("second"))
        async with run.bidders.bidding():
            await run.bidders.more(20)
            for hours in (1, 2, 3, 0):
                await clocks.jump(run, hours * _HOUR_S)
                await run.bidders.more(30)
        await eventually(lambda: _all_archived(run), seconds=30)
        await run.prove()


async def _all_archived(run: FaultRun) -> bool:
    async with run.postgres() as postgres:
        for item_id in run.items:
            told = max((each.seq or 0 for each in run.bidders.requests[item_id]), default=0)
            if (await postgres.fetchval(_LAST_BID, item_id) or 0) < told:
                return False
    return True


async def _bid(http: httpx.AsyncClient, run: FaultRun, item_id: str, amount: int, expected: str) -> None:
    url = str(http.base_url)
    outcome = await run.bidders.place(http, url, f"{item_id}-{amount}", item_id, f"user-{amount}", amount)
    assert outcome == expected, f"{item_id}: {outcome} and not {expected}"


async def _operate(http: httpx.AsyncClient, item_id: str, operation: str) -> None:
    answer = await http.post(f"/api/v1/items/{item_id}/{operation}", json={"reason": "a test"})
    assert answer.status_code == 200, answer.text


async def _item(http: httpx.AsyncClient, item_id: str) -> dict[str, Any]:
    answer = await http.get(f"/api/v1/items/{item_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def _end(http: httpx.AsyncClient, item_id: str) -> datetime:
    return datetime.fromisoformat((await _item(http, item_id))["end_time"])


async def _is(http: httpx.AsyncClient, item_id: str, status: str) -> None:
    async def is_so() -> bool:
        return bool((await _item(http, item_id))["status"] == status)

    await eventually(is_so)
