"""Prometheus' text out of plain counters, read back by Prometheus' own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from shared.http.metrics import Histogram, counter, counters, exposition, gauge


def read(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_each_kind_keeps_its_name_and_value() -> None:
    text = exposition(
        [
            counter("bids_total", "Bids.", 12_345_678),
            counters("closed_total", "Closed.", "code", {'a"b\\': 2, "c": 0}),
            gauge("up", "", True),
        ]
    )
    found = read(text)
    assert found["bids_total", ()] == 12_345_678
    assert found["closed_total", (("code", 'a"b\\'),)] == 2
    assert found["closed_total", (("code", "c"),)] == 0
    assert found["up", ()] == 1
    assert "# TYPE bids_total counter\n" in text
    assert "# TYPE up gauge\n" in text
    assert "up 1\n" in text, "a whole number has no fraction"
    assert "_created" not in text


def test_a_histogram_counts_up_to_and_with_its_bounds() -> None:
    histogram = Histogram(0.005, 0.1, 10.0)
    for seconds in (0.0, 0.005, 0.0051, 0.1, 3.0, 99.0):
        histogram.observe(seconds)
    found = read(exposition([histogram.family("took_seconds", "Took.")]))
    counts = {labels[0][1]: value for (name, labels), value in found.items() if name == "took_seconds_bucket"}
    assert counts == {"0.005": 2, "0.1": 4, "10": 5, "+Inf": 6}
    assert found["took_seconds_count", ()] == 6
    assert abs(found["took_seconds_sum", ()] - 102.1101) < 1e-9


def test_the_process_is_told_of() -> None:
    found = read(exposition([]))
    assert found["process_resident_memory_bytes", ()] > 1_000_000
    assert found["process_open_fds", ()] > 0
