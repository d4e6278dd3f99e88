"""Bounds in bytes that are those of the process' memory, and what has to go."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.read_cache.store.base import ENTRY_OVERHEAD_BYTES, Entry, Store, cost_of
from shared.read_cache.store.lru import LruStore
from shared.read_cache.store.sketch import COUNT_MAX, Sketch
from shared.read_cache.store.tiny_lfu import TinyLfuStore

STORES = [LruStore, TinyLfuStore]
MIB = 1024**2


def entry(size: int) -> Entry:
    return (bytes(size), 1e12, 0)


def check(store: Store) -> None:
    """What it says of itself is so."""
    kept = list(store.keys())
    assert len(kept) == len(set(kept)) == len(store)
    entries = [(key, found) for key in kept if (found := store.peek(key)) is not None]
    assert len(entries) == len(kept)
    fixed = 0 if isinstance(store, LruStore) else store._sketch.bytes_used  # type: ignore[attr-defined]
    assert store.bytes_used == fixed + sum(cost_of(*each) for each in entries)
    assert store.bytes_used <= store.bytes_max


actions = st.lists(
    st.tuples(st.sampled_from(["get", "put", "put", "remove"]), st.integers(0, 30), st.integers(0, 3_000)),
    max_size=200,
)


@pytest.mark.parametrize("kind", STORES)
@given(actions)
def test_the_sums_are_right_and_never_over_the_bound(kind: type[Store], done: list[tuple[str, int, int]]) -> None:
    store = kind(16 * 1024)  # type: ignore[call-arg]
    written: dict[str, Entry] = {}
    for action, number, size in done:
        key = f"items/{number}"
        if action == "put":
            written[key] = entry(size)
            store.put(key, written[key])
        elif action == "remove":
            written.pop(key, None)
            store.remove(key)
        else:
            found = store.get(key)
            assert found is None or found is written[key]
        check(store)
    store.clear()
    check(store)
    assert len(store) == 0


@given(actions)
def test_the_lru_is_a_plain_lru(done: list[tuple[str, int, int]]) -> None:
    store = LruStore(4_000)
    plain: OrderedDict[str, int] = OrderedDict()
    for action, number, size in done:
        key = f"k{number:02}"
        if action == "put":
            store.put(key, entry(size))
            plain.pop(key, None)
            plain[key] = size + len(key) + ENTRY_OVERHEAD_BYTES
            if plain[key] > 4_000:
                del plain[key]
            while sum(plain.values()) > 4_000:
                plain.popitem(last=False)
        elif action == "remove":
            store.remove(key)
            plain.pop(key, None)
        elif store.get(key) is not None:
            plain.move_to_end(key)
        assert list(store.keys()) == list(reversed(plain))


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("size", [0, 40, 300, 2_000, 20_000])
def test_bytes_are_really_those_of_the_memory(kind: Callable[[int], Store], size: int) -> None:
    """Full, and turned over several times, so that what dictionaries keep for themselves counts."""
    bound = 2 * MIB
    numbers = random.Random(5)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        store = kind(bound)
        for number in range(3 * bound // (size + ENTRY_OVERHEAD_BYTES)):
            store.get(f"items/{numbers.randrange(number + 1):07}/bids")
            store.put(f"items/{number:07}/bids", (numbers.randbytes(size), 1e6 + number, 1))
        gc.collect()
        now, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert store.bytes_used > 0.9 * bound
    assert 0.6 * store.bytes_used < now - before <= 1.02 * bound, (now - before) / store.bytes_used


@pytest.mark.parametrize("kind", STORES)
def test_what_is_larger_than_all_of_it_is_not_kept_and_drives_nothing_out(kind: Callable[[int], Store]) -> None:
    store = kind(100_000)
    store.put("small", entry(10))
    store.put("large", entry(100_000))
    assert store.peek("large") is None
    assert store.peek("small") is not None
    check(store)


@pytest.mark.parametrize("kind", STORES)
def test_a_key_has_one_entry_the_last_one(kind: Callable[[int], Store]) -> None:
    store = kind(100_000)
    store.put("a", entry(10))
    store.get("a")
    last = entry(50_000)
    store.put("a", last)
    assert store.get("a") is last
    check(store)


def test_a_scan_drives_nothing_out_that_is_asked_for_often() -> None:
    tiny, lru = TinyLfuStore(MIB), LruStore(MIB)
    for store in (tiny, lru):
        for _ in range(4):
            for number in range(500):
                if store.get(f"popular/{number}") is None:
                    store.put(f"popular/{number}", entry(500))
        for number in range(20_000):
            if store.get(f"rare/{number}") is None:
                store.put(f"rare/{number}", entry(500))
    kept = [sum(store.peek(f"popular/{number}") is not None for number in range(500)) for store in (tiny, lru)]
    assert kept[0] > 480
    assert kept[1] == 0


def test_what_becomes_popular_comes_in() -> None:
    store = TinyLfuStore(MIB)
    for generation in ("old", "new"):
        for _ in range(40):
            for number in range(1_000):
                if store.get(f"{generation}/{number}") is None:
                    store.put(f"{generation}/{number}", entry(500))
    assert sum(store.peek(f"new/{number}") is not None for number in range(1_000)) > 900


def test_a_large_entry_must_be_worth_those_that_go_for_it() -> None:
    store = TinyLfuStore(MIB)
    for _ in range(3):
        for number in range(1_500):
            if store.get(f"small/{number}") is None:
                store.put(f"small/{number}", entry(300))
    kept = len(store)
    store.get("large")
    store.put("large", entry(200_000))
    assert store.peek("large") is None
    assert len(store) == kept


def test_the_sketch_counts_and_forgets() -> None:
    sketch = Sketch(1_000)
    for _ in range(5):
        sketch.count("often", 10**9)
    sketch.count("once", 10**9)
    assert (sketch.estimate("often"), sketch.estimate("once"), sketch.estimate("never")) == (5, 1, 0)
    for _ in range(100):
        sketch.count("very often", 10**9)
    assert sketch.estimate("very often") == COUNT_MAX
    sketch.count("the last of the sample", 1)
    assert (sketch.estimate("often"), sketch.estimate("very often")) == (2, COUNT_MAX // 2)


def test_the_sketch_is_seldom_wrong_and_never_too_low() -> None:
    sketch = Sketch(4_096)
    numbers = random.Random(3)
    counts: dict[str, int] = {}
    for _ in range(12_000):
        key = f"k{int(numbers.paretovariate(0.8)) % 4_000}"
        counts[key] = counts.get(key, 0) + 1
        sketch.count(key, 10**9)
    wrong = [key for key, count in counts.items() if sketch.estimate(key) != min(count, COUNT_MAX)]
    assert all(sketch.estimate(key) >= min(count, COUNT_MAX) for key, count in counts.items())
    assert len(wrong) < 0.02 * len(counts)
