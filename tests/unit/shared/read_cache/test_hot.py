"""Which foreign keys are worth a mirror."""

from __future__ import annotations

import tracemalloc

from shared.read_cache.groups.hot import KEYS_MAX, HotKeys, Mirrors


def test_a_key_is_hot_once_it_is_asked_for_often_enough_in_two_windows() -> None:
    hot = HotKeys(hot_from=4, window_s=1.0)
    for now_s in (0.0, 0.9, 1.1):
        hot.count("a", now_s)
        assert not hot.is_hot("a")
    hot.count("a", 1.2)
    assert hot.is_hot("a")
    assert not hot.is_hot("b")


def test_it_cools_down() -> None:
    hot = HotKeys(hot_from=2, window_s=1.0)
    for now_s in (0.0, 0.1):
        hot.count("a", now_s)
    assert hot.is_hot("a")
    hot.count("b", 1.5)
    assert hot.is_hot("a")
    hot.count("b", 2.6)
    assert not hot.is_hot("a")


def test_after_a_pause_nothing_is_hot() -> None:
    hot = HotKeys(hot_from=2, window_s=1.0)
    for now_s in (0.0, 0.1):
        hot.count("a", now_s)
    hot.count("b", 50.0)
    assert not hot.is_hot("a")


def test_counting_takes_a_bounded_room_whatever_is_asked_for() -> None:
    hot = HotKeys(hot_from=3, window_s=1_000.0, keys_max=100)
    for number in range(10_000):
        hot.count(f"k{number}", 1.0)
        assert len(hot._now) + len(hot._before) <= 200
    for _ in range(3):
        hot.count("a", 1.0)
    assert hot.is_hot("a")


def test_long_keys_take_no_more_room_than_short_ones() -> None:
    """It is beside the bound on bytes, and anybody may ask for keys."""
    hot = HotKeys(window_s=1.0)
    tracemalloc.start()
    try:
        for window in range(2):
            for number in range(KEYS_MAX):
                hot.count(f"{number}".rjust(512), float(window))
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(hot._now) + len(hot._before) == 2 * KEYS_MAX
    assert used < 2 * 1024**2


def test_a_question_that_a_mirror_answers_keeps_the_key_hot() -> None:
    mirrors = Mirrors(10_000, HotKeys(hot_from=2, window_s=1.0))
    entry = (b"value", 10.0, 0)
    mirrors.store.put("a", entry)
    for now_s in (0.0, 0.6, 1.2, 1.8, 2.4):
        assert mirrors.get("a", now_s) is entry
    assert mirrors.hot_keys.is_hot("a")
