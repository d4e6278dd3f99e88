"""Percentiles from counts: within one per cent of those of the samples."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from load_tests.generator.histogram import bucket_of, merged, percentile_ms


@given(st.lists(st.floats(min_value=1, max_value=60_000), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_percentile_is_that_of_the_samples_to_one_per_cent(samples: list[float], share: float) -> None:
    ordered = sorted(samples)
    exact = next(value for place, value in enumerate(ordered, 1) if place >= share * len(ordered))
    found = percentile_ms(Counter(bucket_of(value) for value in samples), share)
    assert found <= exact + 1e-9
    assert found == pytest.approx(exact, rel=0.01, abs=0.11)


def test_without_samples_there_is_no_time() -> None:
    assert percentile_ms({}, 0.99) == 0.0


def test_counts_of_several_processes_add_up() -> None:
    assert merged([{10: 2, 20: 1}, {10: 1}]) == {10: 3, 20: 1}
