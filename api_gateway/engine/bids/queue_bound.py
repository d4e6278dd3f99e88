"""How many bids may wait: as many as are decided within a time, which is learnt from the flushes.

A fixed number of bids would suit one machine and one spread of bids: Redis decides 20,000 bids on one item in half a
second, and needs two seconds for them on a thousand items. No network here; the clock is given.

There are two bounds, since a long queue is either a burst or a standing queue. A burst passes, and its bids may wait
for long. In a queue that stays long every bid waits for long. So once a queue has been long for a while, the lower
bound applies until it has been short: bidders learn their verdicts sooner, at the price of some bids (decision 0084).
The lower bound does not apply if the gateway's own core is the limit: a refusal costs that core nearly as much as one
more bid in a large flush.
(CoDel, RFC 8289, does this for packets; the interval is its term.)
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from operator import itemgetter
from typing import Final

ALWAYS_MAX: Final = 512
"""This many bids may wait however long the last flushes took, so that no batch of 500 bids is refused in part."""
STANDING_MAX: Final = 256
"""The same for a standing queue: a batch that comes then may be refused in part."""
INTERVAL_S: Final = 1.0
"""A queue that has been long for this time is a standing one. As often the gateway checks whether its own core is the
reason."""
BUSY: Final = 0.95
"""The gateway's core is the reason if its thread runs, or waits for a core, for this part of the time."""
_FULL: Final = 256
"""Bids of a flush that shows what can be decided, however quick it is."""
_KEPT: Final = 4
"""How many flushes the rate comes from. The one that took longest is left out: a single stall tells nothing of the
next flush."""
_SHORT: Final = 0.5
"""A queue is short if it takes at most this part of the time for which a bid may wait in a standing one."""
_ALWAYS_SHORT: Final = 64
"""A queue of at most this many bids is short in any case."""
_LONG: Final = 0.25
"""What part of the time a flush may take before it shows what can be decided, though it is not over."""
_PAUSE_S: Final = 0.025
"""If no bid comes for longer, it may be that the gateway stood still, and not the flush."""


