"""Response times as counts: small enough to be sent between processes and kept in results, exact to one per cent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

Histogram = Mapping[int, int]
"""How often a time occurred, by the time in tenths of a millisecond, rounded down as :func:`bucket_of` does."""

_EXACT_BELOW_MS: Final = 100
_WHOLE_BELOW_MS: Final = 1_000


def bucket_of(milliseconds: float) -> int:
    """The key for a time: tenths of a millisecond below 100 ms, whole milliseconds below 1 s, else tens of them."""
    if milliseconds < _EXACT_BELOW_MS:
        return max(0, int(milliseconds * 10))
    if milliseconds < _WHOLE_BELOW_MS:
        return int(milliseconds) * 10
    return int(milliseconds / 10) * 100


def percentile_ms(times: Histogram, share: float) -> float:
    """The time in milliseconds within which ``share`` (0 to 1) of all were answered; 0.0 where there are none."""
    total = sum(times.values())
    if not total:
        return 0.0
    wanted, seen = share * total, 0
    for bucket in sorted(times):
        seen += times[bucket]
        if seen >= wanted:
            return bucket / 10
    return max(times) / 10


def merged(several: list[Histogram]) -> dict[int, int]:
    """All of them as one."""
    total: Counter[int] = Counter()
    for one in several:
        total.update(one)
    return dict(total)
