"""Token buckets. Pure; the clock is an argument."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """``per_s``: tokens that are refilled per second, 0 for no limit. ``burst``: the most that the bucket holds."""

    per_s: float
    burst: float


class Bucket:
    """A token bucket, full at first."""

    __slots__ = ("_left", "_rate", "_seen_s")

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._left = rate.burst
        self._seen_s = float("-inf")

    def left(self, now_s: float) -> float:
        """The tokens in the bucket; negative for a debt."""
        if self._left < self._rate.burst:
            came_back = max(0.0, now_s - self._seen_s) * self._rate.per_s
            self._left = min(self._rate.burst, self._left + came_back)
        self._seen_s = now_s
        return self._left

    def take(self, now_s: float, tokens: float) -> float:
        """Take tokens, even if too few are there; returns what is left."""
        left = self.left(now_s)
        if self._rate.per_s:
            self._left = left - tokens
        return self._left

    def is_full(self, now_s: float) -> bool:
        """Whether the bucket is full, and so like a new one."""
        return self.left(now_s) >= self._rate.burst
