"""`bidding demo` as a user runs it, on a platform of its own: lots, bids, Ctrl-C, and a platform that goes away."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from asyncio.subprocess import Process
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx2 as httpx
import pytest

from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from infrastructure.local.stack import Stack
from tests.programs import BIDDING, started
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.integration

PATIENCE_S = 80.0


def demo(stack: Stack, *arguments: str) -> AbstractAsyncContextManager[Process]:
    # A proxy for the world outside, as many a machine has one, is not asked about this machine.
    env = os.environ | {"PYTHONUNBUFFERED": "1", "HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}
    return started(*BIDDING, "demo", "--data-dir", str(stack.data_dir), *arguments, env=env)


async def ended(process: Process) -> tuple[int, str]:
    async with asyncio.timeout(PATIENCE_S):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_there_is_something_to_look_at_within_seconds_and_ctrl_c_sums_it_up(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER))
    async with (
        httpx.AsyncClient(base_url=stack.urls.gateway_url) as http,
        demo(stack, "--lots", "6", "--bidders", "10", "--rate", "20", "--seed", "3") as process,
    ):

        async def lots() -> list[dict[str, Any]]:
            answer = await http.get("/api/v1/items", params={"limit": 50})
            found: list[dict[str, Any]] = answer.json()["items"]
            return found

        async def alive() -> bool:
            found = await lots()
            statuses = {each["status"] for each in found}
            return {"open", "scheduled"} <= statuses and sum(each["bid_count"] for each in found) >= 15

        assert await eventually(alive, seconds=PATIENCE_S)

        async def one_was_sold_and_followed_by_another() -> bool:
            found = await lots()
            return any(each["status"] == "sold" for each in found) and len(found) >= 7

        assert await eventually(one_was_sold_and_followed_by_another, seconds=PATIENCE_S)
        process.send_signal(signal.SIGINT)
        code, output = await ended(process)
        assert code == 0, output
        assert "Traceback" not in output
        told = re.search(r"(\d+) bids accepted in \d+ s", output)
        assert told, output
        assert int(told[1]) >= 15
        assert re.search(r"- .+: sold for [\d.]+ [A-Z]{3}, \d+ bids", output)
        assert re.search(r"\d+ lots opened, [1-9]", output)


async def test_a_platform_that_is_busy_or_away_is_left_in_peace_and_found_again(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY,))
    async with (
        httpx.AsyncClient(base_url=stack.urls.gateway_url) as http,
        demo(stack, "--lots", "3", "--rate", "20", "--seed", "5") as process,
    ):
        lines = process.stdout
        assert lines is not None
        opened: list[str] = []
        async with asyncio.timeout(PATIENCE_S):
            while len(opened) < 3:
                line = (await lines.readline()).decode()
                assert line, "it ended"
                opened += re.findall(r"/items/(\S+)$", line.strip())

        async def bids() -> int:
            answers = [await http.get(f"/api/v1/items/{item_id}") for item_id in opened]
            return sum(answer.json()["bid_count"] for answer in answers if answer.status_code == 200)

        assert await eventually(bids, seconds=PATIENCE_S)
        await stack.stop_process(API_GATEWAY)
        await stack.start_process(API_GATEWAY)
        before = await bids()

        async def more() -> bool:
            return await bids() > before

        assert await eventually(more, seconds=PATIENCE_S)
        process.send_signal(signal.SIGTERM)
        code, output = await ended(process)
        assert code == 0, output
        assert "Traceback" not in output


async def test_it_ends_after_the_time_that_was_asked_for(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY,))
    async with demo(stack, "--lots", "2", "--for", "2") as process:
        code, output = await ended(process)
    assert code == 0, output
    assert "2 still going" in output


async def test_without_a_gateway_it_says_so(start_stack: StackFactory) -> None:
    stack = await start_stack(services=())
    async with demo(stack, "--for", "5") as process:
        code, output = await ended(process)
    assert code == 2
    assert "No platform is up" in output
