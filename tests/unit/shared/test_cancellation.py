"""A task that is cancelled ends, whatever the drivers are waiting for at that moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from shared.clients import cancellation

WaitFor = Callable[..., Any]

# As redis-py and nats-py find it on this version of Python; and the replacement itself, also where it is not needed.
both = pytest.mark.parametrize(
    "wait_for", [pytest.param(asyncio.wait_for, id="found"), pytest.param(cancellation.wait_for, id="replacement")]
)


@both
async def test_a_cancellation_in_the_moment_of_the_result_is_not_lost(wait_for: WaitFor) -> None:
    there = asyncio.get_running_loop().create_future()

    async def loop_of_a_service() -> None:
        await wait_for(there, 60)
        await asyncio.Event().wait()

    running = asyncio.create_task(loop_of_a_service())
    await asyncio.sleep(0)
    there.set_result(None)
    running.cancel()
    _, still_running = await asyncio.wait({running}, timeout=5)
    assert not still_running


@both
async def test_a_cancellation_ends_what_is_waited_for(wait_for: WaitFor) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    running = asyncio.create_task(wait_for(work(), 60))
    await began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended.is_set()


@both
@pytest.mark.parametrize("seconds", [0.001, 0, -1])
async def test_what_takes_too_long_is_ended(wait_for: WaitFor, seconds: float) -> None:
    forever = asyncio.ensure_future(asyncio.Event().wait())
    with pytest.raises(TimeoutError):
        await wait_for(forever, seconds)
    assert forever.cancelled()


@both
@pytest.mark.parametrize("seconds", [60, 0, None])
async def test_what_is_there_is_returned(wait_for: WaitFor, seconds: float | None) -> None:
    there = asyncio.get_running_loop().create_future()
    there.set_result("answer")
    assert await wait_for(there, seconds) == "answer"


@both
async def test_its_errors_are_raised(wait_for: WaitFor) -> None:
    async def broken() -> None:
        raise ValueError("as it is")

    with pytest.raises(ValueError, match="as it is"):
        await wait_for(broken(), 60)
