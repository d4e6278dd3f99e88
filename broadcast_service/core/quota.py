"""Bounds the operations of one viewer. Pure; the clock is an argument.

A token bucket. It is full at first, so that a page may ask for everything at once, and refills at a steady rate.
Refused messages count too, so a viewer that goes on asking runs into debt and is closed in the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

REFUSED_MAX: Final = 100
"""The largest debt, in refused messages. It is paid off at the bucket's rate."""

SINCE_COST: Final = 5
"""Operations that an item with ``since`` counts as: hundreds of events may be read and encoded for it."""


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


class Allowance(Enum):
    """Whether a message may be carried out."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    """The viewer is told so, and nothing is done."""
    EXHAUSTED = "exhausted"
    """The viewer was told often enough: close it."""


class Quota:
    """The quota of one viewer."""

    __slots__ = ("_bucket",)

    def __init__(self, rate: Rate) -> None:
        self._bucket = Bucket(rate)

    def admit(self, now_s: float) -> Allowance:
        """Count a message, or anything else that takes time to handle."""
        left = self._bucket.take(now_s, 1)
        if left >= 0:
            return Allowance.ALLOWED
        return Allowance.REFUSED if left >= -REFUSED_MAX else Allowance.EXHAUSTED

    def spend(self, now_s: float, operations: int) -> bool:
        """Count the operations in a message. False: they are too many, and are not counted."""
        if self._bucket.left(now_s) < operations:
            return False
        self._bucket.take(now_s, operations)
        return True


def operations_rate(per_s: float, items_max: int) -> Rate:
    """The rate for a connection that may follow ``items_max`` items.

    The burst allows all that a page does when it reconnects: subscribe to each item with ``since``, authenticate
    (which reads each standing), and spread this over up to a hundred messages.
    """
    return Rate(per_s, items_max * (SINCE_COST + 1) + 100)
