"""A gateway that reads through cache nodes, all of which die. With the settings that nodes have."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import pytest

from tests.integration.cache_node.cache_world import tell
from tests.integration.cache_node.test_closed_items import NODES, Platform, platform_of
from tests.integration.eviction.eviction_world import sold

pytestmark = pytest.mark.integration


async def test_nodes_that_die_cost_the_gateway_no_error() -> None:
    """All of them, one after the other."""
    async with platform_of({}) as platform:
        await all_die(platform)


async def all_die(platform: Platform) -> None:
    items = [f"many-{number}" for number in range(12)]
    for item_id in items:
        await sold(platform.auction.house, item_id)
    await platform.auction.exported(*items)
    await platform.left(*items)
    wrong: list[Any] = []
    slowest_s, count, go_on = 0.0, 0, True

    async def read(number: int) -> None:
        nonlocal slowest_s, count
        while go_on:
            item_id = items[(number + count) % len(items)]
            began_s = time.monotonic()
            answer = await platform.read(platform.through_nodes, item_id, "/bids" if count % 2 else "")
            slowest_s = max(slowest_s, time.monotonic() - began_s)
            count += 1
            if answer.status_code != 200:
                wrong.append(answer.text)
            await asyncio.sleep(0.01)

    readers = [asyncio.create_task(read(number)) for number in range(8)]
    stack = platform.auction.stack
    try:
        await asyncio.sleep(0.5)
        stack.kill(NODES[0])
        await asyncio.sleep(1.5)
        stack.kill(NODES[1], signal.SIGSTOP)
        await asyncio.sleep(3)
        stack.kill(NODES[2])
        await asyncio.sleep(2)
        stack.kill(NODES[1], signal.SIGCONT)
        await asyncio.sleep(1)
    finally:
        go_on = False
        await asyncio.gather(*readers)
    tell(f"all nodes gone one by one: {count} reads of the gateway, {len(wrong)} wrong, slowest {slowest_s:.2f} s")
    assert wrong == []
    assert count > 50
