"""What every store does, and what an entry costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol, TypeAlias

Entry: TypeAlias = tuple[bytes | None, float, int]
"""Value (None: the origin has none), when it expires on the clock of leases, generation of its group.

A bare tuple of atoms, since the garbage collector stops looking at those: a million entries cost it nothing.
"""

ENTRY_OVERHEAD_BYTES: Final = 320
"""Beside the characters of the key and the bytes of the value: the objects' heads (str 49, bytes 33, tuple 64, float
24), what the allocator rounds up, and the entry's part of an ordered dictionary just after it has grown, when it is
emptiest. Measured: tests/unit/shared/read_cache/test_store.py."""


def cost_of(key: str, entry: Entry) -> int:
    """What the entry takes in memory, in bytes. Keys are ASCII."""
    value = entry[0]
    return ENTRY_OVERHEAD_BYTES + len(key) + (len(value) if value is not None else 0)


class Store(Protocol):
    """Entries by key, never more bytes than its bound. It has no clock: the caller checks if an entry has expired."""

    bytes_max: int
    bytes_used: int
    evictions: int

    def get(self, key: str) -> Entry | None:
        """The entry, which counts as used now."""

    def peek(self, key: str) -> Entry | None:
        """The entry, without counting."""

    def put(self, key: str, entry: Entry) -> None:
        """Keep the entry in place of one of the same key, as far as there is room: it may be the one that goes."""

    def remove(self, key: str) -> None:
        """Drop the entry, if it is there."""

    def clear(self) -> None:
        """Drop all."""

    def keys(self) -> Iterator[str]:
        """All keys; those that would stay longest come first."""

    def __len__(self) -> int: ...
