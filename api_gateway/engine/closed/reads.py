"""How the gateway reads closed items: straight from the archive, through a cache of its own, or through cache nodes.

Anybody may ask for random ids, and others need the archive too. So in every mode a few questions are asked of it at a
time, a bounded number waits, and the rest is refused. That there is no such closed item is never taken from a cache:
whoever hears it may open the item, or take it for lost.

**A cache of its own** needs nobody who tells it of changes, since Redis is always asked first. A closed item changes by
a void alone. It comes back into Redis for that, and stays there for a minute after it (``RETURNED_KEEP_S``), and until
the archive has it. So:

1. at some moment Redis does not have the item, in an open shard; then the archive is asked, and its answer is kept;
2. the item comes back, and a bid is struck. From now on the answer is an old one, and Redis has the item;
3. a minute later at the earliest it leaves again. A caller that asks now looks at what is kept, and the old answer must
   be gone by then.

It is gone, since it is kept for a third of that minute, counted from before 1, on a clock that goes on while this
process is stopped. The rest of the minute is for a clock of Redis that is put forward meanwhile. It takes three things
more:

- The caller that began the load asked Redis a while ago. So the load asks again, first (:class:`_LeftReads`). Else the
  item might have come back in between, and the minute be nearly over when the archive is asked.
- A load that takes long is joined by nobody after a third of the minute, and what it told is kept no longer either.
- A recovery may leave a closed item out of Redis although it was struck a moment ago. It gives the shard another epoch,
  which Redis tells with every look for a closed item, and then all is dropped (:meth:`Reads.drop`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError
from typing_extensions import override

from shared import names
from shared.archive_cache.packing import pack
from shared.archive_cache.reads import CachedReads, group_of, groups, name_of_group, never_unsettled, translated
from shared.archive_reads.keys import CatalogueKey, item_of, parse_key, state_key
from shared.archive_reads.origin import ArchiveReads
from shared.clients.nats import NatsLink
from shared.domain.errors import Unavailable
from shared.read_cache.cache import ReadCache
from shared.read_cache.errors import Overloaded
from shared.read_cache.groups.group import GroupLimits
from shared.read_cache.groups.shedding import Gate
from shared.read_cache.opening import open_read_cache
from shared.read_cache.settings import ReadCacheSettings
from shared.redis_layout.cursors import ask_epoch
from shared.redis_layout.keys import item_key
from shared.redis_layout.limits import RETURNED_KEEP_S

KEPT_S: Final = RETURNED_KEEP_S / 3
"""How long what the archive says of a closed item is told at most, and how old a question is at most that others join.
A question may be joined that is as old, and told what is kept as long: that is still less than the minute."""

READS_AT_ONCE: Final = 3
"""Questions about single items and their histories; and as many for the catalogue."""
READS_WAITING_MAX: Final = 256
TURN_S: Final = 2.0


class InTurns:
    """:class:`ArchiveReads` without a cache: a few questions at a time.

    One for all that this process asks: what fills a cache, and what confirms that there is none, share its bounds. The
    catalogue has bounds of its own: those who look through it and those who ask for random ids are not in each other's
    way.
    """

    def __init__(
        self, origin: ArchiveReads, *, running_max: int = READS_AT_ONCE, waiting_max: int = READS_WAITING_MAX
    ) -> None:
        self._origin = origin
        self._single = Gate(running_max=running_max, waiting_max=waiting_max, wait_max_s=TURN_S)
        self._lists = Gate(running_max=running_max, waiting_max=waiting_max, wait_max_s=TURN_S)

    async def get(self, key: str) -> bytes | None:
        """See :class:`ArchiveReads`."""
        gate = self._lists if isinstance(parse_key(key), CatalogueKey) else self._single
        async with _passed(gate):
            return await self._origin.get(key)

    async def states(self, item_ids: Sequence[str]) -> dict[str, bytes]:
        """See :class:`ArchiveReads`."""
        async with _passed(self._lists):
            return await self._origin.states(item_ids)


@asynccontextmanager
async def _passed(gate: Gate) -> AsyncIterator[None]:
    try:
        async with gate.passed():
            yield
    except Overloaded as error:
        raise Unavailable("too many ask for items that Redis does not have; try again", retry_after_s=2) from error


class SureReads(CachedReads):
    """:class:`ArchiveReads` through a cache, for callers who conclude from a None that an item is a new one, or lost:
    the origin itself says so, asked after the call began."""

    def __init__(self, cache: ReadCache, origin: ArchiveReads) -> None:
        super().__init__(cache, origin)
        self._archive = origin

    @override
    async def get(self, key: str) -> bytes | None:
        is_sure = self._cache[group_of(key)].begins_anew(key)
        value = await super().get(key)
        return value if value is not None or is_sure else await self._archive.get(key)

    async def states(self, item_ids: Sequence[str]) -> dict[str, bytes]:
        """See :class:`ArchiveReads`."""
        group, of_key = self._cache[name_of_group("items")], {state_key(item_id): item_id for item_id in item_ids}
        sure = {key for key in of_key if group.begins_anew(key)}
        with translated():
            kept = await group.get_many(of_key)
        found: dict[str, bytes] = {}
        for key, packed in kept.items():
            value = None if packed is None else await self.unpacked(key, packed)
            if value is not None:
                found[of_key[key]] = value
        unsure = [of_key[key] for key, packed in kept.items() if packed is None and key not in sure]
        return found | await self._archive.states(unsure) if unsure else found


class _LeftReads:
    """Fills a cache of this process: what is told of an item that Redis has again is not kept."""

    def __init__(self, origin: ArchiveReads, redis: Redis) -> None:
        self._origin = origin
        self._redis: Any = redis
        self.cache: ReadCache | None = None

    async def get(self, key: str) -> bytes | None:
        """See :class:`ArchiveReads`."""
        item_id = item_of(key)
        if item_id is not None:
            await self._keep_none_that_is_back({key: item_id})
        return await self._origin.get(key)

    async def load_states(self, keys: Sequence[str]) -> Mapping[str, bytes | None]:
        """The states of several closed items, in one question."""
        of_key = {key: str(item_of(key)) for key in keys}
        await self._keep_none_that_is_back(of_key)
        states = await self._origin.states(list(of_key.values()))
        return {state_key(item_id): pack(state) for item_id, state in states.items()}

    async def _keep_none_that_is_back(self, of_key: Mapping[str, str]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for item_id in of_key.values():
            ask_epoch(pipeline, names.shard_of(item_id))
            pipeline.exists(item_key(item_id))
        try:
            answers = await pipeline.execute()
        except (RedisError, OSError, TimeoutError):
            answers = [None, None] * len(of_key)
        for key, epoch, is_there in zip(of_key, answers[::2], answers[1::2], strict=True):
            # A shard that is lost or closed has items that Redis only seems not to have.
            if (epoch is None or is_there != 0) and self.cache is not None:
                self.cache[group_of(key)].forget(key)


@dataclass(frozen=True, slots=True)
class Reads:
    """What the gateway reads of the archive, and the cache before it; None in the mode ``off``."""

    archive: ArchiveReads
    cache: ReadCache | None

    def drop(self) -> None:
        """Stop telling what this process has kept so far, or is loading."""
        if self.cache is not None:
            self.cache.reset()


@asynccontextmanager
async def open_reads(
    settings: ReadCacheSettings, origin: ArchiveReads, redis: Redis, nats: NatsLink
) -> AsyncIterator[Reads]:
    """Reads while inside, in the mode of the settings.

    Raises:
        ValueError: settings that do not fit together, with what to do.
    """
    if settings.read_cache == "off":
        yield Reads(InTurns(origin), None)
        return
    in_turns = InTurns(
        origin,
        running_max=min(settings.read_cache_loads_max, READS_AT_ONCE),
        waiting_max=min(settings.read_cache_waiting_max, READS_WAITING_MAX),
    )
    # Questions wait for their turn in `InTurns`, single reads and lists apart. They must not wait in the cache as well.
    unbounded = settings.model_copy(update={"read_cache_loads_max": 2 * (READS_AT_ONCE + READS_WAITING_MAX)})
    # In a cluster this process keeps values for half a second itself. Nodes hear of changes.
    limits = GroupLimits(ttl_s=KEPT_S, negative_ttl_s=0, joined_for_s=KEPT_S)
    left = _LeftReads(in_turns, redis)
    specs = groups(left, never_unsettled, limits=limits, load_states=left.load_states)
    async with open_read_cache(unbounded, specs, nats=nats) as cache:
        left.cache = cache
        yield Reads(SureReads(cache, in_turns), cache)
