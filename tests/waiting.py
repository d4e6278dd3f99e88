"""Waiting for what happens elsewhere, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(ask: Callable[[], Awaitable[T]], *, seconds: float = 15.0) -> T:
    """Ask until the answer is true; TimeoutError after ``seconds``."""
    async with asyncio.timeout(seconds):
        while True:
            found = await ask()
            if found:
                return found
            await asyncio.sleep(0.03)
