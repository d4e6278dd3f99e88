"""Token buckets by key, bounded in number. Pure; the clock is an argument.

A full bucket is like none, so keys that have been quiet for long enough are forgotten. Were debts forgotten to make
room, who sends from many addresses would be rid of all of them. So a key for which there is no room shares a bucket.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from shared.buckets import Bucket, Rate

KEYS_MAX: Final = 50_000
"""Keys with a bucket of their own, about 300 bytes each."""
SHARED: Final = 256
"""Buckets for all further keys; which of them is drawn anew in each process."""
_FORGOTTEN_AT_ONCE: Final = 2


class Buckets:
    """One bucket for each key.

    Args:
        rate: of each; ``per_s`` must be above 0.
        keys_max: keys with one of their own.
    """

    def __init__(self, rate: Rate, *, keys_max: int = KEYS_MAX) -> None:
        assert rate.per_s > 0, "no limit needs no buckets"
        self.rate = rate
        self._keys_max = keys_max
        # The one that was not used for longest is first.
        self._own: OrderedDict[str, Bucket] = OrderedDict()
        self._shared: dict[int, Bucket] = {}

    def __len__(self) -> int:
        """Keys with a bucket of their own."""
        return len(self._own)

    def wait_s(self, key: str, cost: int, now_s: float) -> float:
        """How long until so many units may be taken; 0: at once. More than the burst may be taken when the bucket is
        full, and is paid off afterwards."""
        missing = min(float(cost), self.rate.burst) - self._bucket(key, now_s).left(now_s)
        # Less than that is what counting with fractions leaves over.
        return missing / self.rate.per_s if missing > 1e-9 else 0.0

    def take(self, key: str, cost: int, now_s: float) -> None:
        """Take units, even if too few are there."""
        self._bucket(key, now_s).take(now_s, cost)

    def _bucket(self, key: str, now_s: float) -> Bucket:
        bucket = self._own.get(key)
        if bucket is not None:
            self._own.move_to_end(key)
            return bucket
        for _ in range(_FORGOTTEN_AT_ONCE):
            # Two go for one that comes, so that all go that may.
            if not self._own or not next(iter(self._own.values())).is_full(now_s):
                break
            self._own.popitem(last=False)
        if len(self._own) < self._keys_max:
            bucket = self._own[key] = Bucket(self.rate)
            return bucket
        return self._shared.setdefault(hash(key) % SHARED, Bucket(self.rate))
