"""A service that is forked for a test behaves as the program does."""

from __future__ import annotations

import os
import signal

import httpx2 as httpx
import psutil
import pytest

from infrastructure.local.services import API_GATEWAY
from infrastructure.local.stack import Stack
from tests.stack import StackFactory

pytestmark = pytest.mark.integration


async def _bid_id(stack: Stack, amount: int) -> str:
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url) as http:
        answer = await http.post("/api/v1/items/lot/bid", json={"user_id": "ann", "amount": amount})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["bid_id"])


async def test_each_fork_is_a_gateway_of_its_own_that_can_be_killed_and_started_again(
    start_stack: StackFactory,
) -> None:
    stack = await start_stack(services=(API_GATEWAY,), env={"LOG_LEVEL": "warning"})
    other = await start_stack(services=(API_GATEWAY,))
    first = stack.pid(API_GATEWAY)
    assert first is not None
    assert os.getsid(first) == first
    ids = [await _bid_id(stack, 5), await _bid_id(other, 5)]

    stack.kill(API_GATEWAY, signal.SIGKILL)
    assert await stack.wait_ended(API_GATEWAY)
    assert stack.processes[API_GATEWAY].exit_text == "was ended by SIGKILL"
    assert not psutil.pid_exists(first)
    await stack.start_process(API_GATEWAY)
    assert stack.pid(API_GATEWAY) not in (None, first)

    # Each is the first of its process: two forks with one key would give the same id to other bids.
    ids.append(await _bid_id(stack, 6))
    assert len(set(ids)) == 3, ids
    log = stack.log_path(API_GATEWAY).read_text()
    assert log.count("--- api_gateway starts at ") == 2
    assert "INFO" not in log, "it has the settings of its stack"


async def test_one_that_cannot_start_says_why(start_stack: StackFactory) -> None:
    with pytest.raises(Exception, match=r"api_gateway ended with exit code 2(.|\n)*BID_ACK"):
        await start_stack(services=(API_GATEWAY,), env={"BID_ACK": "perhaps"})
