"""Bounds the frames of one item per second. Pure; the clock is an argument."""

from __future__ import annotations

from typing import Final

TIMER_SLACK_S: Final = 0.001
"""The event loop's timers have a resolution of a millisecond; one that fires this much early is on time."""


class Pace:
    """Slots of ``1 / rate_max`` seconds. A frame takes one slot; the next frame may follow when that is over.

    Several frames sent at once take as many slots. So in any time there are at most ``rate_max`` frames per second,
    plus one group.

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
        """Count frames that go out, whether there was a slot for them or not."""
        self.due_s = max(self.due_s, now_s) + frames * self._period_s
