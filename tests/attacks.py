"""What tests of one rude client against all others share: it sends, they are timed, and the memory is watched."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterable

import psutil


def quantile(seconds: Iterable[float], share: float) -> float:
    """The smallest of the values that so large a share of them does not exceed; infinite where there are none."""
    ascending = sorted(seconds)
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)] if ascending else math.inf


class Memory:
    """The most that a process had above what it had at first, in bytes."""

    def __init__(self, pid: int | None) -> None:
        assert pid is not None, "it does not run"
        self._process = psutil.Process(pid)
        self._before = self._process.memory_info().rss
        self.grown_bytes = 0

    def look(self) -> None:
        """Note what it has now."""
        self.grown_bytes = max(self.grown_bytes, self._process.memory_info().rss - self._before)


@contextlib.asynccontextmanager
async def watched(pid: int | None, *, every_s: float = 0.1) -> AsyncIterator[Memory]:
    """Look at a process again and again while the block runs."""
    memory = Memory(pid)

    async def look() -> None:
        while True:
            memory.look()
            await asyncio.sleep(every_s)

    looking = asyncio.create_task(look())
    try:
        yield memory
    finally:
        looking.cancel()
        memory.look()
