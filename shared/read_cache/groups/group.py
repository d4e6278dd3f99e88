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
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Final

from shared.read_cache.errors import OriginSilent, Overloaded, PeerFailed
from shared.read_cache.groups.kept import Kept
from shared.read_cache.groups.questions import Questions
from shared.read_cache.groups.shelf import MISSING, GroupLimits, Load, LoadMany, MayKeep, Missing, Shelf, always
from shared.read_cache.groups.singleflight import Flight, Singleflight
from shared.read_cache.keys import checked_group
from shared.read_cache.remote import Fetched
from shared.read_cache.stats import Stats

OnServed = Callable[[Fetched | Exception], None]


KEYS_MAX: Final = 1_000
FETCHES_MAX: Final = 50_000
WAITERS_MAX: Final = 100_000


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
        self._may_keep = may_keep
        self._shelf = shelf
        self._stats = shelf.stats
        self._rated = shelf.stats if counts else Stats()
        self._kept = Kept(name, limits, shelf, self._rated)
        self._questions = Questions(load, load_many, timeout_s=limits.load_timeout_s, shelf=shelf, rated=self._rated)
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
        return self._kept.cached(key)

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
        return not self._loads.has(key) and self._kept.fresh_s(key) <= 0

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
        found = self._kept.cached(key)
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
        begin = begun.append if self._questions.tells_of_many else self._begin_load
        refused: Overloaded | None = None
        for key in asked:
            found = self._kept.cached(key)
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
        (value,) = await self._questions.ask(key, [key])
        return value

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
            values = await self._questions.ask(what, keys)
        except asyncio.CancelledError:
            # close(), or a driver, has cancelled this.
            for flight in flights:
                flight.crash(Overloaded(f"the load of {flight.key} was cancelled"))
            raise
        except Exception as error:
            for flight in flights:
                flight.crash(error)
            return
        sure = self._kept.is_sure()
        for flight, value, may in zip(flights, values, may_keep, strict=True):
            if flight.is_current and may:
                self._kept.keep(flight, value, sure)
            else:
                self._stats.forgotten += 1
            flight.land(value)

    # Fetches

    def _begin_fetch(self, owner: str, flight: Flight[bytes | None]) -> None:
        remote = self._shelf.remote
        assert remote is not None
        self._stats.fetches += 1
        remote.ask(owner, self.name, flight.key, partial(self._fetched, flight))

    def _fetched(self, flight: Flight[bytes | None], answer: Fetched | Exception) -> None:
        if isinstance(answer, Fetched):
            if flight.is_current:
                self._kept.mirror(flight, answer)
            else:
                self._stats.forgotten += 1
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
        return self._kept.for_peer(keys)

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
                on_served(Fetched(future.result(), self._kept.fresh_s(key)))

        try:
            self._loads.join(key, self._begin_load).add_done_callback(loaded)
        except Overloaded as error:
            self._stats.shed += 1
            asyncio.get_running_loop().call_soon(on_served, error)

    def keys_kept(self) -> Iterable[str]:
        """The keys of which this process keeps a value as their owner, those that stay longest first."""
        return self._kept.keys()

    async def take_over(self, key: str, owner: str) -> bool:
        """Fetch what another node keeps of a key that is owned here now, and keep it; False where it keeps nothing.

        For the warm-up of a node that has joined. It is a flight like any other: a ``forget`` meanwhile is heeded.
        Nobody repeats changes that were heard of here before. So the value of a node that has heard less is behind, and
        is not taken over.
        """
        remote = self._shelf.remote
        if remote is None or self._loads.has(key) or not self._kept.may_take_over(key) or not self._may_keep(key):
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
            taken = self._kept.take_over(flight, answer)
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
        for key in keys:
            self._loads.forget(key)
            self._fetches.forget(key)
            self._kept.drop(key)

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
        self._kept.drop_all()
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
