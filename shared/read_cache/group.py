"""A group: keys of one origin, with what is kept of them.

A get goes from the nearest to the farthest: what is kept here; the node that owns the key; the origin. What makes it
right is *forgetting*. A load reads the origin at some moment; whoever changes the origin calls ``forget`` after its
commit. In between lies the one race that matters:

1. a load reads the old value;
2. the change is committed, and its key is forgotten here (nothing is kept yet, so nothing is dropped);
3. the load ends and the old value would be kept, and told until it expires.

So ``forget`` takes the load out of the table of flights. It lands for those who waited before, is no longer current,
and is not kept; and whoever asks after the ``forget`` begins a load of their own. The same holds for what is fetched
from a peer.

How long a value is kept counts from the moment before it was asked for, on a clock that goes on while the process is
stopped. So the bound holds however long the question takes, and whatever happens meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Final

from shared.read_cache.errors import OriginSilent, OriginSlow, Overloaded, PeerFailed
from shared.read_cache.keys import checked_group
from shared.read_cache.membership.clock import now_s as clock_s
from shared.read_cache.remote import Fetched
from shared.read_cache.shelf import MISSING, GroupLimits, Load, LoadMany, MayKeep, Missing, Shelf, always
from shared.read_cache.singleflight import Flight, Singleflight
from shared.read_cache.stats import Stats
from shared.read_cache.store.base import Store, cost_of

logger = logging.getLogger(__name__)

OnServed = Callable[[Fetched | Exception], None]


KEYS_MAX: Final = 1_000
FETCHES_MAX: Final = 50_000
WAITERS_MAX: Final = 100_000
_KEPT_SHARE_LEAST: Final = 0.9


class Group:
    """Made by :class:`shared.read_cache.cache.ReadCache`."""

    def __init__(
        self,
        name: str,
        load: Load,
        limits: GroupLimits,
        shelf: Shelf,
        *,
        flights_max: int,
        may_keep: MayKeep = always,
        load_many: LoadMany | None = None,
        counts: bool = True,
    ) -> None:
        """
        Args:
            flights_max: questions to the origin under way, those at the gate among them.
            counts: whether its gets, hits and loads are among those of which a hit rate is told.
        """
        self.name = checked_group(name)
        self.limits = limits
        self._load = load
        self._load_many = load_many
        self._may_keep = may_keep
        self._shelf = shelf
        self._stats = shelf.stats
        self._rated = shelf.stats if counts else Stats()
        self._prefix = f"{name}:"
        self._generation = 0
        self._loads: Singleflight[bytes | None] = Singleflight(
            flights_max=flights_max, waiters_max=WAITERS_MAX, joined_for_s=limits.joined_for_s
        )
        self._fetches: Singleflight[bytes | None] = Singleflight(
            flights_max=FETCHES_MAX, waiters_max=WAITERS_MAX, joined_for_s=limits.joined_for_s
        )
        self._tasks: set[asyncio.Task[None]] = set()

    # Readers

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

    def begins_anew(self, key: str) -> bool:
        """Whether a :meth:`get` in the same step would certainly ask the origin a question of its own: nothing is kept
        here, nobody has asked already, and there are no other nodes. What it is told then is at least as new as the
        get.

        Nobody is asked who owns the key: a node that failed is given one try after its pause, which that would use up.
        """
        shelf = self._shelf
        if not shelf.shares_loads:
            return True
        if shelf.remote is not None and shelf.remote.is_sure():
            return False
        return not self._loads.has(key) and self._fresh_s(key) <= 0

    def _is_sure(self) -> bool:
        """Whether every removal comes here. Where it does not, only what is kept for moments may be told.

        To be asked before anything is looked up or kept: where this process finds out here that it has slept for too
        long, all is forgotten, and what is being loaded is no longer current.
        """
        remote = self._shelf.remote
        return remote is None or remote.is_sure()

    async def get(self, key: str) -> bytes | None:
        """The value, or None where the origin has none: kept here, or by the key's owner, or loaded.

        Never older than the newest ``forget`` of the key that this process had seen when the call began, but for
        ``mirror_ttl_s`` in a cluster. A caller that is cancelled cancels nobody else's load.

        Raises:
            Overloaded: the origin has more to do than it can.
            OriginSlow: it did not answer in time.
            Exception: what ``load`` raised; every caller that waited for this load gets it, and it is not kept.
        """
        self._rated.gets += 1
        found = self.cached(key)
        if found is not MISSING:
            return found
        return await self._coming(key, self._begin_load)

    async def get_many(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """All of them, in their order, each as :meth:`get` would tell it; what is asked of one owner goes in one
        message, and what is asked of the origin in one question, where it can tell of many.

        Raises:
            ValueError: more than ``KEYS_MAX`` keys.
            Exception: the first error of any of them, after all have ended.
        """
        asked = dict.fromkeys(keys)
        if len(asked) > KEYS_MAX:
            raise ValueError(f"at most {KEYS_MAX} keys at a time, not {len(asked)}")
        self._rated.gets += len(asked)
        coming: dict[str, Awaitable[bytes | None]] = {}
        begun: list[Flight[bytes | None]] = []
        begin = self._begin_load if self._load_many is None else begun.append
        refused: Overloaded | None = None
        for key in asked:
            found = self.cached(key)
            if found is not MISSING:
                asked[key] = found
                continue
            try:
                coming[key] = self._coming(key, begin)
            except Overloaded as error:
                refused = error
                break
        if begun:
            self._begin_loads(begun)
        values = await asyncio.gather(*coming.values(), return_exceptions=True)
        for key, value in zip(coming, values, strict=True):
            if isinstance(value, BaseException):
                raise value
            asked[key] = value
        if refused is not None:
            raise refused
        return asked

    def _coming(self, key: str, begin_load: Callable[[Flight[bytes | None]], None]) -> Awaitable[bytes | None]:
        """A future for one caller to await."""
        shelf = self._shelf
        if not shelf.shares_loads:
            return self._get_alone(key)
        try:
            if shelf.remote is not None and (owner := shelf.remote.owner(key)) is not None:
                self._stats.joined += self._fetches.has(key)
                return self._fetches.join(key, partial(self._begin_fetch, owner))
            self._stats.joined += self._loads.has(key)
            return self._loads.join(key, begin_load)
        except Overloaded:
            self._stats.shed += 1
            raise

    # Loads

    async def _get_alone(self, key: str) -> bytes | None:
        (value,) = await self._ask_origin(key, [key])
        return value

    async def _ask_origin(self, what: str, keys: Sequence[str]) -> list[bytes | None]:
        """``what``: as errors name them."""
        timeout_s = self.limits.load_timeout_s
        try:
            async with self._shelf.gate.passed():
                self._rated.loads += 1
                self._stats.passing_loads += self._rated is not self._stats
                try:
                    async with asyncio.timeout(timeout_s) as timeout:
                        return await self._loaded(keys)
                except TimeoutError as error:
                    self._stats.load_errors += 1
                    if timeout.expired():
                        raise OriginSlow(what, timeout_s) from error
                    raise
                except Exception:
                    self._stats.load_errors += 1
                    raise
        except Overloaded:
            self._stats.shed += 1
            raise

    def _begin_load(self, flight: Flight[bytes | None]) -> None:
        self._begin_loads([flight])

    def _begin_loads(self, flights: Sequence[Flight[bytes | None]]) -> None:
        task = asyncio.get_running_loop().create_task(self._load_for(flights))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _load_for(self, flights: Sequence[Flight[bytes | None]]) -> None:
        """One question for all of these."""
        keys = [flight.key for flight in flights]
        what = keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} others"
        # Before the origin is asked: what it says later is at least as new as this answer. Whoever changes the answer
        # later forgets the key.
        may_keep = [self._may_keep(key) for key in keys]
        try:
            values = await self._ask_origin(what, keys)
        except asyncio.CancelledError:
            # close(), or a driver, has cancelled this.
            for flight in flights:
                flight.crash(Overloaded(f"the load of {flight.key} was cancelled"))
            raise
        except Exception as error:
            for flight in flights:
                flight.crash(error)
            return
        sure = self._is_sure()
        for flight, value, may in zip(flights, values, may_keep, strict=True):
            if flight.is_current and may:
                self._keep(flight, value, sure)
            else:
                self._stats.forgotten += 1
            flight.land(value)

    async def _loaded(self, keys: Sequence[str]) -> list[bytes | None]:
        if len(keys) == 1 or self._load_many is None:
            return [await self._load(key) for key in keys]
        found = await self._load_many(keys)
        return [found.get(key) for key in keys]

    def _keep(self, flight: Flight[bytes | None], value: bytes | None, sure: bool) -> None:
        shelf, key = self._shelf, flight.key
        ttl_s = self.limits.negative_ttl_s if value is None else self.limits.ttl_s
        ttl_s *= random.uniform(_KEPT_SHARE_LEAST, 1.0)
        remote = shelf.remote
        if shelf.store is not None and sure and (remote is None or remote.owner(key) is None):
            self._put(shelf.store, key, value, flight.begun_s + ttl_s)
        elif shelf.mirrors is not None:
            # Loaded in place of its owner, or without a ring to rely on: for moments, so that an outage does not make
            # of every get a question to the origin.
            self._put(shelf.mirrors.store, key, value, flight.begun_s + min(ttl_s, self.limits.mirror_ttl_s))

    def _put(self, store: Store, key: str, value: bytes | None, until_s: float) -> None:
        if not self._shelf.keeping or until_s <= clock_s():
            return
        if value is not None and len(value) > self.limits.value_bytes_max:
            self._stats.too_big += 1
            return
        kept, entry = self._prefix + key, (value, until_s, self._generation)
        self._shelf.put_bytes += cost_of(kept, entry)
        store.put(kept, entry)

    # Fetches

    def _begin_fetch(self, owner: str, flight: Flight[bytes | None]) -> None:
        remote = self._shelf.remote
        assert remote is not None
        self._stats.fetches += 1
        remote.ask(owner, self.name, flight.key, partial(self._fetched, flight))

    def _fetched(self, flight: Flight[bytes | None], answer: Fetched | Exception) -> None:
        if isinstance(answer, Fetched):
            mirrors = self._shelf.mirrors
            if not flight.is_current:
                self._stats.forgotten += 1
            elif (
                mirrors is not None
                and mirrors.hot_keys.is_hot(self._prefix + flight.key)
                and self._is_sure()
                and flight.is_current
            ):
                until_s = flight.begun_s + min(answer.fresh_s, self.limits.mirror_ttl_s)
                self._put(mirrors.store, flight.key, answer.value, until_s)
            flight.land(answer.value)
        elif isinstance(answer, Overloaded):
            self._stats.shed += 1
            flight.crash(answer)
        else:
            self._stats.fetch_failures += 1
            self._load_instead(flight)

    def _load_instead(self, flight: Flight[bytes | None]) -> None:
        """The fetch failed: its waiters get what is loaded here, together with others who load that."""

        def loaded(future: asyncio.Future[bytes | None]) -> None:
            if future.cancelled():
                flight.crash(Overloaded(f"the load of {flight.key} was cancelled"))
            elif (error := future.exception()) is None:
                flight.land(future.result())
            else:
                flight.crash(error if isinstance(error, Exception) else RuntimeError(str(error)))

        try:
            self._loads.join(flight.key, self._begin_load).add_done_callback(loaded)
        except Overloaded as error:
            self._stats.shed += 1
            flight.crash(error)

    # Peers

    def kept_for_peer(self, keys: Sequence[str]) -> list[Fetched | None]:
        """What is kept here of each key, for another process; None where nothing is."""
        shelf = self._shelf
        self._stats.served += len(keys)
        shelf.before_telling()
        store = shelf.store
        if store is None or not self._is_sure() or not (shelf.keeping and shelf.telling):
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

    def load_for_peer(self, key: str, on_served: OnServed) -> None:
        """Load the key from the origin, whoever owns it: a question that was passed on is not passed on again.

        ``on_served`` is called exactly once, later. Where the origin is silent here, the node that asks does better to
        load the key itself than to wait.
        """
        gate = self._shelf.gate
        if gate.is_full and gate.is_silent and not self._loads.has(key):
            self._stats.shed += 1
            silent = OriginSilent("the origin answers nothing here")
            asyncio.get_running_loop().call_soon(on_served, silent)
            return

        def loaded(future: asyncio.Future[bytes | None]) -> None:
            if future.cancelled():
                on_served(Overloaded(f"the load of {key} was cancelled"))
            elif (error := future.exception()) is not None:
                on_served(error if isinstance(error, Exception) else RuntimeError(str(error)))
            else:
                on_served(Fetched(future.result(), self._fresh_s(key)))

        try:
            self._loads.join(key, self._begin_load).add_done_callback(loaded)
        except Overloaded as error:
            self._stats.shed += 1
            asyncio.get_running_loop().call_soon(on_served, error)

    def _fresh_s(self, key: str) -> float:
        """How long a kept value may be told; 0 where none is kept, so that nobody mirrors it."""
        shelf = self._shelf
        stores: list[Store | None] = [shelf.store, shelf.mirrors.store if shelf.mirrors is not None else None]
        for store in stores:
            entry = store.peek(self._prefix + key) if store is not None else None
            if entry is not None and entry[2] == self._generation:
                return max(0.0, entry[1] - clock_s())
        return 0.0

    def keys_kept(self) -> Iterable[str]:
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

    async def take_over(self, key: str, owner: str) -> bool:
        """Fetch what another node keeps of a key that is owned here now, and keep it; False where it keeps nothing.

        For the warm-up of a node that has joined. It is a flight like any other: a ``forget`` meanwhile is heeded.
        Nobody repeats changes that were heard of here before. So the value of a node that has heard less is behind, and
        is not taken over.
        """
        remote, store = self._shelf.remote, self._shelf.store
        if remote is None or store is None or self._loads.has(key) or store.peek(self._prefix + key) is not None:
            return False
        if not self._may_keep(key):
            return False
        taken = False
        # Before the other node is asked: a change that is heard later forgets the key, and its flight with it.
        needed = self._shelf.needed()

        def fetched(flight: Flight[bytes | None], answer: Fetched | Exception) -> None:
            nonlocal taken
            if isinstance(answer, Fetched) and not answer.heard.covers(needed):
                answer = PeerFailed(owner, "has not heard of all changes that are known here")
            if not isinstance(answer, Fetched):
                # A reader that has joined the flight meanwhile needs the value; this task alone does not.
                if flight.waiters > 1:
                    self._begin_load(flight)
                else:
                    flight.crash(answer)
                return
            if self._is_sure() and flight.is_current:
                self._put(store, key, answer.value, flight.begun_s + answer.fresh_s)
                taken = True
            flight.land(answer.value)

        def begin(flight: Flight[bytes | None]) -> None:
            remote.ask(owner, self.name, key, partial(fetched, flight), kept_only=True)

        try:
            await self._loads.join(key, begin)
        except Exception:
            return False
        return taken

    # Forgetting

    def forget(self, *keys: str) -> None:
        """Drop what this process keeps under the keys. What is being loaded is given to those who wait and not kept,
        and a get after this call begins anew."""
        shelf = self._shelf
        for key in keys:
            self._loads.forget(key)
            self._fetches.forget(key)
            if shelf.store is not None:
                shelf.store.remove(self._prefix + key)
            if shelf.mirrors is not None:
                shelf.mirrors.store.remove(self._prefix + key)

    async def remove(self, *keys: str) -> list[str]:
        """Forget the keys here, and at all nodes of the cluster; to be called after the commit of what changed them.

        Returns:
            The names of nodes that could not be told.
        """
        self.forget(*keys)
        remote = self._shelf.remote
        if remote is None or not keys:
            return []
        untold = await remote.forget(self.name, keys)
        # A get here may have fetched the old value from a node that had not been told yet.
        self.forget(*keys)
        return untold

    def forget_all(self) -> None:
        """Forget all of the group in this process, in constant time: entries of former generations count as missing."""
        self._generation += 1
        self._loads.forget_all()
        self._fetches.forget_all()

    async def reset(self) -> list[str]:
        """Forget all of the group here and at all nodes. Returns the names of nodes that could not be told."""
        self.forget_all()
        remote = self._shelf.remote
        if remote is None:
            return []
        untold = await remote.forget(self.name, None)
        self.forget_all()
        return untold

    async def close(self) -> None:
        """Give up what is being loaded; whoever waits gets ``Overloaded``."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


__all__ = ["KEYS_MAX", "MISSING", "Group", "GroupLimits", "Load", "LoadMany", "MayKeep", "Missing", "Shelf", "always"]
