"""How much one viewer may ask for. Pure; the clock is an argument.

A token bucket: it is full at first, so that a page may ask for everything at once; what is taken comes back at a steady
rate. What a viewer asks for is counted also where it is refused, so that whoever goes on asking falls behind, and is
given up in the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

REFUSED_MAX: Final = 100
"""What may be asked for in vain, as a debt: it is paid off at the same rate."""

SINCE_COST: Final = 5
"""What an item with ``since`` counts, in operations: the answer may be hundreds of events, read and encoded for it."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Tokens that come back a second (0 for no limit), and how many there are at most."""

    per_s: float
    burst: float


class Bucket:
    """What one of those has left who share a rate; full at first."""

    __slots__ = ("_left", "_rate", "_seen_s")

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._left = rate.burst
        self._seen_s = float("-inf")

    def left(self, now_s: float) -> float:
        """The tokens that are there; negative for a debt."""
        if self._left < self._rate.burst:
            came_back = max(0.0, now_s - self._seen_s) * self._rate.per_s
            self._left = min(self._rate.burst, self._left + came_back)
        self._seen_s = now_s
        return self._left

    def take(self, now_s: float, tokens: float) -> float:
        """Take them, whether they are there or not; what is left then."""
        left = self.left(now_s)
        if self._rate.per_s:
            self._left = left - tokens
        return self._left

    def is_full(self, now_s: float) -> bool:
        """Whether nothing would change if the bucket were forgotten."""
        return self.left(now_s) >= self._rate.burst


class Verdict(Enum):
    """What becomes of a message."""

    CARRIED_OUT = "carried out"
    REFUSED = "refused"
    """The viewer is told so, and nothing is done."""
    GIVEN_UP = "given up"
    """It was told often enough."""


class Quota:
    """What a viewer may still ask for."""

    __slots__ = ("_bucket",)

    def __init__(self, rate: Rate) -> None:
        self._bucket = Bucket(rate)

    def admit(self, now_s: float) -> Verdict:
        """Count a message, or anything else that has to be looked at."""
        left = self._bucket.take(now_s, 1)
        if left >= 0:
            return Verdict.CARRIED_OUT
        return Verdict.REFUSED if left >= -REFUSED_MAX else Verdict.GIVEN_UP

    def spend(self, now_s: float, operations: int) -> bool:
        """Count what a message asks for beyond itself. False: it is too much, and is not counted."""
        if self._bucket.left(now_s) < operations:
            return False
        self._bucket.take(now_s, operations)
        return True


def operations_rate(per_s: float, items_max: int) -> Rate:
    """The rate for a connection that may follow so many items.

    At once it may do all that a page does when it comes back: name each item with ``since``, say who the bidder is,
    which has each standing read, and spread all this over any number of messages up to a hundred.
    """
    return Rate(per_s, items_max * (SINCE_COST + 1) + 100)
