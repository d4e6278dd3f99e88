"""Estimates how often keys were asked for lately, for far more keys than are kept: a count-min sketch that forgets.

Four rows of small counters; a key has one in each row, and its estimate is the least of them, so other keys can only
make it look more frequent. Only the least ones are raised, which keeps that error small. After a number of counts all
are halved: what was popular yesterday does not stay for ever (G. Einziger, R. Friedman, B. Manes: TinyLFU).
"""

from __future__ import annotations

from typing import Final

COUNT_MAX: Final = 15
_ROWS: Final = 4
_HALVES: Final = bytes(number >> 1 for number in range(256))


class Sketch:
    """Counts. Python's hash of texts differs in each process, so nobody outside can aim at the counters of a key."""

    def __init__(self, width: int) -> None:
        """``width`` counters in a row, made a power of two: at least as many as there are keys worth telling apart."""
        bits = max(6, (width - 1).bit_length())
        self._mask = (1 << bits) - 1
        self._width = 1 << bits
        self._counts = bytearray(_ROWS * self._width)
        self._counted = 0

    @property
    def bytes_used(self) -> int:
        """The memory of the counters."""
        return len(self._counts)

    def count(self, key: str, sample: int) -> None:
        """One more use of the key. After ``sample`` of them everything is halved."""
        counts, mask, width = self._counts, self._mask, self._width
        places = hash(key)
        a = places & mask
        b = width + (places >> 16 & mask)
        c = 2 * width + (places >> 32 & mask)
        d = 3 * width + (places >> 44 & mask)
        least = min(counts[a], counts[b], counts[c], counts[d])
        if least < COUNT_MAX:
            more = least + 1
            for place in (a, b, c, d):
                if counts[place] == least:
                    counts[place] = more
        self._counted += 1
        if self._counted >= sample:
            self._counts = counts.translate(_HALVES)
            self._counted //= 2

    def estimate(self, key: str) -> int:
        """About how often the key was counted, 0 to ``COUNT_MAX``."""
        counts, mask, width = self._counts, self._mask, self._width
        places = hash(key)
        return min(
            counts[places & mask],
            counts[width + (places >> 16 & mask)],
            counts[2 * width + (places >> 32 & mask)],
            counts[3 * width + (places >> 44 & mask)],
        )
