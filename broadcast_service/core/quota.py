"""Bounds the operations of one viewer. Pure; the clock is an argument.

A token bucket. It is full at first, so that a page may ask for everything at once, and refills at a steady rate.
Refused messages count too, so a viewer that goes on asking runs into debt and is closed in the end.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from shared.pacing.buckets import Bucket, Rate

REFUSED_MAX: Final = 100
"""The largest debt, in refused messages. It is paid off at the bucket's rate."""

SINCE_COST: Final = 5
"""Operations that an item with ``since`` counts as: hundreds of events may be read and encoded for it."""


NOISE_BURST: Final = 200
"""Burst of pings, unsolicited pongs and fragments. An honest viewer seldom sends these, and each takes as long as an
operation. A viewer that has used up the burst is closed at once, without an error for each of them."""


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


def noise_rate(operations: Rate) -> Rate:
    """The rate of pings, pongs and fragments for a connection with this rate of operations."""
    return Rate(operations.per_s, min(operations.burst, NOISE_BURST))
