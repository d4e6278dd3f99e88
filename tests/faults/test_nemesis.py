"""No row of the table: any part, at any time, two at once. The judge asks the same of it."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER, BROADCAST_SERVICE
from tests.faults.clients.wishes import HOSTILE
from tests.faults.partitions.links import LINES, Line, Links, Parted
from tests.faults.rig.harness import fault_run
from tests.faults.rig.long_run import SHORT_TERMS, TERMS, LineToRedis, LongRun
from tests.faults.rig.nemesis import Fault, Nemesis
from tests.faults.rig.report import DETAILS
from tests.stack import StackFactory

_VICTIMS = ("redis", "nats", "postgres", API_GATEWAY, "second-gateway", BROADCAST_SERVICE, ARCHIVAL_WORKER)
_MINUTES = float(os.environ.get("NEMESIS_MINUTES") or 3)


@pytest.mark.faults
@pytest.mark.timeout(400)
async def test_any_two_parts_at_any_time(start_stack: StackFactory) -> None:
    """Twenty faults, two at once: what was acknowledged is there, once, and no read was behind what was answered."""
    async with fault_run(start_stack, bidders=6, readers=2, viewers=6) as run:
        run.bidders.gateways.append(await run.add_gateway("second-gateway"))
        async with run.bidders.bidding():
            await run.bidders.more(20)
            await Nemesis(run, _VICTIMS, hands=2).strike(10)
            await run.bidders.more(20)
        histories = await run.prove()
        assert sum(len(history.reads) for history in histories) > 100, "who reads must have been answered"


@contextlib.asynccontextmanager
async def _long_run(
    start_stack: StackFactory, *, round_s: float, long: float, terms: Mapping[str, Mapping[str, Any]] = TERMS
) -> AsyncIterator[LongRun]:
    """Every kind of bid, and of bids that can only be wrong, beside operators, readers and viewers.

    At the end there must be no violation, and the table is told.
    """
    async with (
        Links() as links,
        fault_run(
            start_stack,
            items=0,
            viewers=0,
            bidders=6,
            readers=1,
            operators=2,
            kinds=HOSTILE,
            operator_pause_s=1.0,
            lines=links.between,
        ) as run,
    ):
        run.bidders.gateways.append(await run.add_gateway("second-gateway"))
        to_redis = Line(API_GATEWAY, "redis")
        parted = [Parted(links, line) for line in LINES if line != to_redis]
        faults: list[Fault] = [LineToRedis(links.proxies[to_redis]), *parted]
        nemesis = Nemesis(run, _VICTIMS, hands=2, faults=faults, long=long)
        rounds = LongRun(run, nemesis, round_s=round_s, terms=terms)
        try:
            yield rounds
        finally:
            DETAILS.extend(rounds.table())
        assert not rounds.broken, "\n".join(rounds.broken)
        run.is_proven = True


@pytest.mark.timeout(240)
async def test_every_kind_of_bid_and_any_two_parts_for_a_moment(start_stack: StackFactory) -> None:
    """One short round, in which nothing lasts longer than a lease."""
    async with _long_run(start_stack, round_s=8, long=0, terms=SHORT_TERMS) as rounds:
        await rounds.round()


@pytest.mark.faults
@pytest.mark.timeout(_MINUTES * 60 * 2 + 600)
async def test_every_kind_of_bid_and_any_two_parts_for_minutes(start_stack: StackFactory) -> None:
    """`make nemesis MINUTES=20 SEED=…`: round after round, with suspensions that outlast a lease."""
    # What is told while it runs is the timeline, and not each request of the clients.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    async with _long_run(start_stack, round_s=45, long=0.25) as rounds:
        await rounds.go_on(_MINUTES * 60)
        assert rounds.events["raised maximum"] > 0
        assert {"proxy", "voided", "paused", "extended", "closed", "cancelled"} <= rounds.events.keys()
