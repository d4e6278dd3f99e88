"""Counters of the worker, and their text for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from archival_worker.store.archive import Stored

_WRITE_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(slots=True)
class Metrics:
    """Totals since the start; seconds and counts. ``*_by`` are keyed by the label's value."""

    messages: int = 0
    batches: int = 0
    bids: int = 0
    events: int = 0
    sealed: int = 0
    duplicates: int = 0
    acks: int = 0
    given_back: int = 0
    purged: int = 0
    cursor_copies: int = 0
    chained: int = 0
    exports: int = 0
    export_failures: int = 0
    dead_letters_by: Counter[str] = field(default_factory=Counter)
    failures_by: Counter[str] = field(default_factory=Counter)
    write_s: float = 0.0
    write_buckets: list[int] = field(default_factory=lambda: [0] * len(_WRITE_BUCKETS_S))
    consuming: bool = False

    def wrote(self, messages: int, stored: Stored, took_s: float) -> None:
        """A batch is committed."""
        self.messages += messages
        self.batches += 1
        self.bids += stored.bids
        self.events += stored.events
        self.sealed += stored.sealed
        self.duplicates += stored.duplicates
        self.dead_letters_by.update(reason for reason, _ in stored.dead_letters)
        self.write_s += took_s
        for at, bound_s in enumerate(_WRITE_BUCKETS_S):
            if took_s <= bound_s:
                self.write_buckets[at] += 1

    def text(self, gauges: dict[str, float]) -> str:
        """Everything in Prometheus' text format; ``gauges`` are added under ``archiver_<name>``."""
        lines: list[str] = []
        for name, help_text, total in (
            ("messages", "Messages committed.", self.messages),
            ("batches", "Transactions' worth of messages committed.", self.batches),
            ("duplicates", "Rows that were stored already.", self.duplicates),
            ("acks", "Messages acknowledged.", self.acks),
            ("given_back", "Messages given back to the stream unwritten.", self.given_back),
            ("purged_messages", "Archived messages purged from the stream.", self.purged),
            ("cursor_copies", "Archived cursors copied to Redis.", self.cursor_copies),
            ("chained_events", "Events added to the chains of their items.", self.chained),
            ("exports", "Exports of closed items confirmed.", self.exports),
            ("export_failures", "Attempts to export that failed.", self.export_failures),
        ):
            lines += _header(f"archiver_{name}_total", help_text, "counter")
            lines.append(f"archiver_{name}_total {total}")
        rows = {"bids": self.bids, "events": self.events, "sealed": self.sealed}
        lines += _labelled("archiver_rows_total", "Rows stored.", "table", rows.items())
        letters = {reason: self.dead_letters_by[reason] for reason in ("clash", "former_epoch", "poison")}
        lines += _labelled("archiver_dead_letters_total", "New dead letters.", "reason", letters.items())
        failures = {what: self.failures_by[what] for what in sorted({"archive", "stream", "redis", *self.failures_by})}
        lines += _labelled("archiver_failures_total", "Failed attempts.", "at", failures.items())
        lines += _header(
            "archiver_write_seconds", "Time from the start of a batch's transactions to COMMIT.", "histogram"
        )
        for bound_s, count in zip(_WRITE_BUCKETS_S, self.write_buckets, strict=True):
            lines.append(f'archiver_write_seconds_bucket{{le="{bound_s:g}"}} {count}')
        lines.append(f'archiver_write_seconds_bucket{{le="+Inf"}} {self.batches}')
        lines.append(f"archiver_write_seconds_sum {self.write_s:.6f}")
        lines.append(f"archiver_write_seconds_count {self.batches}")
        for name, value in (("consuming", float(self.consuming)), *gauges.items()):
            lines += _header(f"archiver_{name}", "", "gauge")
            lines.append(f"archiver_{name} {value:g}")
        return "\n".join(lines) + "\n"


def _header(name: str, help_text: str, kind: str) -> list[str]:
    return ([f"# HELP {name} {help_text}"] if help_text else []) + [f"# TYPE {name} {kind}"]


def _labelled(name: str, help_text: str, label: str, totals: Iterable[tuple[str, int]]) -> list[str]:
    return [*_header(name, help_text, "counter"), *(f'{name}{{{label}="{value}"}} {total}' for value, total in totals)]
