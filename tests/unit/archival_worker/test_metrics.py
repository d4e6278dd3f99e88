"""The text that Prometheus reads."""

from __future__ import annotations

from archival_worker.metrics import Metrics
from archival_worker.store.archive import Stored


def values(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_totals_and_labels() -> None:
    metrics = Metrics()
    metrics.wrote(7, Stored(bids=5, events=2, duplicates=1, dead_letters=[("clash", "a"), ("poison", "b")]), 0.03)
    metrics.wrote(1, Stored(bids=1), 0.2)
    metrics.failures_by["archive"] += 1
    metrics.chained, metrics.exports, metrics.export_failures = 5, 2, 3
    found = values(metrics.text({"lag_messages": 12}))
    assert found["archiver_messages_total"] == 8
    assert found["archiver_batches_total"] == 2
    assert found['archiver_rows_total{table="bids"}'] == 6
    assert found['archiver_rows_total{table="events"}'] == 2
    assert found['archiver_dead_letters_total{reason="clash"}'] == 1
    assert found['archiver_failures_total{at="archive"}'] == 1
    assert found['archiver_failures_total{at="stream"}'] == 0
    assert found["archiver_lag_messages"] == 12
    assert found["archiver_chained_events_total"] == 5
    assert found["archiver_exports_total"] == 2
    assert found["archiver_export_failures_total"] == 3


def test_the_histogram_is_cumulative() -> None:
    metrics = Metrics()
    for took_s in (0.004, 0.03, 60.0):
        metrics.wrote(1, Stored(), took_s)
    found = values(metrics.text({}))
    assert found['archiver_write_seconds_bucket{le="0.005"}'] == 1
    assert found['archiver_write_seconds_bucket{le="0.05"}'] == 2
    assert found['archiver_write_seconds_bucket{le="10"}'] == 2
    assert found['archiver_write_seconds_bucket{le="+Inf"}'] == 3
    assert found["archiver_write_seconds_count"] == 3


def test_every_sample_has_a_type() -> None:
    text = Metrics().text({"lag_messages": 0})
    typed = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    for name in values(text):
        base = name.partition("{")[0]
        for suffix in ("_bucket", "_sum", "_count"):
            base = base.removesuffix(suffix) if base.startswith("archiver_write_seconds") else base
        assert base in typed
