"""The way to the origin: it bounds the questions under way and those that wait, and refuses the rest at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Final

from shared.read_cache.errors import OriginSilent, Overloaded

SILENT_S: Final = 1.0
"""How long an origin answers no question, though one was under way all the time, before it counts as silent. An origin
that is only busy answers many."""


class Gate:
    """Lets questions through in the order in which they came.

    Args:
        running_max: at a time.
        waiting_max: further ones that may wait.
        wait_max_s: how long one waits at most; nobody needs an answer that comes later.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        *,
        running_max: int,
        waiting_max: int,
        wait_max_s: float = 2.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._free = asyncio.Semaphore(running_max)
        self._running_max = running_max
        self._waiting_max = waiting_max
        self._wait_max_s = wait_max_s
        self._clock = clock
        self._running = 0
        self._unanswered_since_s: float | None = None
        """When the first question was asked after the last answer."""
        self.waiting = 0
        """Questions that wait now."""
        self.shed = 0
        """Questions that were refused since the start."""

    @property
    def is_full(self) -> bool:
        """Whether the next question would have to wait."""
        return self._free.locked()

    @property
    def is_silent(self) -> bool:
        """Whether the origin answers this process nothing: for ``SILENT_S`` seconds questions have only failed, or
        wait for an answer. It may be there for others."""
        since_s = self._unanswered_since_s
        return since_s is not None and self._clock() - since_s >= SILENT_S

    @asynccontextmanager
    async def passed(self) -> AsyncIterator[None]:
        """The question may be asked inside this context; an error that is raised inside means that it was not answered.

        Raises:
            OriginSilent: the line is full, or was too slow, and the origin answers nothing.
            Overloaded: the line is full, or was too slow.
        """
        if self._free.locked():
            await self._wait()
        else:
            await self._free.acquire()
            if not self._running:
                # Failures from before this pause say nothing about now.
                self._unanswered_since_s = None
        if self._unanswered_since_s is None:
            self._unanswered_since_s = self._clock()
        self._running += 1
        try:
            yield
            self._unanswered_since_s = None
        finally:
            self._running -= 1
            self._free.release()

    async def _wait(self) -> None:
        if self.waiting >= self._waiting_max:
            self.shed += 1
            raise self._refusal(f"{self._running_max} questions are asked of the origin and {self.waiting:,} wait")
        self.waiting += 1
        try:
            async with asyncio.timeout(self._wait_max_s) as timeout:
                await self._free.acquire()
        except TimeoutError:
            if not timeout.expired():
                raise
            self.shed += 1
            raise self._refusal(f"the origin was busy with others for {self._wait_max_s:g} s") from None
        finally:
            self.waiting -= 1

    def _refusal(self, what: str) -> Overloaded:
        return OriginSilent(what) if self.is_silent else Overloaded(what)
