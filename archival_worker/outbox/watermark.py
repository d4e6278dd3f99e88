"""How far the archive has got with one shard's outbox. Pure.

The archived cursor may only say "everything up to n is committed", because the outbox is trimmed there. Messages are
redelivered, reordered, and shared between several archivers, so entries arrive in any order: what is past a gap is kept
aside until the gap closes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Watermark:
    """One shard's progress within one shard epoch.

    Attributes:
        epoch: the shard epoch, 0 before anything was archived.
        archived: every entry from 1 to this one is committed.
        ahead: committed entries past a gap, as ranges ``(first, last)``: ascending, apart from each other, and the
            first begins above ``archived + 1``. Ranges, not single numbers, because a gap that stays open for an hour
            has few ranges but very many numbers behind it, and this is rewritten with every batch.
    """

    epoch: int = 0
    archived: int = 0
    ahead: tuple[tuple[int, int], ...] = ()

    def add(self, epoch: int, entries: Iterable[int]) -> Watermark:
        """The watermark after these entries of a shard epoch were committed. Order is free, and entries may repeat.

        A higher epoch starts anew: Redis was rebuilt, and counts its outbox from 1. A lower one changes nothing.
        """
        if epoch < self.epoch:
            return self
        start = self if epoch == self.epoch else Watermark(epoch)
        ranges = _merged([*start.ahead, *((n, n) for n in entries if n > start.archived)])
        archived = start.archived
        if ranges and ranges[0][0] == archived + 1:
            archived = ranges.pop(0)[1]
        return Watermark(epoch, archived, tuple(ranges))


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ascending ranges that neither overlap nor touch, covering the same numbers."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            if last > merged[-1][1]:
                merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return merged


def flattened(ahead: Iterable[tuple[int, int]]) -> list[int]:
    """``[first, last, first, last, …]``, the form in which ``shard_cursors.ahead`` keeps the ranges."""
    return [number for known in ahead for number in known]


def unflattened(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """The inverse of :func:`flattened`."""
    flat = iter(numbers)
    return tuple(zip(flat, flat, strict=True))
