"""Row 25 of the table in docs/guarantees.md: bids at the end of an item, by gateways whose clocks are an hour off."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import httpx2 as httpx
import pytest

from infrastructure.local.services import API_GATEWAY
from tests.faults.rig.clocks import clock_off_by
from tests.faults.rig.harness import FaultRun, fault_run
from tests.faults.rig.history import Outcome
from tests.stack import StackFactory
from tests.waiting import eventually

_HOUR_S = 3_600.0
_ITEMS = 40
# Instants of bids before and after the end, in seconds; each bid is sent through both gateways.
_OFFSETS_S = (-1.0, -0.25, -0.05, -0.01, -0.001, 0.001, 0.05, 0.25)

_END = "SELECT original_end_at, end_at, status FROM items WHERE item_id = $1"
_CLOSED = "SELECT seq, at FROM events WHERE item_id = $1 AND type = 'closed'"
_LAST_BID = "SELECT max(seq) AS seq, max(placed_at) AS at FROM bids WHERE item_id = $1"


@pytest.mark.faults
async def test_row_25_gateways_whose_clocks_are_an_hour_off(start_stack: StackFactory) -> None:
    """One is ahead and one behind, and each of them closes the items for a while: the time of Redis alone decides."""
    async with fault_run(start_stack, items=0, bidders=0, viewers=0) as run:
        ahead = run.stack.urls.gateway_url
        await run.reconfigure(API_GATEWAY, **clock_off_by(_HOUR_S, run.stack.data_dir / "ahead"))
        behind = await run.add_gateway("behind", **clock_off_by(-_HOUR_S, run.stack.data_dir / "behind"))
        gateways = [ahead, behind]
        async with httpx.AsyncClient(timeout=20) as http:
            for gateway, shift_s in ((ahead, _HOUR_S), (behind, -_HOUR_S)):
                told = datetime.fromisoformat((await http.get(f"{gateway}/health")).json()["time"])
                assert abs((told - datetime.now(UTC)).total_seconds() - shift_s) < 60, "its clock must be off"
                run.fault(f"{gateway} says that it is {told}")
            await _race(run, http, gateways, "by-the-one-ahead")
            await run.stack.stop_process(API_GATEWAY)
            await eventually(lambda: _are_leased(run))
            await run.start(API_GATEWAY)
            await _race(run, http, gateways, "by-the-one-behind")
        await run.prove()
        await _judge_ends(run)


async def _are_leased(run: FaultRun) -> bool:
    async with run.redis() as redis:
        return None not in await redis.mget(run.leases)


async def _race(run: FaultRun, http: httpx.AsyncClient, gateways: list[str], name: str) -> None:
    """Items that end one after the other, with bids around each end."""
    began_s = time.monotonic()
    await run.create({f"{name}-probe": {"duration_s": 1}})
    # On a busy machine everything that comes before the first end takes longer.
    lead_s = min(25.0, 3 + 50 * (time.monotonic() - began_s))
    begin = datetime.now(UTC) + timedelta(seconds=lead_s)
    ends = {f"{name}-{number}": begin + timedelta(seconds=0.02 * number) for number in range(_ITEMS)}
    terms = [(item_id, {"end_time": end.isoformat()}) for item_id, end in ends.items()]
    # Each gateway creates half of them: what it makes of the end must not depend on its clock either.
    for number, gateway in enumerate(gateways):
        await run.create(dict(terms[number::2]), gateway=gateway)
    run.bidders.gateways = gateways

    async def decided(number: int, item_id: str, amount: int) -> Outcome | None:
        return await eventually(lambda: _place(run, http, gateways[number], item_id, amount + number))

    # Well before the ends, which the gateway ahead would say are over.
    early = [await asyncio.gather(*(decided(number, item_id, 1) for item_id in ends)) for number in (0, 1)]
    assert {outcome for told in early for outcome in told} == {"ok"}
    run.note("every gateway takes bids on every item")
    told = await asyncio.gather(*(_race_one(run, http, gateways, item_id, end) for item_id, end in ends.items()))
    outcomes = [outcome for each in told for outcome in each]
    assert {"ok", "refused"} <= set(outcomes), "some must have been in time and some not, or nothing was raced"
    # Well after the ends, which the gateway behind would say are an hour away.
    late = [await asyncio.gather(*(decided(number, item_id, 10_000) for item_id in ends)) for number in (0, 1)]
    assert {outcome for told in late for outcome in told} == {"refused"}
    run.note(f"{outcomes.count('ok')} bids around the ends were in time, {outcomes.count('refused')} were not")


async def _race_one(
    run: FaultRun, http: httpx.AsyncClient, gateways: list[str], item_id: str, end: datetime
) -> list[Outcome | None]:
    """Bids through each gateway around an end, each higher than the one before."""
    told = []
    for number, offset_s in enumerate(_OFFSETS_S, start=1):
        until_s = (end - datetime.now(UTC)).total_seconds() + offset_s
        await asyncio.sleep(max(0.0, until_s))
        told += [
            await _place(run, http, gateway, item_id, 100 * number + more) for more, gateway in enumerate(gateways)
        ]
    return told


async def _place(run: FaultRun, http: httpx.AsyncClient, gateway: str, item_id: str, amount: int) -> Outcome | None:
    """None where the gateway could not tell."""
    outcome = await run.bidders.place(http, gateway, f"{item_id}-{amount}", item_id, f"user-{amount}", amount)
    return outcome if outcome in ("ok", "refused") else None


async def _judge_ends(run: FaultRun) -> None:
    """Closed once, not before its end, and no bid after that."""
    raced = [item_id for item_id in run.items if not item_id.endswith("-probe")]
    async with run.postgres() as postgres:
        for item_id in raced:
            (item,) = await postgres.fetch(_END, item_id)
            (closed,) = await postgres.fetch(_CLOSED, item_id)
            (bid,) = await postgres.fetch(_LAST_BID, item_id)
            assert item["status"] == "sold"
            assert item["end_at"] == item["original_end_at"]
            assert closed["at"] >= item["end_at"]
            assert bid["at"] < item["end_at"], f"{item_id} has a bid after its end"
            assert bid["seq"] < closed["seq"], f"{item_id} has a bid after its close"
