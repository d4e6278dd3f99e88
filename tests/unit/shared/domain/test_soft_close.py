"""When a late bid moves the end, and how far."""

from __future__ import annotations

from typing import Literal

import pytest

from shared.domain.soft_close import SoftClose

END_US = 1_000


@pytest.mark.parametrize(
    ("mode", "left_us", "extensions", "hard_end_us", "new_end_us"),
    [
        pytest.param("from_bid", 59, 0, None, END_US - 59 + 90, id="from the bid"),
        pytest.param("from_end", 59, 0, None, END_US + 90, id="from the end"),
        pytest.param("from_bid", 60, 0, None, None, id="as much is left as triggers it: it stays"),
        pytest.param("from_bid", 1, 1, None, END_US - 1 + 90, id="the last extension"),
        pytest.param("from_bid", 1, 2, None, None, id="no extension is left"),
        pytest.param("from_end", 1, 0, END_US + 30, END_US + 30, id="up to the hard end"),
        pytest.param("from_end", 1, 0, END_US, None, id="it is at the hard end"),
    ],
)
def test_the_end_after_a_late_bid(
    mode: Literal["from_bid", "from_end"],
    left_us: int,
    extensions: int,
    hard_end_us: int | None,
    new_end_us: int | None,
) -> None:
    rule = SoftClose(60, 90, mode, max_count=2)
    assert rule.extended_end(END_US, END_US - left_us, extensions, hard_end_us) == new_end_us


def test_the_end_never_moves_to_an_earlier_instant() -> None:
    """A bid may come long before an end that is counted from the bid."""
    rule = SoftClose(60, 20)
    assert rule.extended_end(END_US, END_US - 20, 0, None) is None
    assert rule.extended_end(END_US, END_US - 30, 0, None) is None
    assert rule.extended_end(END_US, END_US - 19, 0, None) == END_US + 1
