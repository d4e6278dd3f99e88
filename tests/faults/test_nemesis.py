"""No row of the table: any part, at any time, two at once. The judge asks the same of it."""

from __future__ import annotations

import pytest

from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER, BROADCAST_SERVICE
from tests.faults.harness import fault_run
from tests.faults.nemesis import Nemesis
from tests.stack import StackFactory

_VICTIMS = ("redis", "nats", "postgres", API_GATEWAY, "second-gateway", BROADCAST_SERVICE, ARCHIVAL_WORKER)


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
