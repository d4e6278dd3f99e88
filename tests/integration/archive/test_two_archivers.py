"""Two archivers share one stream as programs of their own, and one of them is killed: where it is most dangerous, and
anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import signal

import httpx2 as httpx
import pytest

from infrastructure.local.errors import ProcessFailed
from infrastructure.local.servers.ports import HOST, free_ports
from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from tests.integration.loss.recover_world import House, house_of
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.integration

PATIENCE_S = 60.0
ITEMS = [f"lot-{number}" for number in range(12)]
"""Items of many shards."""


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


async def all_acknowledged(house: House) -> None:
    """Return when JetStream has nothing left to deliver: what a dead archiver had came again."""
    async with httpx.AsyncClient() as http:

        async def nothing_left() -> bool:
            told = (await http.get(f"{house.stack.urls.archiver_url}/ready")).json()
            return (told["lag"], told["ack_pending"]) == (0, 0)

        await eventually(nothing_left, "every message acknowledged", seconds=PATIENCE_S)


async def test_archivers_die_beside_another_and_each_bid_is_stored_once(start_stack: StackFactory) -> None:
    # After this long JetStream redelivers what a dead archiver had.
    stack = await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER), env={"ARCHIVER_ACK_WAIT_S": "2"})
    told: dict[str, list[str]] = {item_id: [] for item_id in ITEMS}
    stop = asyncio.Event()
    async with house_of(stack) as house:

        async def goes_on() -> None:
            before = await rows_of(stack.ports.archiver)

            async def has_more() -> bool:
                return await rows_of(stack.ports.archiver) > before + 100

            await eventually(has_more, "the other one goes on", seconds=PATIENCE_S)

        bidding = asyncio.create_task(bid_until_told(house, told, stop))
        try:
            for name, crash_at in (("second", "archive.committed:5"), ("third", "")):
                (port,) = free_ports(1)
                env = {"ARCHIVER_PORT": str(port), "CRASH_AT": crash_at}
                # It may kill itself before it was seen to be ready.
                with contextlib.suppress(ProcessFailed) if crash_at else contextlib.nullcontext():
                    await stack.add_service(name, ARCHIVAL_WORKER, port, env)
                if not crash_at:

                    async def works(port: int = port) -> bool:
                        return await rows_of(port) > 50

                    await eventually(works, "its part of the work", seconds=PATIENCE_S)
                    stack.kill(name, signal.SIGKILL)  # wherever it is
                # The other killed itself: PostgreSQL has its fifth batch, and neither JetStream nor Redis knows.
                assert await stack.wait_ended(name, PATIENCE_S)
                assert stack.processes[name].exit_text == "was ended by SIGKILL"
                await goes_on()
        finally:
            stop.set()
            await bidding
        await house.all_archived()
        await all_acknowledged(house)
        for item_id, bid_ids in told.items():
            rows = await house.query("SELECT bid_id, seq FROM bids WHERE item_id = $1 ORDER BY seq", item_id)
            assert [row["bid_id"] for row in rows] == bid_ids
            assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
            item = await house.query("SELECT seq, bid_count FROM items WHERE item_id = $1", item_id)
            assert [tuple(each) for each in item] == [(len(bid_ids), len(bid_ids))]
        total = sum(map(len, told.values()))
        assert 0 < await rows_of(stack.ports.archiver) < total, "the others had a part of the work"
        assert await house.query("SELECT * FROM dead_letters") == []
        assert await house.query("SELECT * FROM shard_cursors WHERE ahead <> '{}'") == [], "no hole is left"

        async def chained() -> bool:
            (row,) = await house.query("SELECT coalesce(sum(seq + 1), 0)::bigint AS events FROM chains")
            return bool(row["events"] == total + len(ITEMS))

        await eventually(chained, "the chain of all events", seconds=PATIENCE_S)
        code, output = await house.bidding("audit", ITEMS[0])
        assert code == 0, output
