"""Row 38 of the table in docs/guarantees.md: a service and a server that do not reach each other, also in one direction
only."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any

import pytest

from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER, BROADCAST_SERVICE
from shared.redis_layout.keys import item_key
from tests.faults.partitions.links import LINES, PARTITIONS, Line, Links, Partition
from tests.faults.rig.harness import FaultRun, fault_run
from tests.stack import StackFactory
from tests.waiting import eventually

_JUDGE = Line(API_GATEWAY, "redis")
# Longer than every time-out of a fault run on a line, 5 s at most, or it would be no more than a slow line.
_PARTED_S = 6.0
# Connections that are reset are noticed at once.
_REFUSED_S = 2.0
_CAUGHT_UP_S = 40.0
_ARCHIVED = "SELECT max(seq) FROM bids WHERE item_id = $1"


async def test_row_38_the_judge_and_the_log_are_out_of_reach(start_stack: StackFactory) -> None:
    """The quick ones: Redis decides and its answers do not arrive; then NATS takes nothing of what was decided."""
    async with Links() as links, fault_run(start_stack, lines=links.between) as run:
        async with run.bidders.bidding():
            await run.bidders.more(20)
            await _part_and_heal(run, links, _JUDGE, "no answers", late=False)
            await _part_and_heal(run, links, Line(API_GATEWAY, "nats"), "no requests", late=True)
        await _is_proven(run)


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.parametrize("service", [API_GATEWAY, ARCHIVAL_WORKER, BROADCAST_SERVICE])
async def test_row_38_a_service_is_parted_from_each_server_in_each_way(start_stack: StackFactory, service: str) -> None:
    """One after the other, in the order of the seed; everything must have caught up before the next one begins."""
    async with Links() as links, fault_run(start_stack, bidders=4, lines=links.between) as run:
        cases = [(line, how) for line in LINES if line.service == service for how in PARTITIONS]
        run.chance.shuffle(cases)
        async with run.bidders.bidding():
            await run.bidders.more(20)
            for line, how in cases:
                await _part_and_heal(run, links, line, how, late=run.chance.random() < 0.5)
        await _is_proven(run)


@pytest.mark.faults
@pytest.mark.timeout(400)
async def test_row_38_two_lines_at_once(start_stack: StackFactory) -> None:
    """Pairs of lines, whichever the seed says; of a pair, the second one heals while the first is still parted."""
    async with Links() as links, fault_run(start_stack, bidders=4, lines=links.between) as run:
        async with run.bidders.bidding():
            await run.bidders.more(20)
            for _ in range(6):
                first, second = run.chance.sample(LINES, 2)
                for line in (first, second):
                    how = run.chance.choice(PARTITIONS)
                    links.part(line, how)
                    run.fault(f"{line}: {how}")
                    await asyncio.sleep(run.chance.uniform(0.5, _PARTED_S))
                for line in (second, first):
                    links.proxies[line].heal(late=run.chance.random() < 0.5)
                    run.note(f"{line}: healed")
                    await asyncio.sleep(run.chance.uniform(0, 1))
                await _has_caught_up(run)
        await _is_proven(run)


@pytest.mark.faults
@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["refused", "black hole"])
async def test_row_38_the_gateway_that_publishes_is_parted_from_the_log(
    start_stack: StackFactory, how: Partition
) -> None:
    """Of two gateways, where a bid is acknowledged once it is published: the other one publishes what both decide."""
    line = Line(API_GATEWAY, "nats")
    async with Links() as links, fault_run(start_stack, env={"BID_ACK": "log"}, lines=links.between) as run:
        run.bidders.gateways.append(await run.add_gateway("second"))
        async with run.redis() as redis, run.bidders.bidding():
            await run.bidders.more(20)
            before: list[Any] = await redis.mget(run.leases)
            assert len(set(before)) == 1, "one gateway relays all of them"
            assert not links.around(run), "a service goes past its proxy"
            links.part(line, how)
            run.fault(f"{line}: {how}")

            async def taken_over() -> bool:
                now: list[Any] = await redis.mget(run.leases)
                return all(new and old and old not in new for new, old in zip(now, before, strict=True))

            await eventually(taken_over, seconds=60)
            run.note("the other gateway publishes")
            await run.bidders.more(10)
            for gateway in tuple(run.bidders.gateways):
                await _bids_at(run, gateway)
            links.proxies[line].heal(late=run.chance.random() < 0.5)
            run.note(f"{line}: healed")
            await run.bidders.more(20)
            await _has_caught_up(run)
        await _is_proven(run)


async def _bids_at(run: FaultRun, gateway: str) -> None:
    every, run.bidders.gateways = run.bidders.gateways, [gateway]
    await run.bidders.more(30)
    run.bidders.gateways = every


async def _is_proven(run: FaultRun) -> None:
    """Judged, and nobody was told anything that the table does not say."""
    await run.prove()
    known = {"ok", "refused", "UNAVAILABLE", "OUTCOME_UNKNOWN", "NO_ANSWER", "OVERLOADED"}
    assert set(run.bidders.codes) <= known, run.bidders.codes


async def _part_and_heal(run: FaultRun, links: Links, line: Line, how: Partition, *, late: bool) -> None:
    assert not links.around(run), "a service goes past its proxy"
    before = Counter(run.bidders.codes)
    links.part(line, how)
    run.fault(f"{line}: {how}")
    await asyncio.sleep(_REFUSED_S if how == "refused" else _PARTED_S)
    if line == _JUDGE:
        # What was under way when the line broke may still be answered; nothing that was sent later.
        told = sum(count - before[code] for code, count in run.bidders.codes.items() if code not in ("ok", "refused"))
        assert told > 0, "somebody must have been told that Redis is out of reach"
        accepted = run.bidders.acknowledged
        await asyncio.sleep(1)
        assert run.bidders.acknowledged == accepted
    else:
        await run.bidders.more(10)
        others = +(Counter(run.bidders.codes) - before)
        assert set(others) <= {"ok", "refused"}, f"{line}, {how}: bids must not notice, and were told {others}"
    assert not links.around(run), "a service has found a way past its proxy"
    links.proxies[line].heal(late=late)
    run.note(f"{line}: healed, and what was kept {'arrives late' if late else 'is forgotten'}")
    await run.bidders.more(10)
    await _has_caught_up(run)


async def _has_caught_up(run: FaultRun) -> None:
    """Wait until the archive and the viewers are where Redis is now."""
    async with run.redis() as redis, run.postgres() as postgres:
        seqs = {item_id: int(await redis.hget(item_key(item_id), "seq") or 0) for item_id in run.items}

        async def archived() -> bool:
            stored = {item_id: await postgres.fetchval(_ARCHIVED, item_id) for item_id in run.items}
            return all((stored[item_id] or 0) >= seq for item_id, seq in seqs.items())

        with contextlib.suppress(TimeoutError):
            await eventually(archived, seconds=_CAUGHT_UP_S)
        assert await archived(), f"the archive has not caught up with {seqs}"
    for watcher in run.watchers:
        await watcher.reached(seqs[watcher.item_id], within_s=_CAUGHT_UP_S)
    run.note("the archive and the viewers have caught up")
