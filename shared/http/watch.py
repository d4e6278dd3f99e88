"""Objects that wait for something, oldest first, and a bound on how long each may wait.

One look a second at all of them costs less than a timer for each. Where ``timeout_s`` is less than a second, that is
the time between two looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import Final, Generic, TypeVar

_SWEEP_S: Final = 1.0

T = TypeVar("T")


class Watch(Generic[T]):
    """``late`` is called with each one that has waited for longer than ``timeout_s``, up to a second later."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout_s: float, late: Callable[[T], None]) -> None:
        self.loop = loop
        self._timeout_s = timeout_s
        self._sweep_s = min(_SWEEP_S, timeout_s)
        self._late = late
        self._since_s: dict[T, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, one: T) -> None:
        """Start its time."""
        self._since_s.pop(one, None)
        self._since_s[one] = self.loop.time()
        if self._timer is None:
            self._timer = self.loop.call_later(self._sweep_s, self._sweep)

    def end(self, one: T) -> None:
        """It no longer waits."""
        self._since_s.pop(one, None)

    def __len__(self) -> int:
        return len(self._since_s)

    def __contains__(self, one: T) -> bool:
        return one in self._since_s

    def __iter__(self) -> Iterator[T]:
        """Oldest first."""
        return iter(self._since_s)

    @property
    def oldest(self) -> T:
        """The one that has waited for the longest."""
        return next(iter(self._since_s))

    def _sweep(self) -> None:
        late_s = self.loop.time() - self._timeout_s
        for one, _ in list(takewhile(lambda entry: entry[1] < late_s, self._since_s.items())):
            self.end(one)
            self._late(one)
        self._timer = self.loop.call_later(self._sweep_s, self._sweep) if self._since_s else None
