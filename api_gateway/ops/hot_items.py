"""On which items bids come fast, of this gateway's. Pure; the clock is an argument."""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

WINDOW_S: Final = 10.0
ITEMS_MAX: Final = 5_000
"""Items that are counted in one window; others that come in it are not: a busy one comes again in the next."""


class Hot(NamedTuple):
    """An item, and the bids on it per second, over the last one or two windows."""

    item_id: str
    bids_per_s: float


class HotItems:
    """Counts bids by item, in the present window and the one before."""

    def __init__(self, now_s: float) -> None:
        self._began_s = now_s
        self._counts: Counter[str] = Counter()
        self._before: Counter[str] = Counter()
        self._before_s = 0.0

    def note(self, item_id: str, bids: int, now_s: float) -> None:
        """Count bids that were just decided."""
        if now_s - self._began_s >= WINDOW_S:
            self._turn(now_s)
        if len(self._counts) < ITEMS_MAX or item_id in self._counts:
            self._counts[item_id] += bids

    def top(self, most: int, now_s: float) -> list[Hot]:
        """The busiest items, busiest first."""
        if now_s - self._began_s >= WINDOW_S:
            self._turn(now_s)
        seconds = max(1.0, now_s - self._began_s + self._before_s)
        found = (self._before + self._counts).most_common(most)
        return [Hot(item_id, round(bids / seconds, 2)) for item_id, bids in found]

    def _turn(self, now_s: float) -> None:
        # After a silence of more than two windows, what was before it is old.
        is_recent = now_s - self._began_s < 2 * WINDOW_S
        self._before = self._counts if is_recent else Counter()
        self._before_s = now_s - self._began_s if is_recent else WINDOW_S
        self._counts = Counter()
        self._began_s = now_s
