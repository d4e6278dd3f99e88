"""When clients are told that their bids are shed: as soon as the gateway has time for it.

A client that is told may come again at once. Without a bound, all that a gateway can do in the time of a flush would go
into refusals, and the more clients there are, the fewer bids would be decided. So while the gateway's core is busy, it
tells three refusals for two bids that it decides. While the core has time to spare, it tells many more: a client that
waits for its refusal does nothing else, and its next bid is late.

A core is busy if this thread runs, or waits for it because others run: in a container with a quarter of a core, say.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

AT_ONCE_BUSY: Final = 256
"""Refusals that are told in the time of a flush, however few bids it has, while the core is busy."""
PER_DECIDED: Final = 1.5
"""Refusals that are told after a flush, for each bid that it decided. A refusal costs about half of what a bid does, so
if all clients come again at once, some six tenths of the time are left for bids. With one refusal for each, clients at
twice the capacity would wait for their refusals longer and longer."""
AT_ONCE_IDLE: Final = 2_048
"""The same while the core has time to spare. They take some 20 ms of it."""
WAITING_MAX: Final = 20_000
"""Refusals that wait. Past it they are told at once."""
AGAIN_S: Final = 0.1
"""After so long without the end of a flush some are told again."""
_LOOK_S: Final = 0.05
"""How often it is looked whether the core is busy."""
_BUSY: Final = 0.85
"""The part of the time from which on a core is called busy."""

Tell = Callable[[], bool]
"""Tells a client, and returns whether it was still there."""


class WantedCore:
    """A clock of seconds for which the thread that asks has run, or waited for a core. Where the system does not say
    how long it waited, those for which it has run."""

    def __init__(self) -> None:
        self._waited_ns = 0

    def __call__(self) -> float:
        # While too many files are open, what it said last holds. Without it the clock would go back by hours.
        with contextlib.suppress(OSError, ValueError, IndexError):
            # Linux: nanoseconds on a core, nanoseconds of waiting for one, and how often it got one.
            self._waited_ns = int(Path("/proc/thread-self/schedstat").read_bytes().split()[1])
        return time.thread_time() + self._waited_ns / 1e9


class Refusals:
    """Those that were told since the last flush, and those that wait."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, core_clock: Callable[[], float] | None = None
    ) -> None:
        """``core_clock``: as :class:`WantedCore`."""
        self._clock = clock
        self._core_clock = core_clock or WantedCore()
        self._looked_at = (clock(), self._core_clock())
        self._at_once = AT_ONCE_BUSY
        self._told = 0
        self._waiting: deque[Tell] = deque()
        # Ends the wait if no flush does.
        self._hurry: asyncio.TimerHandle | None = None
        self._is_closed = False

    def __len__(self) -> int:
        """Refusals that wait until they may be told, those of clients that have gone meanwhile among them."""
        return len(self._waiting)

    def add(self, tell: Tell) -> None:
        """Tell a client: at once, or after the flush that is in flight, where many were told meanwhile."""
        may_be_told = self._told < self._at_once and not self._waiting
        if may_be_told or self._is_closed or len(self._waiting) >= WAITING_MAX:
            self._told += 1
            tell()
            return
        self._waiting.append(tell)
        self._tell_again_later()

    def flushed(self, bids: int) -> None:
        """A flush of ``bids`` is over: tell those who wait."""
        if self._told:
            self._tell(int(bids * PER_DECIDED))

    def close(self) -> None:
        """Tell all who wait, and from now on everybody at once."""
        self._is_closed = True
        self._tell(len(self._waiting))

    def _tell_again_later(self) -> None:
        if self._hurry is None:
            self._hurry = asyncio.get_running_loop().call_later(AGAIN_S, self._tell, 0)

    def _tell(self, most: int) -> None:
        """Tell ``most`` of those who wait, or as many as are told at once if that is more, in the order in which they
        came. Who comes again meanwhile waits. Who has gone does not count: otherwise clients that hang up and come
        again would make the others wait."""
        if self._hurry is not None:
            self._hurry.cancel()
            self._hurry = None
        self._look_at_the_core()
        self._told = 0
        left = max(most, self._at_once)
        for _ in range(len(self._waiting)):
            if not left:
                break
            try:
                is_told = self._waiting.popleft()()
            except Exception:  # of one client; the others must be told too
                logger.exception("bids: a refusal could not be told")
                continue
            self._told += is_told
            left -= is_told
        if self._waiting:
            self._tell_again_later()

    def _look_at_the_core(self) -> None:
        before_s, wanted_before_s = self._looked_at
        now_s = self._clock()
        if now_s - before_s < _LOOK_S:
            return
        wanted_s = self._core_clock()
        is_busy = wanted_s - wanted_before_s > _BUSY * (now_s - before_s)
        self._at_once = AT_ONCE_BUSY if is_busy else AT_ONCE_IDLE
        self._looked_at = (now_s, wanted_s)
