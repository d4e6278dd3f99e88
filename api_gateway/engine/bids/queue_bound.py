"""How many bids may wait: as many as are decided within a time, which is learnt from the flushes.

A bound in bids would have to be another one for each machine and each spread of bids: 20,000 of them are half a second
on one item, and four on a thousand. No network here; the clock is given.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

ALWAYS_MAX: Final = 512
"""So many may wait however long the last flushes took, so that one batch of 500 bids is never refused in part."""
_FULL: Final = 256
"""Bids of a flush that shows what can be decided, however quick it is."""
_KEPT: Final = 0.5
"""Of what is known by the flushes before, with each new one. After a stall the rate doubles with each flush, then."""

_LONG: Final = 0.25
"""What part of the time a flush may take before it shows, however few bids it has, what can be decided."""


class QueueBound:
    """The bound of a queue from which flushes are taken, one at a time.

    A bid waits for those that are in flight, and for those before it. So together they may be as many as are decided in
    ``wait_s``, at the rate of the last flushes. What a quick flush of few bids shows is not what Redis can do but what
    it was asked for, so such a flush can only raise the rate. A flush that takes long tells of itself while it is in
    flight: it has so many bids, and they are not decided yet.

    Attributes:
        waiting_max: how many may wait now, if the flush that is in flight does not take long.
    """

    def __init__(self, *, queue_max: int, wait_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            queue_max: bids that may wait in any case.
            wait_s: how long a bid may be expected to wait for its verdict; 0: any time.
        """
        self._queue_max = queue_max
        self._always = min(ALWAYS_MAX, queue_max)
        self._wait_s = wait_s or math.inf
        self._long_s = self._wait_s * _LONG
        self._clock = clock
        self._in_flight = 0
        self._is_full_flush = False
        self._since_s = 0.0
        # Of the flushes that count, each half as much as the next one. Without any, no rate is known.
        self._bids = math.inf
        self._seconds = 1.0
        self.waiting_max = queue_max

    @property
    def rate(self) -> float:
        """Bids decided in a second, as far as the flushes tell; infinite where they do not yet."""
        return self._bids / self._seconds

    def admits(self, waiting: int) -> bool:
        """Whether one more may wait, beside so many."""
        if waiting < self._always:
            return True
        if waiting >= self.waiting_max:
            return False
        if not self._in_flight:
            return True
        took_s = self._clock() - self._since_s
        return took_s < self._long_s or waiting + self._in_flight < self._in_flight / took_s * self._wait_s

    def taken(self, bids: int, left: int) -> None:
        """A flush of so many was taken, and so many go on waiting."""
        self._in_flight = bids
        self._is_full_flush = bids >= _FULL or left > 0
        self._since_s = self._clock()
        self._bind()

    def done(self) -> None:
        """The flush is over."""
        # A clock may tell the same twice.
        took_s = max(self._clock() - self._since_s, 1e-6)
        if self._is_full_flush or took_s >= self._long_s or self._in_flight / took_s > self.rate:
            is_first = math.isinf(self._bids)
            self._bids = self._in_flight + (0.0 if is_first else self._bids * _KEPT)
            self._seconds = took_s + (0.0 if is_first else self._seconds * _KEPT)
        self._in_flight = 0
        self._bind()

    def _bind(self) -> None:
        room = self.rate * self._wait_s - self._in_flight
        self.waiting_max = int(max(self._always, min(self._queue_max, room)))
