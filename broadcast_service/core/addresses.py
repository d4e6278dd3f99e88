"""How many connections each client address has, and how many it asks for. Pure; the clock is an argument.

An address is whom a connection comes from, or whom a trusted proxy says it does. Of IPv6 the first 64 bits count: one
household or one rented server has all of the rest to itself.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from broadcast_service.core.quota import Bucket, Rate

ATTEMPTS_BURST_MIN: Final = 100

_PREFIX_BITS: Final = 64
_NAME_MAX: Final = 64


def counted_as(address: str) -> str:
    """What an address counts as: itself, the IPv4 address in it, or the prefix of an IPv6 one."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        # A trusted proxy may name its clients otherwise.
        return address[:_NAME_MAX]
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    prefix = int(parsed) >> (128 - _PREFIX_BITS) << (128 - _PREFIX_BITS)
    return f"{IPv6Address(prefix)}/{_PREFIX_BITS}"


class Addresses:
    """Counts; bounded by the number of connections, and of attempts in the last seconds that were not refused.

    Args:
        each_max: connections of one address; 0 is no bound, and then nothing is counted.
        attempts_per_s: connections that an address may ask for in the long run. At once it may ask for as many as it
            may have: behind one address there may be many viewers, who all come back when a service starts again.
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
        """Addresses whose last attempts still count."""
        return len(self._buckets)

    def is_full(self, counted: str) -> bool:
        """Whether one more connection of an address (as :func:`counted_as` gives it) would be too many."""
        return self._each_max > 0 and self._counts.get(counted, 0) >= self._each_max

    def attempt(self, counted: str, now_s: float) -> bool:
        """Whether an address may ask for a connection now. One that may not is not counted: it may soon."""
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
        """Those who have not asked for long. To be called every second or so."""
        self._buckets = {address: bucket for address, bucket in self._buckets.items() if not bucket.is_full(now_s)}

    def enter(self, counted: str) -> None:
        """One more."""
        if self._each_max:
            self._counts[counted] = self._counts.get(counted, 0) + 1

    def leave(self, counted: str) -> None:
        """One less."""
        left = self._counts.get(counted, 0) - 1
        if left > 0:
            self._counts[counted] = left
        else:
            self._counts.pop(counted, None)
