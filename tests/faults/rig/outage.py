"""The fault run of minutes: PostgreSQL is away while bids go on. `conftest.py` starts it beside the other tests."""

from __future__ import annotations

import asyncio
import os

import httpx2 as httpx

from infrastructure.local.services import ALL_SERVICES
from tests.faults.rig.beside import ports_apart
from tests.faults.rig.harness import FaultRun, fault_run
from tests.stack import StackFactory
from tests.waiting import eventually

OUTAGE_S = float(os.environ.get("FAULTS_OUTAGE_S") or 300)
TEST = "test_row_15_postgresql_is_away_for_five_minutes"


async def five_minutes_without_postgresql() -> None:
    """Bids do not notice, nothing is restarted, and the archive catches up by itself.

    Two bidders who take their time: the others' tests run beside this one.
    """
    factory = StackFactory()
    try:
        async with fault_run(factory, bidders=2, pause_s=0.1, ports=ports_apart(), test=TEST) as run:
            services = [run.stack.pid(name) for name in ALL_SERVICES]
            async with run.bidders.bidding():
                await run.bidders.more(20)
                await run.kill("postgres")
                await asyncio.sleep(OUTAGE_S)
                run.note(f"PostgreSQL was away for {OUTAGE_S:g} s")
                waiting = await _waiting_in_the_outbox(run)
                run.note(f"{waiting} entries wait in the outbox")
                assert waiting > OUTAGE_S / 3, "the bids of the outage must be in the outbox"
                await run.start("postgres")
                await run.bidders.more(20)
            await run.prove(within_s=120)
            # Nothing was turned away. A few answers in five minutes may be too late for this client, which shares its
            # process with the tests that run beside it; such a bid is repeated like any other of unknown outcome.
            assert set(run.bidders.codes) <= {"ok", "refused", "NO_ANSWER"}, run.bidders.codes
            assert run.bidders.codes["NO_ANSWER"] <= 5, run.bidders.codes
            assert [run.stack.pid(name) for name in ALL_SERVICES] == services
            await eventually(lambda: _is_ready(run), seconds=60)
    finally:
        await factory.close()


async def _waiting_in_the_outbox(run: FaultRun) -> int:
    async with run.redis() as redis:
        return sum([await redis.xlen(outbox) for outbox in run.outboxes])


async def _is_ready(run: FaultRun) -> bool:
    async with httpx.AsyncClient() as http:
        answers = [await http.get(f"{url}/ready") for url in (run.stack.urls.gateway_url, run.stack.urls.archiver_url)]
    return all(answer.status_code == 200 and not answer.json().get("degraded") for answer in answers)
