"""Hit rates of the cache's policies for the same memory: an LRU, our W-TinyLFU, theine's, and ours over five nodes.

Pure computing: keys are drawn from a Zipf distribution over so many rows, and looked up in one store after the other.
All have the same memory: the bytes that a share of the rows takes, bookkeeping included. theine counts entries, so it
may keep as many as would fit, and its own bookkeeping is free. *5 nodes* are five of our stores with a fifth of the
memory each, each asked for the keys that are its own on the ring. *best* is what knowing the popularity of every key
would give.

The first third of the draws fills the stores and is not counted.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, Final

import click

from shared.read_cache.ring import Node, Ring
from shared.read_cache.store.base import ENTRY_OVERHEAD_BYTES, Entry, Store
from shared.read_cache.store.lru import LruStore
from shared.read_cache.store.tiny_lfu import TinyLfuStore

EXPONENTS: Final = (0.9, 1.0, 1.1)
SHARES: Final = (0.01, 0.05, 0.10)
VALUE_BYTES: Final = 400
NODES: Final = 5
_KEY: Final = "items/{:07}"
_ENTRY_BYTES: Final = ENTRY_OVERHEAD_BYTES + VALUE_BYTES + len(_KEY.format(0))

# Returns whether the key was kept. If it was not, the policy decides whether it is kept from now on.
Lookup = Callable[[str], bool]


def zipf_ranks(rows: int, count: int, exponent: float, seed: int) -> array[int]:
    """Ranks, 0 for the most popular."""
    sums = list(accumulate(1 / (rank + 1) ** exponent for rank in range(rows)))
    numbers = random.Random(seed)
    return array("l", (bisect_left(sums, numbers.random() * sums[-1]) for _ in range(count)))


def _of_store(store: Store) -> Lookup:
    entry: Entry = (bytes(VALUE_BYTES), 1e12, 0)

    def lookup(key: str) -> bool:
        if store.get(key) is not None:
            return True
        store.put(key, entry)
        return False

    return lookup


def _of_theine(entries: int) -> Lookup:
    from theine import Cache

    cache: Any = Cache(entries, nolock=True)

    def lookup(key: str) -> bool:
        _, found = cache.get(key)
        if not found:
            cache.set(key, True)
        return bool(found)

    return lookup


def _of_nodes(bytes_max: int, nodes: int) -> Lookup:
    ring = Ring(Node(f"node-{number}", f"10.0.0.{number}:8001") for number in range(nodes))
    lookups = {node.name: _of_store(TinyLfuStore(bytes_max // nodes)) for node in ring.nodes}
    return lambda key: lookups[ring.owner(key).name](key)


def _contenders(entries: int) -> Iterator[tuple[str, Lookup]]:
    bytes_max = entries * _ENTRY_BYTES
    yield "LRU", _of_store(LruStore(bytes_max))
    yield "ours", _of_store(TinyLfuStore(bytes_max))
    yield "theine", _of_theine(entries)
    yield f"{NODES} nodes", _of_nodes(bytes_max, NODES)


def bench_cache_hits(*, rows: int, draws: int, seed: int = 1) -> dict[tuple[float, float], dict[str, float]]:
    """The hit rates by exponent and share of the memory; prints them as they come."""
    click.echo(f"\nHit rates: {draws:,} Zipf-distributed gets over {rows:,} rows; memory as a share of all rows")
    names = ("LRU", "ours", "theine", f"{NODES} nodes", "best")
    click.echo(f"{'s':>4}{'memory':>8}" + "".join(f"{name:>10}" for name in names))
    results: dict[tuple[float, float], dict[str, float]] = {}
    for exponent in EXPONENTS:
        ranks = zipf_ranks(rows, draws, exponent, seed)
        keys = [_KEY.format(rank) for rank in range(rows)]
        weights = [1 / (rank + 1) ** exponent for rank in range(rows)]
        counted_from = draws // 3
        for share in SHARES:
            entries = max(1, int(rows * share))
            rates: dict[str, float] = {}
            for name, lookup in _contenders(entries):
                for rank in ranks[:counted_from]:
                    lookup(keys[rank])
                hits = sum(lookup(keys[rank]) for rank in ranks[counted_from:])
                rates[name] = hits / (draws - counted_from)
            rates["best"] = sum(weights[:entries]) / sum(weights)
            results[exponent, share] = rates
            click.echo(f"{exponent:>4}{share:>8.0%}" + "".join(f"{rates[name]:>10.4f}" for name in names))
    return results
