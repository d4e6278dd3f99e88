"""How many connections each client address has. Pure.

An address is whom a connection comes from, or whom a trusted proxy says it does. Of IPv6 the first 64 bits count: one
household or one rented server has all of the rest to itself.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

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
    """Counts; bounded by the number of connections.

    Args:
        each_max: connections of one address; 0 is no bound, and then nothing is counted.
    """

    def __init__(self, each_max: int) -> None:
        self._each_max = each_max
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        """Addresses with at least one connection."""
        return len(self._counts)

    def is_full(self, counted: str) -> bool:
        """Whether one more connection of an address (as :func:`counted_as` gives it) would be too many."""
        return self._each_max > 0 and self._counts.get(counted, 0) >= self._each_max

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
