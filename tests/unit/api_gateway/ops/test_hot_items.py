"""Which items are busy: counted in windows that forget, and bounded."""

from __future__ import annotations

import pytest

from api_gateway.ops import hot_items
from api_gateway.ops.hot_items import HotItems


def test_the_busiest_items_of_the_last_seconds() -> None:
    hot = HotItems(0)
    hot.note("vase", 30, 1)
    hot.note("bowl", 10, 2)
    hot.note("vase", 10, 5)
    assert hot.top(5, 10 - 0.001) == [("vase", 4.0), ("bowl", 1.0)]
    assert hot.top(1, 5)[0].item_id == "vase"
    # The window before this one still counts: no item is cold just because a new one began.
    assert hot.top(5, 10) == [("vase", 4.0), ("bowl", 1.0)]
    hot.note("bowl", 90, 15)
    assert hot.top(2, 20 - 0.001)[0] == ("bowl", 5.0)
    assert hot.top(5, 1_000) == []


def test_what_was_before_a_silence_is_forgotten() -> None:
    hot = HotItems(0)
    hot.note("vase", 100, 1)
    hot.note("bowl", 10, 500)
    assert hot.top(5, 501) == [("bowl", 0.91)]


def test_any_number_of_items_takes_bounded_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot_items, "ITEMS_MAX", 3)
    hot = HotItems(0)
    for number in range(10):
        hot.note(f"item-{number}", 1, 1)
    hot.note("item-0", 1, 1)
    assert [each.item_id for each in hot.top(10, 1)] == ["item-0", "item-1", "item-2"]
    assert hot.top(1, 1)[0].bids_per_s == 2.0
