"""Waiting for what happens elsewhere, bounded."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")


@overload
async def eventually(ask: Callable[[], Awaitable[T | None]], what: str = "", *, seconds: float = 15.0) -> T: ...
@overload
async def eventually(ask: Callable[[], bool], what: str = "", *, seconds: float = 15.0) -> bool: ...
async def eventually(
    ask: Callable[[], Awaitable[T | None] | bool], what: str = "", *, seconds: float = 15.0
) -> T | bool:
    """Ask until the answer is true, and return it; TimeoutError after ``seconds``, which names ``what``."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            while True:
                answer = ask()
                found = await answer if inspect.isawaitable(answer) else answer
                if found:
                    return found
                await asyncio.sleep(0.03)
    except TimeoutError as error:
        if what and limit.expired():
            raise TimeoutError(f"not within {seconds:g} s: {what}") from error
        raise
