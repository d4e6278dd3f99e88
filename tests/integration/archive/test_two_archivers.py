"""Two archivers share one stream as programs of their own, and one is killed where it is most dangerous."""

from __future__ import annotations

import asyncio
import itertools
import re

import httpx2 as httpx
import pytest

from infrastructure.local.servers.ports import HOST, free_ports
from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from tests.integration.loss.recover_world import House, house_of
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.integration

PATIENCE_S = 60.0
OTHER = "archival_worker-2"
ITEMS = [f"lot-{number}" for number in range(12)]
"""In many shards."""


async def rows_of(port: int) -> int:
    """Rows of bids that this archiver has stored."""
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"http://{HOST}:{port}/metrics")).text
    return sum(int(float(value)) for value in re.findall(r'archiver_rows_total\{[^}]*"bids?"[^}]*\} (\S+)', text))


async def bid_until_told(house: House, told: dict[str, list[str]], stop: asyncio.Event) -> None:
    """Bids on all items in turn, each item's one after the other; ``told`` gets the ids of those accepted."""

    async def on(item_id: str) -> None:
        for number in itertools.count(1):
            if stop.is_set():
                return
            bid_id = f"{item_id}-{number}"
            await house.accepted(item_id, f"user-{number % 7}", bid_id, amount=number)
            told[item_id].append(bid_id)

    await asyncio.gather(*map(on, ITEMS))


async def test_one_of_two_archivers_dies_and_each_bid_is_stored_once(start_stack: StackFactory) -> None:
    # What the dead one had in its hands comes again after this.
    stack = await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER), env={"ARCHIVER_ACK_WAIT_S": "2"})
    (port,) = free_ports(1)
    # Killed by itself: PostgreSQL has its fifth batch, and neither JetStream nor Redis knows.
    dying = {"ARCHIVER_PORT": str(port), "CRASH_AT": "archive.committed:5"}
    await stack.add_service(OTHER, ARCHIVAL_WORKER, port, dying)
    told: dict[str, list[str]] = {item_id: [] for item_id in ITEMS}
    stop = asyncio.Event()
    async with house_of(stack) as house:
        bidding = asyncio.create_task(bid_until_told(house, told, stop))
        try:
            await eventually(lambda: not stack.processes[OTHER].is_running, "its end", seconds=PATIENCE_S)
            before = await rows_of(stack.ports.archiver)

            async def goes_on() -> bool:
                return await rows_of(stack.ports.archiver) > before + 100

            await eventually(goes_on, "the other one goes on", seconds=PATIENCE_S)
        finally:
            stop.set()
            await bidding
        await house.all_archived()
        for item_id, bid_ids in told.items():
            rows = await house.query("SELECT bid_id, seq FROM bids WHERE item_id = $1 ORDER BY seq", item_id)
            assert [row["bid_id"] for row in rows] == bid_ids
            assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
            item = await house.query("SELECT seq, bid_count FROM items WHERE item_id = $1", item_id)
            assert [tuple(each) for each in item] == [(len(bid_ids), len(bid_ids))]
        total = sum(map(len, told.values()))
        assert 0 < await rows_of(stack.ports.archiver) < total, "both had a part of the work"
        assert await house.query("SELECT * FROM dead_letters") == []
        assert await house.query("SELECT * FROM shard_cursors WHERE ahead <> '{}'") == [], "no hole is left"

        async def chained() -> bool:
            (row,) = await house.query("SELECT coalesce(sum(seq + 1), 0)::bigint AS events FROM chains")
            return bool(row["events"] == total + len(ITEMS))

        await eventually(chained, "the chain of all events", seconds=PATIENCE_S)
    code, output = await house.bidding("audit", ITEMS[0])
    assert code == 0, output
