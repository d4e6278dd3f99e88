"""Very hot keys of other nodes are mirrored for moments, so that one key does not make one node slow for all.

Which keys are hot is counted in two windows, one being filled and the one before. The number of keys counted is
bounded: where very many are asked for, perhaps none is found hot; that has no other effect.
"""

from __future__ import annotations

from typing import Final

from shared.read_cache.store.base import Entry
from shared.read_cache.store.lru import LruStore

WINDOW_S: Final = 1.0
HOT_FROM: Final = 8
"""Gets of one process within a window and the one before it."""
KEYS_MAX: Final = 8_192


class HotKeys:
    """Tells which keys are asked for often.

    It counts hashes of keys, so that long keys take no more memory: up to 2 MB, which the bound on what is kept does
    not include. Two keys with the same hash are counted as one, which costs a needless mirror.
    """

    def __init__(self, *, hot_from: int = HOT_FROM, window_s: float = WINDOW_S, keys_max: int = KEYS_MAX) -> None:
        self._hot_from = hot_from
        self._window_s = window_s
        self._keys_max = keys_max
        self._now: dict[int, int] = {}
        self._before: dict[int, int] = {}
        self._ends_s = 0.0

    def count(self, key: str, now_s: float) -> None:
        """Count a get of the key."""
        if now_s >= self._ends_s or len(self._now) >= self._keys_max:
            # After a pause the last counts are not from the window right before this one, in which nothing was asked
            # for.
            self._before = self._now if now_s < self._ends_s + self._window_s else {}
            self._now = {}
            self._ends_s = now_s + self._window_s
        hashed = hash(key)
        self._now[hashed] = self._now.get(hashed, 0) + 1

    def is_hot(self, key: str) -> bool:
        """Whether the key is asked for so often that it is worth a mirror."""
        hashed = hash(key)
        return self._now.get(hashed, 0) + self._before.get(hashed, 0) >= self._hot_from


class Mirrors:
    """Values of keys that other nodes own: of hot ones, and of those that had to be loaded here."""

    def __init__(self, bytes_max: int, hot_keys: HotKeys | None = None) -> None:
        self.store = LruStore(bytes_max)
        self.hot_keys = hot_keys or HotKeys()

    def get(self, key: str, now_s: float) -> Entry | None:
        """The mirror of a key, if there is one; the get is counted."""
        self.hot_keys.count(key, now_s)
        return self.store.get(key)
