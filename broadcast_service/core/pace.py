"""How many frames of one item may go out a second. Pure; the clock is an argument."""

from __future__ import annotations

from typing import Final

TIMER_SLACK_S: Final = 0.001
"""Timers of the event loop count in whole milliseconds; one that rings so much early is in time."""


class Pace:
    """Slots of ``1 / rate_max`` seconds: a frame takes one, and the next one may follow when it is over.

    Whoever takes several slots at once waits the longer for the next. So over any time the frames are no more than
    ``rate_max`` a second, and one group on top.

    Args:
        rate_max: frames a second; 0 for no limit.
    """

    __slots__ = ("_period_s", "due_s")

    def __init__(self, rate_max: float) -> None:
        self._period_s = 1 / rate_max if rate_max else 0.0
        self.due_s = float("-inf")
        """When the next frame may go out."""

    @property
    def is_limited(self) -> bool:
        return self._period_s > 0

    def is_free(self, now_s: float) -> bool:
        """Whether a frame may go out now."""
        return now_s >= self.due_s - TIMER_SLACK_S

    def take(self, now_s: float, frames: int) -> None:
        """Frames go out, whether there was a slot for them or not."""
        self.due_s = max(self.due_s, now_s) + frames * self._period_s
