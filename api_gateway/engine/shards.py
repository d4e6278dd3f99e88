"""Giving shards their cursors, once per shard, and closing those that went back in time.

Every script refuses a shard without cursors. A fresh deployment gets them here; a Redis that was wiped must not,
because its items would start again at zero. The archive and the stream tell the two apart: a shard that one of them has
entries of is not new. They also tell an older copy of Redis: it has not given out yet what they have.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from api_gateway.engine.lost_items import LostItems
from api_gateway.engine.past import Known, Past, Place
from api_gateway.engine.scripts import ItemScripts
from shared import names
from shared.domain.errors import Unavailable

logger = logging.getLogger(__name__)

_PAUSE_S = 2.0
_PAUSE_FAILED_S = 0.5
_COMPARE_EVERY_S = 15.0


class _Cursors(NamedTuple):
    """A shard's cursors as this Redis has them; ``stale`` where the shard was closed because it went back.

    ``items_lost``: how many of its items are noted as lost.
    """

    place: Place | None
    archived: int
    stale: bool
    items_lost: int


@dataclass(slots=True)
class ShardHealth:
    """``missing`` shards have no cursors yet; ``lost`` ones must be rebuilt from the archive, and of these the
    ``stale`` ones are an older copy of what they were.

    ``items_lost``: items that Redis has lost while their shards live, as far as somebody asked for them.
    ``backlog``: outbox entries that are not known to be archived, over all shards and in the longest one.
    """

    missing: set[str] = field(default_factory=lambda: set(names.SHARDS))
    lost: set[str] = field(default_factory=set)
    stale: set[str] = field(default_factory=set)
    items_lost: int = 0
    backlog_total: int = 0
    backlog_longest: int = 0
    archive_is_behind: bool = False

    @property
    def ready(self) -> bool:
        """Whether bids can be taken on every shard."""
        return not self.missing


_NOWHERE = Place(0, 0)


class Shards:
    """Watches that every shard has its cursors, and that none is behind what is known of it elsewhere."""

    def __init__(
        self,
        redis: Redis,
        scripts: ItemScripts,
        past: Past,
        lost_items: LostItems,
        *,
        on_initialised: Callable[[], None],
        outbox_alarm_entries: int,
    ) -> None:
        """``redis``, and that of ``scripts`` and ``lost_items``: without a guard, which asks this object."""
        self._lost_items = lost_items
        self._outbox_alarm_entries = outbox_alarm_entries
        self._redis = redis
        self._scripts = scripts
        self._past = past
        self._on_initialised = on_initialised
        self._seen: dict[str, Place] = {}
        self._compare_at_s = 0.0
        self.health = ShardHealth()

    async def run(self) -> None:
        """Look every few seconds, until cancelled. While a server is away, look again later."""
        while True:
            pause_s = _PAUSE_S
            try:
                await self.look()
                if asyncio.get_running_loop().time() >= self._compare_at_s:
                    await self.compare()
            except (RedisError, Unavailable, OSError, TimeoutError) as error:
                logger.warning("shards: cannot be checked: %s: %s", type(error).__name__, error)
                pause_s = _PAUSE_FAILED_S
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))

    async def look(self) -> None:
        """One look: initialise what is new, name what is lost.

        Raises:
            RedisError, Unavailable, OSError: nothing is known; look again.
        """
        cursors = await self._cursors()
        self.health.items_lost = await self._lost_items.review(
            [shard for shard, found in cursors.items() if found.place is not None and found.items_lost]
        )
        missing = {shard for shard, found in cursors.items() if found.place is None}
        self._note_backlog([found.place.n - found.archived for found in cursors.values() if found.place is not None])
        was_missing, self.health.missing = self.health.missing, set(missing)
        if missing:
            known = await self._past.shards()
            if not known.is_complete:
                raise Unavailable(f"whether {len(missing)} shards are new or lost is not known before both were asked")
            # Where one shard is lost, none that is missing beside it may begin anew: it may have had bids that are
            # acknowledged and not archived yet. Recovery archives what the stream has of them; what is missing and
            # unknown even then is new.
            lost = missing if missing & known.places.keys() else set()
            if lost - self.health.lost:
                logger.critical(
                    "Redis has lost %d shards; their items take no bids until they are rebuilt",
                    len(lost),
                )
            for shard in missing - lost:
                await self._scripts.init_shard(shard)
            missing = lost
        if missing or was_missing:
            self._on_initialised()
        self.health.missing = set(missing)
        self.health.lost = set(missing)
        self.health.stale = {shard for shard in missing if cursors[shard].stale}

    async def compare(self) -> None:
        """Close the shards of which more is known elsewhere than this Redis has given out.

        "Elsewhere" is the archive and the stream; where neither can be asked, it is what this process has seen.

        Raises:
            RedisError, OSError: the cursors cannot be read.
            Unavailable: there was nobody to be asked, and this process has seen nothing yet.
        """
        # First what is known, then the cursors: they only ever rise, so whatever is sound has passed what is known.
        known = await self._past.shards()
        places = known.places if known.archive_asked or known.stream_asked else dict(self._seen)
        if not (known.archive_asked or known.stream_asked or places):
            raise Unavailable(
                "neither the archive nor the stream tells whether Redis is an older copy; try again later"
            )
        cursors = await self._cursors()
        behind: list[str] = []
        for shard, found in cursors.items():
            place = places.get(shard, _NOWHERE)
            if found.place is None or found.place >= place:
                continue
            if await self._scripts.close_shard(shard, epoch=place.epoch, n=place.n):
                behind.append(f"{shard} at {found.place.epoch}:{found.place.n}, known {place.epoch}:{place.n}")
        if behind:
            logger.critical(
                "Redis went back: %d shards are an older copy and are closed until they are rebuilt (%s)",
                len(behind),
                "; ".join(behind[:5]),
            )
        self._note_comparison(known)

    def _note_comparison(self, known: Known) -> None:
        """Where somebody could not be asked, they are asked again soon."""
        every_s = _COMPARE_EVERY_S if known.is_complete else _PAUSE_S
        self._compare_at_s = asyncio.get_running_loop().time() + every_s * random.uniform(0.75, 1.25)

    async def _cursors(self) -> dict[str, _Cursors]:
        """The cursors of all shards; what was seen is remembered for as long as this process lives."""
        pipeline = self._redis.pipeline(transaction=False)
        for shard in names.SHARDS:
            pipeline.hmget(names.cursors_key(shard), ["epoch", "next", "archived", "stale"])
            pipeline.scard(names.lost_key(shard))
        answers = await pipeline.execute()
        found: dict[str, _Cursors] = {}
        for shard, cursors, items_lost in zip(names.SHARDS, answers[::2], answers[1::2], strict=True):
            epoch, entry, archived, stale = cursors
            place = None if epoch is None or entry is None else Place(int(epoch), int(entry))
            found[shard] = _Cursors(place, int(archived or 0), stale is not None, items_lost)
            if place is None:
                self._seen.pop(shard, None)
            elif place.n > 0:
                self._seen[shard] = max(place, self._seen.get(shard, place))
        return found

    def _note_backlog(self, backlogs: list[int]) -> None:
        health = self.health
        health.backlog_total = sum(backlogs)
        health.backlog_longest = max(backlogs, default=0)
        is_behind = health.backlog_longest >= self._outbox_alarm_entries
        if is_behind and not health.archive_is_behind:
            logger.error(
                "the archive is behind: %d entries wait in the longest outbox; bids are refused past the bound",
                health.backlog_longest,
            )
        elif health.archive_is_behind and not is_behind:
            logger.warning("the archive is catching up: %d entries wait in all", health.backlog_total)
        health.archive_is_behind = is_behind
