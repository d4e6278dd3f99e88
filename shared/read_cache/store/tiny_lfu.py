"""Keeps what is asked for often, even if much else was asked for since: W-TinyLFU, bounded by bytes.

A new entry comes into a small *window*. An entry that has to leave the window may go into the *main* part only if it
was asked for more often than the entry that would have to leave there; a sketch of counts tells. So a scan over rare
keys passes through the window and drives nothing out. The main part is in two: *probation*, from which entries go, and
*protected*, into which they come when they are used again (G. Einziger, R. Friedman, B. Manes: TinyLFU, 2017).

Entries differ in size. A large one must have been asked for more often than all those together that would have to go
for it (G. Einziger, O. Eytan, R. Friedman, B. Manes: Lightweight Robust Size Aware Cache Management, 2021,
"aggregated victims").
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain
from typing import Final

from typing_extensions import override

from shared.read_cache.store.base import ENTRY_OVERHEAD_BYTES, Entry, Store, cost_of
from shared.read_cache.store.sketch import Sketch

_WINDOW_SHARE: Final = 0.01
_PROTECTED_SHARE: Final = 0.9
_SAMPLE_PER_ENTRY: Final = 10
_SAMPLE_LEAST: Final = 1_000
_TYPICAL_BYTES: Final = 200
"""The assumed size of a key and a value, for the width of the sketch. Where they are smaller, the sketch is a little
less exact."""


class TinyLfuStore(Store):
    """Three ordered dictionaries; in each the entry that was used last is at the end."""

    def __init__(self, bytes_max: int) -> None:
        self._sketch = Sketch(bytes_max // (ENTRY_OVERHEAD_BYTES + _TYPICAL_BYTES))
        self.bytes_max = bytes_max
        self.evictions = 0
        room = bytes_max - self._sketch.bytes_used
        self._window_max = int(room * _WINDOW_SHARE)
        self._main_max = room - self._window_max
        self._protected_max = int(self._main_max * _PROTECTED_SHARE)
        self._sample = _SAMPLE_LEAST
        self.clear()

    @override
    def clear(self) -> None:
        # The counts stay: what was popular will be again.
        self._window: OrderedDict[str, Entry] = OrderedDict()
        self._probation: OrderedDict[str, Entry] = OrderedDict()
        self._protected: OrderedDict[str, Entry] = OrderedDict()
        self._window_bytes = self._main_bytes = self._protected_bytes = 0
        self.bytes_used = self._sketch.bytes_used

    @override
    def get(self, key: str) -> Entry | None:
        self._sketch.count(key, self._sample)
        entry = self._protected.get(key)
        if entry is not None:
            self._protected.move_to_end(key)
            return entry
        entry = self._probation.get(key)
        if entry is not None:
            self._protect(key, entry)
            return entry
        entry = self._window.get(key)
        if entry is not None:
            self._window.move_to_end(key)
        return entry

    @override
    def peek(self, key: str) -> Entry | None:
        return self._protected.get(key) or self._probation.get(key) or self._window.get(key)

    @override
    def put(self, key: str, entry: Entry) -> None:
        # The new value may be larger and must not take that room unchecked: it is admitted anew, by the count of its
        # key.
        self.remove(key)
        cost = cost_of(key, entry)
        if cost > self._window_max:
            self._admit(key, entry, cost)
            return
        self._window[key] = entry
        self._window_bytes += cost
        self.bytes_used += cost
        while self._window_bytes > self._window_max:
            oldest, out = self._window.popitem(last=False)
            out_cost = cost_of(oldest, out)
            self._window_bytes -= out_cost
            self.bytes_used -= out_cost
            self._admit(oldest, out, out_cost)

    def _admit(self, key: str, entry: Entry, cost: int) -> None:
        """Take the entry into the main part, or let it go."""
        if cost > self._main_max:
            self.evictions += 1
            return
        room = self._main_max - self._main_bytes
        if room < cost:
            claim = self._sketch.estimate(key)
            victims: list[str] = []
            for victim in chain(self._probation, self._protected):
                victims.append(victim)
                claim -= self._sketch.estimate(victim)
                if claim <= 0:
                    self._spare(victims)
                    self.evictions += 1
                    return
                # The victim is in one of the two.
                gone = self._probation.get(victim) or self._protected[victim]
                room += cost_of(victim, gone)
                if room >= cost:
                    break
            for victim in victims:
                self.remove(victim)
            self.evictions += len(victims)
        self._probation[key] = entry
        self._main_bytes += cost
        self.bytes_used += cost
        self._sample = max(_SAMPLE_LEAST, _SAMPLE_PER_ENTRY * len(self))

    def _spare(self, victims: list[str]) -> None:
        """The victims were asked for more often than the entry that was to come in: next time others are candidates to
        go.

        Without this, an entry whose counters another key has raised would be the first candidate for ever, and all
        behind it would stay, however old they are.
        """
        for victim in victims:
            if victim in self._probation:
                self._probation.move_to_end(victim)

    def _protect(self, key: str, entry: Entry) -> None:
        """Move an entry that was used again from probation into protection; what has no room there goes back to
        probation."""
        del self._probation[key]
        self._protected[key] = entry
        self._protected_bytes += cost_of(key, entry)
        while self._protected_bytes > self._protected_max:
            oldest, back = self._protected.popitem(last=False)
            self._protected_bytes -= cost_of(oldest, back)
            self._probation[oldest] = back

    @override
    def remove(self, key: str) -> None:
        entry = self._window.pop(key, None)
        if entry is not None:
            cost = cost_of(key, entry)
            self._window_bytes -= cost
            self.bytes_used -= cost
            return
        entry = self._probation.pop(key, None)
        if entry is None:
            entry = self._protected.pop(key, None)
            if entry is None:
                return
            self._protected_bytes -= cost_of(key, entry)
        cost = cost_of(key, entry)
        self._main_bytes -= cost
        self.bytes_used -= cost

    @override
    def keys(self) -> Iterator[str]:
        return chain(reversed(self._protected), reversed(self._probation), reversed(self._window))

    @override
    def __len__(self) -> int:
        return len(self._window) + len(self._probation) + len(self._protected)
