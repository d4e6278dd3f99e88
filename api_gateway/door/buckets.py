"""Token buckets by key, bounded in number. Pure; the clock is an argument.

A bucket is stored as the moment at which it will be full again if nothing more is taken. Each unit that is taken puts
that moment off by the time in which one unit comes back. This is the generic cell rate algorithm (GCRA), and costs a
look into a dictionary per unit.

A full bucket need not be stored, so keys that have been quiet for long enough are forgotten. If debts were forgotten to
make room, a client with many addresses could get rid of them all. So a key for which there is no room shares a bucket.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import MutableMapping
from itertools import islice
from typing import Final

from shared.pacing.buckets import Rate

KEYS_MAX: Final = 50_000
"""Keys with a bucket of their own, about 200 bytes each."""
KEPT: Final = 4_096
"""How many keys are kept in any case: their memory is not worth the work of forgetting them."""
SHARED: Final = 256
"""Shared buckets for all further keys; each process draws anew which key has which."""
_FORGOTTEN_AT_ONCE: Final = 2
# In units: smaller amounts are errors of rounding.
_NOTHING: Final = 1e-6
LITTLE: Final = 0.25
"""The share of the burst below which the answer says how much is left."""


class Buckets:
    """One bucket for each key, full at first.

    Args:
        rate: of each; ``per_s`` must be above 0.
        keys_max: keys with one of their own.
        kept: so many keys are kept in any case, also with full buckets.
    """

    def __init__(self, rate: Rate, *, keys_max: int = KEYS_MAX, kept: int = KEPT) -> None:
        assert rate.per_s > 0, "no limit needs no buckets"
        self.rate = rate
        self._keys_max = keys_max
        self._kept = kept
        self._unit_s = 1 / rate.per_s
        # How long before the bucket is full it has one unit.
        self._early_s = max(0.0, rate.burst - 1) * self._unit_s
        self._nothing_s = _NOTHING * self._unit_s
        self._much_s = (1 - LITTLE) * rate.burst * self._unit_s
        self._near_s = -LITTLE * rate.burst * self._unit_s
        # When each bucket is full again. Those that were checked longest ago, whether they may go, come first.
        self._own: OrderedDict[str | int, float] = OrderedDict()
        self._shared: dict[str | int, float] = {}

    def __len__(self) -> int:
        """Keys with a bucket of their own."""
        return len(self._own)

    def take_one(self, key: str, now_s: float) -> float:
        """Take a unit, if there is one, and return 0, or less than 0 if less than a quarter of the bucket is left then.
        If there is none, return the seconds until there is one."""
        buckets: MutableMapping[str | int, float] = self._own
        name: str | int = key
        full_s = buckets.get(key)
        if full_s is None:
            buckets, name = self._find(key, now_s)
            full_s = buckets.get(name, now_s)
        wait_s = full_s - now_s - self._early_s
        if wait_s > self._near_s:
            if wait_s > self._nothing_s:
                return wait_s
            buckets[name] = max(full_s, now_s) + self._unit_s
            return -1.0
        buckets[name] = (full_s if full_s > now_s else now_s) + self._unit_s
        return 0.0

    def left(self, key: str, now_s: float) -> int:
        """How many whole units the bucket of this key has."""
        buckets, name = self._find(key, now_s)
        owed = max(0.0, buckets.get(name, now_s) - now_s) / self._unit_s
        return max(0, int(self.rate.burst - owed + _NOTHING))

    def wait_s(self, key: str, cost: int, now_s: float) -> float:
        """How long until so many units may be taken; 0: at once. More than the burst may be taken when the bucket is
        full, and is paid off afterwards."""
        buckets, name = self._find(key, now_s)
        wait_s = buckets.get(name, now_s) - now_s - max(0.0, self.rate.burst - cost) * self._unit_s
        return wait_s if wait_s > self._nothing_s else 0.0

    def take(self, key: str, cost: int, now_s: float) -> bool:
        """Take units, even if too few are there. Returns whether less than a quarter of the bucket is left."""
        buckets, name = self._find(key, now_s)
        buckets[name] = full_s = max(buckets.get(name, now_s), now_s) + cost * self._unit_s
        return full_s - now_s > self._much_s

    def _find(self, key: str, now_s: float) -> tuple[MutableMapping[str | int, float], str | int]:
        """The dictionary that has the bucket of this key, or would have it, and the name of the bucket there."""
        own = self._own
        if key in own:
            return own, key
        # Two are checked for each key that comes, so that all go in time that may go.
        for oldest in list(islice(own, _FORGOTTEN_AT_ONCE)) if len(own) >= self._kept else ():
            if own[oldest] <= now_s:
                del own[oldest]
            else:
                own.move_to_end(oldest)
        return (own, key) if len(own) < self._keys_max else (self._shared, hash(key) % SHARED)
