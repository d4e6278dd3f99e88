"""Bounds of a run of the retention, and what comes of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

OLDER_THAN_S_MIN: Final = 2 * 86_400.0
"""Verdicts are kept for a day after an item is over; until then its log may be asked for them."""


@dataclass(frozen=True, slots=True)
class RetentionOptions:
    """What may retire, and how fast.

    Attributes:
        older_than_s: how long ago an item had its last event, at least; ``OLDER_THAN_S_MIN`` or more.
        remove: whether anything is changed.
        actor: who runs it, for the record.
        items_max: items that retire in one run.
        window: items per look into the archive.
        page_items: items whose exports are read before the first of them retires.
        at_once: exports that are read at a time; each needs its size on the disk.
        rows_per_step: rows that are removed in one transaction.
        rest_ratio: each such transaction is followed by a rest of this many times its own length: bids come first.
        lag_s: how long the archive may lag behind a shard before its item is left for another run.
        tell_every_s: between two lines about the progress.
    """

    older_than_s: float
    remove: bool = False
    actor: str = "operator"
    items_max: int = 100_000
    window: int = 2_000
    page_items: int = 32
    at_once: int = 4
    rows_per_step: int = 5_000
    rest_ratio: float = 1.0
    lag_s: float = 5.0
    tell_every_s: float = 10.0


class Stays(StrEnum):
    """Why an item that is old enough stays in the archive. The value is for people."""

    NOT_EXPORTED = "not exported as they are"
    HAS_LETTERS = "with dead letters that nobody has settled"
    IN_REDIS = "still in Redis, or lost there"
    SHARD_CLOSED = "of shards that are lost, closed, or were just rebuilt"
    LAGS = "of shards behind which the archive lags"
    CHANGED = "changed meanwhile"


@dataclass(slots=True)
class RetentionReport:
    """What a run did, or would do.

    Attributes:
        looked_at: items of the archive, whatever their age.
        retired: items; resumed ones, which an earlier run had begun, among them.
        bids, events: in their exports; events count bids too.
        rows: that were removed.
        stays: how many items stay, by the reason.
        faults: of each item whose export or log is not as it should be, what is wrong. Bounded; ``faulty`` counts all.
        stopped: whether somebody stopped the run, or it reached its bound.
    """

    looked_at: int = 0
    retired: int = 0
    resumed: int = 0
    bids: int = 0
    events: int = 0
    rows: int = 0
    stays: Counter[Stays] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)
    faulty: int = 0
    stopped: bool = False

    def fault(self, item_id: str, what: str) -> None:
        """Note an item that somebody has to look at."""
        self.faulty += 1
        if len(self.faults) < 100:
            self.faults[item_id] = what
