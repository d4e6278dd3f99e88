"""Whether bids go on, and on which items."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tests.faults.rig.harness import FaultRun
from tests.waiting import eventually


async def bids_on_all(run: FaultRun, items: Sequence[str], *, within_s: float = 60.0) -> None:
    """Wait until each of these items has got an accepted bid more."""
    before = {item_id: _accepted(run, item_id) for item_id in items}

    def missing() -> list[str]:
        return [item_id for item_id in items if _accepted(run, item_id) <= before[item_id]]

    try:
        await eventually(lambda: not missing(), seconds=within_s)
    except TimeoutError as error:
        raise TimeoutError(f"no bids on {missing()} within {within_s:g} s") from error


async def is_closed(run: FaultRun) -> bool:
    """Whether a replica that took over lacked entries after all, once that is known."""
    before = run.bidders.codes["BEING_REBUILT"]
    await asyncio.sleep(5)
    return run.bidders.codes["BEING_REBUILT"] > before


def _accepted(run: FaultRun, item_id: str) -> int:
    return sum(request.outcome == "ok" for request in run.bidders.requests[item_id])
