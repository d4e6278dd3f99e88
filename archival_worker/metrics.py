"""Counters of the worker, and their text for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import Metric

from archival_worker.store.archive import Stored
from shared.http.metrics import Histogram, counter, counters, exposition, gauge

_WRITE_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(slots=True)
class Metrics:
    """Totals since the start; seconds and counts. ``*_by`` are keyed by the label's value."""

    messages: int = 0
    batches: int = 0
    bids: int = 0
    events: int = 0
    sealed: int = 0
    duplicates: int = 0
    unknown_events: int = 0
    acks: int = 0
    given_back: int = 0
    purged: int = 0
    cursor_copies: int = 0
    chained: int = 0
    exports: int = 0
    export_failures: int = 0
    evicted: int = 0
    dead_letters_by: Counter[str] = field(default_factory=Counter)
    failures_by: Counter[str] = field(default_factory=Counter)
    writes: Histogram = field(default_factory=lambda: Histogram(*_WRITE_BOUNDS_S))
    consuming: bool = False

    def wrote(self, messages: int, stored: Stored, took_s: float) -> None:
        """Count a committed batch."""
        self.messages += messages
        self.batches += 1
        self.bids += stored.bids
        self.events += stored.events
        self.sealed += stored.sealed
        self.duplicates += stored.duplicates
        self.unknown_events += len(stored.unknown)
        self.dead_letters_by.update(reason for reason, _ in stored.dead_letters)
        self.writes.observe(took_s)

    def text(self, gauges: dict[str, float]) -> str:
        """Everything in Prometheus' text format; ``gauges`` are added under ``archiver_<name>``."""
        return exposition(self._families(gauges))

    def _families(self, gauges: dict[str, float]) -> Iterator[Metric]:
        for name, help_text, total in (
            ("messages", "Messages committed.", self.messages),
            ("batches", "Batches of messages committed.", self.batches),
            ("duplicates", "Rows that were stored already.", self.duplicates),
            ("unknown_events", "Events of types that only a newer version knows, stored whole.", self.unknown_events),
            ("acks", "Messages acknowledged.", self.acks),
            ("given_back", "Messages given back to the stream unwritten.", self.given_back),
            ("purged_messages", "Archived messages purged from the stream.", self.purged),
            ("cursor_copies", "Archived cursors copied to Redis.", self.cursor_copies),
            ("chained_events", "Events added to the chains of their items.", self.chained),
            ("exports", "Exports of closed items confirmed.", self.exports),
            ("export_failures", "Attempts to export that failed.", self.export_failures),
            ("evicted_items", "Closed items that have left Redis.", self.evicted),
        ):
            yield counter(f"archiver_{name}_total", help_text, total)
        rows = {"bids": self.bids, "events": self.events, "sealed": self.sealed}
        yield counters("archiver_rows_total", "Rows stored.", "table", rows)
        letters = {reason: self.dead_letters_by[reason] for reason in ("clash", "former_epoch", "poison", "retired")}
        yield counters("archiver_dead_letters_total", "New dead letters.", "reason", letters)
        failures = {what: self.failures_by[what] for what in sorted({"archive", "stream", "redis", *self.failures_by})}
        yield counters("archiver_failures_total", "Failed attempts.", "at", failures)
        yield self.writes.family("archiver_write_seconds", "Time from the start of a batch's transactions to COMMIT.")
        for name, value in (("consuming", float(self.consuming)), *gauges.items()):
            yield gauge(f"archiver_{name}", "", value)
