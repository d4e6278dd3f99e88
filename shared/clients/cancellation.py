"""On Python 3.11: keeps the drivers from losing a cancellation (decision 0031).

There ``asyncio.wait_for`` returns the result and forgets that its task was cancelled, if the cancellation comes at the
moment of the result. redis-py sends every command through it, and nats-py waits for answers with it, so a task that is
cancelled once could go on for ever: a service that does not end, a lease that is taken again after it was given back.
Python 3.12 fixed it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")

_wait_for_of_python = asyncio.wait_for


async def wait_for(awaitable: Awaitable[T], timeout: float | None) -> T:  # noqa: ASYNC109 - the signature of Python's
    """What ``awaitable`` returns, within ``timeout`` seconds; None is no bound.

    Raises:
        TimeoutError: it took longer.
        asyncio.CancelledError: the calling task was cancelled, even if the result is there by now.
    """
    if timeout is None:
        return await awaitable
    if timeout <= 0:
        # It takes a result that is there already and starts nothing, so no cancellation can come in between.
        return await _wait_for_of_python(awaitable, timeout)
    async with asyncio.timeout(timeout):
        return await awaitable


def install() -> None:
    """Install it for every library of this process; from Python 3.12 on it does nothing."""
    if sys.version_info < (3, 12):
        asyncio.wait_for = wait_for  # type: ignore[assignment]
