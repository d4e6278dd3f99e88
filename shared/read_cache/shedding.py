"""The way to the origin: so many questions at a time, so many that wait, and the rest is refused at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.read_cache.errors import Overloaded


class Gate:
    """Lets questions through in the order in which they came.

    Args:
        running_max: at a time.
        waiting_max: further ones that may wait.
        wait_max_s: how long one waits at most; a question that is answered later than that helps nobody.
    """

    def __init__(self, *, running_max: int, waiting_max: int, wait_max_s: float = 2.0) -> None:
        self._free = asyncio.Semaphore(running_max)
        self._running_max = running_max
        self._waiting_max = waiting_max
        self._wait_max_s = wait_max_s
        self.waiting = 0
        """Now."""
        self.shed = 0
        """Refused since the start."""

    @asynccontextmanager
    async def passed(self) -> AsyncIterator[None]:
        """Inside, the question may be asked.

        Raises:
            Overloaded: the line is full, or was too slow.
        """
        if self._free.locked():
            await self._wait()
        else:
            await self._free.acquire()
        try:
            yield
        finally:
            self._free.release()

    async def _wait(self) -> None:
        if self.waiting >= self._waiting_max:
            self.shed += 1
            raise Overloaded(f"{self._running_max} questions are asked of the origin and {self.waiting:,} wait")
        self.waiting += 1
        try:
            async with asyncio.timeout(self._wait_max_s) as timeout:
                await self._free.acquire()
        except TimeoutError:
            if not timeout.expired():
                raise
            self.shed += 1
            raise Overloaded(f"the origin was busy with others for {self._wait_max_s:g} s") from None
        finally:
            self.waiting -= 1
