"""Durations on command lines."""

from __future__ import annotations

import pytest

from load_tests.durations import seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15ms", 0.015), ("30s", 30), ("5m", 300), ("1h", 3600), ("7", 7), ("1.5s", 1.5), (" 2S ", 2)],
)
def test_a_duration_in_seconds(text: str, seconds: float) -> None:
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1s", "1e3", "1.2.3s", "soon", "5 minutes", "٣s"])
def test_what_is_none(text: str) -> None:
    assert seconds_of(text) is None
