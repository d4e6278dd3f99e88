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


def test_whole_numbers_are_written_as_such_however_large() -> None:
    histogram = Histogram(1.0)
    histogram.counts[0] = 2_500_000
    text = exposition(
        [
            counter("bids_total", "Bids.", 1_234_567),
            gauge("memory_bytes", "Bytes.", 1_000_000),
            gauge("most", "", 2**53),
            gauge("below", "", -3_000_000),
            gauge("part", "1.5e+06 of it.", 1_234_567.25),
            gauge("huge", "", 1e300),
            counters("closed_total", "Closed.", "code", {"1e+06": 7_000_000}),
            histogram.family("took_seconds", "Took."),
        ]
    )
    lines = text.splitlines()
    for line in (
        "bids_total 1234567",
        "memory_bytes 1000000",
        "most 9007199254740992",
        "below -3000000",
        'closed_total{code="1e+06"} 7000000',
        'took_seconds_bucket{le="1"} 2500000',
        "# HELP part 1.5e+06 of it.",
    ):
        assert line in lines
    found = read(text)
    assert found["part", ()] == 1_234_567.25
    assert found["huge", ()] == 1e300


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


def test_counts_are_told_by_the_middle_of_their_buckets() -> None:
    histogram = Histogram(0.01, 0.05, 0.1)
    for seconds in (0.001, 0.01, 0.05, 0.0501, 7.0, 8.0):
        histogram.observe(seconds)
    assert {round(value, 6): count for value, count in histogram.middles().items()} == {
        0.005: 2,
        0.03: 1,
        0.075: 1,
        0.1: 2,
    }
