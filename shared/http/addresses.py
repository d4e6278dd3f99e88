"""Limits the connections, and the attempts to connect, of each client address. Pure; the clock is an argument.

The client address is the peer's, or the one that a trusted proxy reports. Of an IPv6 address only the first 64 bits
count, because one household or one rented server owns a whole /64.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from shared.pacing.buckets import Bucket, Rate

ATTEMPTS_BURST_MIN: Final = 100

_PREFIX_BITS: Final = 64
_NAME_MAX: Final = 64


def counted_as(address: str) -> str:
    """The key under which an address is counted: an IPv4 address (also an IPv4-mapped one), or an IPv6 /64 prefix."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        # A trusted proxy may send names instead of addresses.
        return address[:_NAME_MAX]
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    prefix = int(parsed) >> (128 - _PREFIX_BITS) << (128 - _PREFIX_BITS)
    return f"{IPv6Address(prefix)}/{_PREFIX_BITS}"


class Addresses:
    """Counts connections and recent attempts per address.

    Memory is bounded by the open connections and by the recent attempts that were not refused.

    Args:
        each_max: connections per address; 0 means no limit, and then nothing is counted.
        attempts_per_s: sustained rate of attempts per address. The burst is ``each_max``, or 100 where that is more:
            many viewers may share an address, and all reconnect when a broadcaster restarts.
    """

    def __init__(self, each_max: int, *, attempts_per_s: float = 0) -> None:
        self._each_max = each_max
        self._counts: dict[str, int] = {}
        self._rate = Rate(attempts_per_s if each_max else 0, max(each_max, ATTEMPTS_BURST_MIN))
        self._buckets: dict[str, Bucket] = {}

    def __len__(self) -> int:
        """Addresses with at least one connection."""
        return len(self._counts)

    @property
    def remembered(self) -> int:
        """Addresses with attempts that still count."""
        return len(self._buckets)

    def is_full(self, counted: str) -> bool:
        """Whether the address (as :func:`counted_as` gives it) has all the connections that it may have."""
        return self._each_max > 0 and self._counts.get(counted, 0) >= self._each_max

    def attempt(self, counted: str, now_s: float) -> bool:
        """Count an attempt and say whether it is allowed. A refused attempt costs nothing."""
        if not self._rate.per_s:
            return True
        bucket = self._buckets.get(counted)
        if bucket is None:
            bucket = self._buckets[counted] = Bucket(self._rate)
        if bucket.left(now_s) < 1:
            return False
        bucket.take(now_s, 1)
        return True

    def forget(self, now_s: float) -> None:
        """Forget addresses without recent attempts. Call it about once a second."""
        self._buckets = {address: bucket for address, bucket in self._buckets.items() if not bucket.is_full(now_s)}

    def enter(self, counted: str) -> None:
        if self._each_max:
            self._counts[counted] = self._counts.get(counted, 0) + 1

    def leave(self, counted: str) -> None:
        left = self._counts.get(counted, 0) - 1
        if left > 0:
            self._counts[counted] = left
        else:
            self._counts.pop(counted, None)