class QueueBound:
    """The bound of a queue from which flushes are taken, one at a time.

    A bid waits for those that are in flight, and for those before it. So together they may be as many as are decided in
    ``wait_s``, or in ``standing_s`` if it is a standing queue, at the rate of the last flushes. What a quick flush of
    few bids shows is not what Redis can do but what it was asked for, so such a flush can only raise the rate. A slow
    flush counts while it is still in flight: its bids are not decided yet. A gateway that stood still itself, as a
    suspended process does, reads the bids that came meanwhile before it hears that its flush was over long ago. So a
    flush grows no older while no bid comes.

    Attributes:
        rate: bids decided in a second, as far as the flushes tell; infinite where they do not yet.
        waiting_max: how many may wait now, if the flush that is in flight does not take long.
    """

    def __init__(
        self,
        *,
        queue_max: int,
        wait_s: float,
        standing_s: float = 0.0,
        core_clock: Callable[[], float] = lambda: 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            queue_max: bids that may wait in any case.
            wait_s: seconds that a bid may be expected to wait for its verdict; 0: any time.
            standing_s: the same for a standing queue, if it is less; 0: there is no such bound.
            core_clock: seconds for which the gateway's thread has run, or waited for a core.
        """
        self._queue_max = queue_max
        self._wait_s = wait_s or math.inf
        self._has_two_bounds = 0 < standing_s < self._wait_s
        self._standing_s = standing_s if self._has_two_bounds else self._wait_s
        self._clock = clock
        self._core_clock = core_clock
        self._in_flight = 0
        self._is_full_flush = False
        self._since_s = 0.0
        # How old the flush in flight is, and when that was looked at.
        self._age_s = 0.0
        self._looked_s = 0.0
        # Bids and seconds of the last flushes that count. Without any, no rate is known.
        self._flushes: deque[tuple[int, float]] = deque(maxlen=_KEPT)
        self.rate = math.inf
        self._refused_at_s = -math.inf
        # Since when the queue has been long, or was looked at as a long one; infinite while it is short. And the time
        # that the gateway's thread had wanted its core then.
        self._long_since_s = math.inf
        self._wanted_s = 0.0
        self._let_wait(self._wait_s, ALWAYS_MAX)

    @property
    def flush_max(self) -> float:
        """How many bids the next flush may have: as many as may wait in a standing queue."""
        return max(_FULL, self.rate * self._standing_s)

    def admits(self, waiting: int) -> bool:
        """Whether one more bid may wait beside ``waiting`` others."""
        if not waiting and not self._in_flight and self._long_since_s < math.inf:
            # The first one after a silence, in which no flush could show that the queue was empty.
            self._look_whether_it_stands(0, self._clock())
        if self._in_flight:
            now_s = self._clock()
            self._age_s += min(now_s - self._looked_s, _PAUSE_S)
            self._looked_s = now_s
        if waiting < self._always:
            return True
        if waiting < self.waiting_max and self._is_soon_over(waiting):
            return True
        self._refused_at_s = self._clock()
        return False

    def _is_soon_over(self, waiting: int) -> bool:
        """Whether the flush in flight and ``waiting`` more bids are decided in time."""
        if not self._in_flight:
            return True
        took_s = self._age_s
        return took_s < self._long_s or waiting + self._in_flight < self._in_flight / took_s * self._most_s

    def taken(self, bids: int, left: int) -> None:
        """A flush of ``bids`` was taken; ``left`` others go on waiting."""
        self._in_flight = bids
        self._is_full_flush = bids >= _FULL or left > 0
        self._since_s = self._looked_s = self._clock()
        self._age_s = 0.0
        if self._has_two_bounds:
            self._look_whether_it_stands(bids + left, self._since_s)
        self._bind()

    def _look_whether_it_stands(self, bids: int, now_s: float) -> None:
        """Take the bound for a queue of ``bids``, those in flight among them."""
        is_short = bids <= max(_ALWAYS_SHORT, self.rate * self._standing_s * _SHORT)
        # A queue that is short because bids were refused would be long again at once.
        if is_short and now_s - self._refused_at_s > self._standing_s:
            self._long_since_s = math.inf
            self._let_wait(self._wait_s, ALWAYS_MAX)
            return
        if now_s < self._long_since_s:
            self._long_since_s, self._wanted_s = now_s, self._core_clock()
        elif (long_s := now_s - self._long_since_s) >= INTERVAL_S:
            wanted_s = self._core_clock()
            if wanted_s - self._wanted_s < BUSY * long_s:
                self._let_wait(self._standing_s, STANDING_MAX)
            else:
                self._let_wait(self._wait_s, ALWAYS_MAX)
            self._long_since_s, self._wanted_s = now_s, wanted_s

    def done(self, *, is_decided: bool = True) -> None:
        """The flush is over.

        Args:
            is_decided: whether any of its bids was decided.
        """
        # A clock may tell the same twice.
        took_s = max(self._clock() - self._since_s, 1e-6)
        if self._shows_the_rate(took_s, is_decided=is_decided):
            self._flushes.append((self._in_flight, took_s))
            counted = sorted(self._flushes, key=itemgetter(1))[: max(1, len(self._flushes) - 1)]
            bids, seconds = map(sum, zip(*counted, strict=True))
            # One that is not full counts because it was quick, but it may stand in the place of a larger one.
            least = 0.0 if self._is_full_flush else self.rate
            self.rate = max(bids / seconds, least)
        self._in_flight = 0
        self._bind()

    def _shows_the_rate(self, took_s: float, *, is_decided: bool) -> bool:
        if self._is_full_flush:
            # What fails at once would show a rate that nobody can decide.
            return is_decided or took_s >= self._long_s
        # A stall tells nothing of a flush with more bids in it. If it is none, the next flush will be full.
        return is_decided and self._in_flight / took_s > self.rate

    def _let_wait(self, most_s: float, always: int) -> None:
        self._most_s = most_s
        self._long_s = most_s * _LONG
        self._always = min(always, self._queue_max)
        self._bind()

    def _bind(self) -> None:
        room = self.rate * self._most_s - self._in_flight
        self.waiting_max = int(max(self._always, min(self._queue_max, room)))
