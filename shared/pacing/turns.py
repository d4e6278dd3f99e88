"""Shares the turns of an event loop between work that can wait and everything else.

What many clients send arrives in one turn of the loop. Were all of it handled there, everybody else would wait until
the last of it is done. Here it is handled in steps. A turn takes as many steps as fit into a few milliseconds, one of
each client after the other; the rest wait for later turns.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Final

logger = logging.getLogger(__name__)

WORK_S: Final = 0.002
"""What all steps of a turn may take together, in seconds; the last of them may take longer."""

Step = Callable[[], bool]
"""Does a part of the work, at most a millisecond or so of it. Returns whether there is more to do."""


class Turns:
    """Steps of many, in turns of the running loop. They wait in a queue that the caller bounds, for example by one
    entry for each connection.

    Args:
        work_s: what all steps of a turn may take together, in seconds.
        clock: any monotonic clock, in seconds.
    """

    def __init__(self, work_s: float = WORK_S, *, clock: Callable[[], float] = perf_counter) -> None:
        self._work_s = work_s
        self._clock = clock
        self._steps: deque[Step] = deque()
        # Whether the next turn is scheduled, which measures its time anew.
        self._is_next_due = False
        self._until_s = 0.0

    def __len__(self) -> int:
        """How many steps wait."""
        return len(self._steps)

    def begin(self, step: Step) -> None:
        """Call this step again and again until it has no more to do: at once, if this turn has time left and nobody
        waits."""
        if not self._is_next_due:
            self._is_next_due = True
            self._until_s = self._clock() + self._work_s
            asyncio.get_running_loop().call_soon(self._turn)
        if self._steps or self._clock() >= self._until_s or self._has_more(step):
            self._steps.append(step)

    def _turn(self) -> None:
        self._until_s = self._clock() + self._work_s
        while self._steps:
            step = self._steps.popleft()
            if self._has_more(step):
                self._steps.append(step)
            if self._clock() >= self._until_s:
                break
        self._is_next_due = bool(self._steps)
        if self._is_next_due:
            asyncio.get_running_loop().call_soon(self._turn)

    def _has_more(self, step: Step) -> bool:
        try:
            return step()
        except Exception:
            # The others have their turns all the same.
            logger.exception("a step failed, and is not repeated")
            return False


class OneByOne:
    """Lets coroutines go on one after another, each in a turn of the loop of its own. Every call of :meth:`turn` waits,
    so the caller bounds how many there are."""

    def __init__(self) -> None:
        self._waiting: deque[Future[None]] = deque()
        self._is_taken = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def turn(self) -> None:
        """Wait until nobody else has this turn."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # Waiters of a loop that has ended never go on.
            self._loop, self._is_taken = loop, False
            self._waiting.clear()
        if not self._is_taken:
            self._is_taken = True
            loop.call_soon(self._next)
            return
        mine = loop.create_future()
        self._waiting.append(mine)
        await mine

    def _next(self) -> None:
        """The turn is over: give the next one to the first waiter, or leave it free."""
        while self._waiting:
            next_one = self._waiting.popleft()
            if not next_one.done():
                next_one.set_result(None)
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._is_taken = False
