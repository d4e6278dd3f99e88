"""Dead letters are listed, and stored once what was wrong is mended; what they prove stays."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from infrastructure.local.stack import Stack
from tests.integration.archive_world import World, new_world, running_servers
from tests.unit.archival_worker.events import bid, created, message_id, voided

pytestmark = pytest.mark.integration

LOT = "lot-1"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_servers() as stack:
        yield stack


@pytest_asyncio.fixture
async def world(stack: Stack) -> AsyncIterator[World]:
    async with new_world(stack) as world:
        yield world


async def dead_letters(world: World, *arguments: str) -> tuple[int | None, str]:
    """Exit code and output of the command, on the world's own database."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "infrastructure.local.cli",
        "dead-letters",
        *arguments,
        "--postgres-url",
        world.postgres_url,
        "--data-dir",
        str(world.stack.data_dir),
        env=dict(os.environ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await child.communicate()
    return child.returncode, output.decode()


async def execute(world: World, sql: str) -> None:
    await world.query(sql)


async def test_a_poison_is_stored_once_its_cause_is_mended(world: World) -> None:
    running = await world.start_worker()
    await world.publish(1, created(LOT))
    await world.all_archived()
    await execute(world, "ALTER TABLE bids ADD CONSTRAINT odd CHECK (user_id <> 'eve')")
    await world.publish(2, bid(LOT, 1), bid(LOT, 2, user_id="eve"))
    await world.publish(3, bid(LOT, 3))
    await world.publish(4, voided(LOT, 4, voids=2))
    await world.all_archived()
    assert await running.archive.dead_letters() == 1

    code, told = await dead_letters(world, "list")
    assert code == 0
    assert "poison" in told
    assert LOT in told
    assert "odd" in told, "the reason is there"
    code, told = await dead_letters(world, "retry", "--all")
    assert code == 1
    assert "still refuses" in told
    assert await running.archive.dead_letters() == 1
    assert await world.value("SELECT outcome FROM dead_letters") == "poison"

    await execute(world, "ALTER TABLE bids DROP CONSTRAINT odd")
    code, told = await dead_letters(world, "retry", "1")
    assert (code, told) == (0, "1: stored: stored\n")
    rows = await world.query("SELECT seq, status FROM bids ORDER BY seq")
    assert [(row["seq"], row["status"]) for row in rows] == [(1, "valid"), (2, "voided"), (3, "valid")]
    (item,) = await world.query("SELECT seq, current_bid FROM items")
    assert item == {"seq": 4, "current_bid": 100}, "what is older does not replace the newest state"
    assert await world.archived(LOT) == 4
    assert await running.archive.dead_letters() == 0

    assert await dead_letters(world, "list", "--json") == (0, "[]\n")
    code, told = await dead_letters(world, "list", "--all", "--json")
    (letter,) = json.loads(told)
    assert (letter["id"], letter["item_id"], letter["n"], letter["outcome"]) == (1, LOT, 2, "stored")
    assert letter["retried_at"] > letter["at"]
    code, told = await dead_letters(world, "retry", "1")
    assert code == 0
    assert "earlier retry" in told
    assert await world.count("bids") == 3


async def test_a_clash_stays_until_its_place_is_mended(world: World) -> None:
    running = await world.start_worker()
    await world.publish_all([(1, [created(LOT)]), (2, [bid(LOT, 1)])])
    await world.publish(3, bid(LOT, 1, bid_id="other", user_id="eve"))
    await world.all_archived()
    code, told = await dead_letters(world, "retry", "--all")
    assert code == 1
    assert told == "1: clash: its place in the archive is still taken by another event\n"
    assert await world.count("dead_letters") == 1, "the same clash is the same letter"
    assert await running.archive.dead_letters() == 1

    await execute(world, "DELETE FROM bids WHERE bid_id = 'bid-1-1'")
    assert (await dead_letters(world, "retry", "1"))[0] == 0
    assert await world.value("SELECT bid_id FROM bids") == "other"
    assert await running.archive.dead_letters() == 0


async def test_what_nobody_can_read_stays_what_it_is(world: World) -> None:
    await world.start_worker()
    await world.publish_raw(LOT, b'{"v":1,"events":[', message_id(1, LOT))
    await world.all_archived()
    code, told = await dead_letters(world, "retry", "1")
    assert code == 1
    assert told.startswith("1: poison: undecodable")
    assert (await dead_letters(world, "retry", "7"))[0] == 1
    assert (await dead_letters(world, "retry"))[0] == 2, "ids, or --all"
