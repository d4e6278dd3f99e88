"""Rows 14 and 18 of the table in docs/guarantees.md: the archiver and the broadcaster are killed."""

from __future__ import annotations

import pytest

from infrastructure.local.services import ARCHIVAL_WORKER, BROADCAST_SERVICE
from tests.faults.rig.harness import fault_run
from tests.stack import StackFactory


@pytest.mark.faults
async def test_row_14_the_archiver_dies_between_commit_and_acknowledgement(start_stack: StackFactory) -> None:
    """The batch is delivered again, and every row is stored once."""
    async with fault_run(start_stack) as run:
        async with run.bidders.bidding():
            for _ in range(2):
                await run.bidders.more(run.some(20, 60))
                await run.crash_at(ARCHIVAL_WORKER, "archive.committed", times=run.some(1, 6))
            await run.bidders.more(30)
        await run.prove()


@pytest.mark.faults
async def test_row_18_the_broadcaster_is_killed(start_stack: StackFactory) -> None:
    """Viewers come back with `since`; they miss nothing and see nothing twice.

    Bids come slowly: no more than can be replayed, however long the broadcaster takes to start.
    """
    async with fault_run(start_stack, viewers=9, pause_s=0.3) as run:
        async with run.bidders.bidding():
            for kills in range(1, 4):
                await run.bidders.more(run.some(30, 60))
                await run.kill(BROADCAST_SERVICE)
                await run.bidders.more(run.some(10, 30))
                await run.start(BROADCAST_SERVICE)
                for watcher in run.watchers:
                    await watcher.joined(1 + kills)
            await run.bidders.more(30)
        await run.prove()
        assert all(watcher.connections == 4 for watcher in run.watchers)
        for watcher in run.watchers:
            assert (watcher.frame_types["snapshot"], watcher.frame_types["resumed"]) == (1, 3), "all was replayed"
