"""What one group keeps in the stores of its process, and until when.

How long a value is kept counts from the moment before it was asked for, on a clock that goes on while the process is
stopped. So the bound holds however long the question takes, and whatever happens meanwhile.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Final

from shared.read_cache.groups.shelf import MISSING, GroupLimits, Missing, Shelf
from shared.read_cache.groups.singleflight import Flight
from shared.read_cache.membership.clock import now_s as clock_s
from shared.read_cache.remote import Fetched
from shared.read_cache.stats import Stats
from shared.read_cache.store.base import Store, cost_of

_KEPT_SHARE_LEAST: Final = 0.9


class Kept:
    """
    Args:
        name: of the group; its keys are told from those of other groups in the same stores by it.
        rated: where hits are counted.
    """

    def __init__(self, name: str, limits: GroupLimits, shelf: Shelf, rated: Stats) -> None:
        self._limits = limits
        self._shelf = shelf
        self._stats = shelf.stats
        self._rated = rated
        self._prefix = f"{name}:"
        self._generation = 0

    def is_sure(self) -> bool:
        """Whether every removal comes here. Where it does not, only what is kept for moments may be told.

        To be asked before anything is looked up or kept: where this process finds out here that it has slept for too
        long, all is forgotten, and what is being loaded is no longer current.
        """
        remote = self._shelf.remote
        return remote is None or remote.is_sure()

    # Telling

    def cached(self, key: str) -> bytes | Missing | None:
        """What is kept here now, without waiting; ``MISSING`` where nothing is. None: the origin has none."""
        shelf = self._shelf
        remote = shelf.remote
        sure = remote is None or remote.is_sure()
        if not (shelf.keeping and shelf.telling):
            return MISSING
        now_s, name = clock_s(), self._prefix + key
        if shelf.store is not None and sure:
            entry = shelf.store.get(name)
            if entry is not None and entry[1] > now_s and entry[2] == self._generation:
                self._rated.hits += 1
                return entry[0]
        if shelf.mirrors is not None:
            entry = shelf.mirrors.get(name, now_s)
            if entry is not None and entry[1] > now_s and entry[2] == self._generation:
                self._rated.mirror_hits += 1
                return entry[0]
        return MISSING

    def for_peer(self, keys: Sequence[str]) -> list[Fetched | None]:
        """What is kept here of each key, for another process; None where nothing is."""
        shelf = self._shelf
        self._stats.served += len(keys)
        shelf.before_telling()
        store = shelf.store
        if store is None or not self.is_sure() or not (shelf.keeping and shelf.telling):
            return [None] * len(keys)
        now_s, generation, prefix, heard = clock_s(), self._generation, self._prefix, shelf.heard()
        found: list[Fetched | None] = []
        for key in keys:
            entry = store.get(prefix + key)
            if entry is None or entry[1] <= now_s or entry[2] != generation:
                found.append(None)
            else:
                found.append(Fetched(entry[0], entry[1] - now_s, heard))
        self._stats.served_hits += len(found) - found.count(None)
        return found

    def fresh_s(self, key: str) -> float:
        """How long what is kept may be told; 0 where nothing is, so that nobody mirrors it."""
        shelf = self._shelf
        stores: list[Store | None] = [shelf.store, shelf.mirrors.store if shelf.mirrors is not None else None]
        for store in stores:
            entry = store.peek(self._prefix + key) if store is not None else None
            if entry is not None and entry[2] == self._generation:
                return max(0.0, entry[1] - clock_s())
        return 0.0

    def keys(self) -> Iterable[str]:
        """The keys of which this process keeps a value as their owner, those that stay longest first."""
        store = self._shelf.store
        if store is None:
            return []
        length = len(self._prefix)
        generation = self._generation

        def is_ours(key: str) -> bool:
            entry = store.peek(key)
            return entry is not None and entry[2] == generation

        return [key[length:] for key in list(store.keys()) if key.startswith(self._prefix) and is_ours(key)]

    # Keeping

    def keep(self, flight: Flight[bytes | None], value: bytes | None, sure: bool) -> None:
        """``value``, which the origin has told; ``sure``: see :meth:`is_sure`."""
        shelf, key = self._shelf, flight.key
        ttl_s = self._limits.negative_ttl_s if value is None else self._limits.ttl_s
        ttl_s *= random.uniform(_KEPT_SHARE_LEAST, 1.0)
        remote = shelf.remote
        if shelf.store is not None and sure and (remote is None or remote.owner(key) is None):
            self._put(shelf.store, key, value, flight.begun_s + ttl_s)
        elif shelf.mirrors is not None:
            # Loaded in place of its owner, or without a ring to rely on: for moments, so that an outage does not make
            # of every get a question to the origin.
            self._put(shelf.mirrors.store, key, value, flight.begun_s + min(ttl_s, self._limits.mirror_ttl_s))

    def mirror(self, flight: Flight[bytes | None], answer: Fetched) -> None:
        """Keep what the owner of a very hot key has told, for moments."""
        mirrors = self._shelf.mirrors
        if (
            mirrors is not None
            and mirrors.hot_keys.is_hot(self._prefix + flight.key)
            and self.is_sure()
            and flight.is_current
        ):
            until_s = flight.begun_s + min(answer.fresh_s, self._limits.mirror_ttl_s)
            self._put(mirrors.store, flight.key, answer.value, until_s)

    def may_take_over(self, key: str) -> bool:
        """Whether keys are owned here, and nothing is kept of this one."""
        store = self._shelf.store
        return store is not None and store.peek(self._prefix + key) is None

    def take_over(self, flight: Flight[bytes | None], answer: Fetched) -> bool:
        """Keep, as the owner, what another node has kept of a key. False where that is no longer current."""
        store = self._shelf.store
        if store is None or not self.is_sure() or not flight.is_current:
            return False
        self._put(store, flight.key, answer.value, flight.begun_s + answer.fresh_s)
        return True

    def _put(self, store: Store, key: str, value: bytes | None, until_s: float) -> None:
        if not self._shelf.keeping or until_s <= clock_s():
            return
        if value is not None and len(value) > self._limits.value_bytes_max:
            self._stats.too_big += 1
            return
        kept, entry = self._prefix + key, (value, until_s, self._generation)
        self._shelf.put_bytes += cost_of(kept, entry)
        store.put(kept, entry)

    # Forgetting

    def drop(self, key: str) -> None:
        shelf = self._shelf
        if shelf.store is not None:
            shelf.store.remove(self._prefix + key)
        if shelf.mirrors is not None:
            shelf.mirrors.store.remove(self._prefix + key)

    def drop_all(self) -> None:
        """In constant time: what is of a former generation is missing."""
        self._generation += 1
