"""Giving shards their cursors: once per shard, and never to a Redis that lost its data.

Every script refuses a shard without cursors. A fresh deployment gets them here; a Redis that was wiped must not,
because its items would start again at zero. The archive tells the two apart: a shard that PostgreSQL has entries of is
not new.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from api_gateway.engine.scripts import ItemScripts
from shared import names

logger = logging.getLogger(__name__)

_PAUSE_S = 2.0
_ARCHIVED_SHARDS = "SELECT shard FROM shard_cursors WHERE archived_n > 0 OR cardinality(ahead) > 0"


@dataclass(slots=True)
class ShardHealth:
    """``missing`` shards have no cursors yet; ``lost`` ones must be rebuilt from the archive.

    ``backlog``: outbox entries that are not known to be archived, over all shards and in the longest one.
    """

    missing: set[str] = field(default_factory=lambda: set(names.SHARDS))
    lost: set[str] = field(default_factory=set)
    backlog_total: int = 0
    backlog_longest: int = 0
    archive_is_behind: bool = False

    @property
    def ready(self) -> bool:
        """Whether bids can be taken on every shard."""
        return not self.missing


class Shards:
    """Watches that every shard has its cursors."""

    def __init__(
        self,
        redis: Redis,
        scripts: ItemScripts,
        archive: asyncpg.Pool,
        *,
        on_initialised: Callable[[], None],
        outbox_alarm_entries: int,
    ) -> None:
        self._outbox_alarm_entries = outbox_alarm_entries
        self._redis = redis
        self._scripts = scripts
        self._archive = archive
        self._on_initialised = on_initialised
        self.health = ShardHealth()

    async def run(self) -> None:
        """Look every few seconds, until cancelled. While Redis or PostgreSQL is away, look again later."""
        while True:
            try:
                await self.look()
            except (RedisError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                logger.warning("shards: cannot be checked: %s: %s", type(error).__name__, error)
            await asyncio.sleep(_PAUSE_S * random.uniform(0.75, 1.25) if self.health.ready else 0.25)

    async def look(self) -> None:
        """One look: initialise what is new, name what is lost.

        Raises:
            RedisError, asyncpg.PostgresError, OSError: nothing is known; look again.
        """
        pipeline = self._redis.pipeline(transaction=False)
        for shard in names.SHARDS:
            pipeline.hmget(names.cursors_key(shard), ["next", "archived"])
        cursors = await pipeline.execute()
        missing = {shard for shard, (entry, _) in zip(names.SHARDS, cursors, strict=True) if entry is None}
        self._note_backlog([int(entry) - int(archived) for entry, archived in cursors if entry is not None])
        if missing:
            archived = {row["shard"] for row in await self._archive.fetch(_ARCHIVED_SHARDS)}
            # Where one shard is lost, none that is missing beside it may begin anew: it may have had bids that are
            # acknowledged and not archived yet. Recovery archives what the stream has of them; what is missing and
            # unknown even then is new.
            lost = missing if missing & archived else set()
            if lost - self.health.lost:
                logger.critical(
                    "Redis has lost %d shards that the archive knows; their items take no bids until they are rebuilt",
                    len(lost),
                )
            for shard in missing - lost:
                await self._scripts.init_shard(shard)
            missing = lost
            self._on_initialised()
        self.health.missing = set(missing)
        self.health.lost = set(missing)

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
