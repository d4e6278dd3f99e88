"""The entry that was not used for the longest time goes first. The reference, and the store of mirrors, which live for
moments only."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from typing_extensions import override

from shared.read_cache.store.base import Entry, Store, cost_of


class LruStore(Store):
    """An ordered dictionary: the entry that was used last is at its end."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes_used = 0
        self.evictions = 0
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    @override
    def get(self, key: str) -> Entry | None:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    @override
    def peek(self, key: str) -> Entry | None:
        return self._entries.get(key)

    @override
    def put(self, key: str, entry: Entry) -> None:
        self.remove(key)
        cost = cost_of(key, entry)
        if cost > self.bytes_max:
            return
        self._entries[key] = entry
        self.bytes_used += cost
        while self.bytes_used > self.bytes_max:
            oldest, gone = self._entries.popitem(last=False)
            self.bytes_used -= cost_of(oldest, gone)
            self.evictions += 1

    @override
    def remove(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes_used -= cost_of(key, entry)

    @override
    def clear(self) -> None:
        self._entries = OrderedDict()
        self.bytes_used = 0

    @override
    def keys(self) -> Iterator[str]:
        return reversed(self._entries)

    @override
    def __len__(self) -> int:
        return len(self._entries)
