"""Single items that Redis has lost while their shards live. They are noted where all gateways and broadcasters find
them.

A gateway finds out by asking the archive, which costs; a broadcaster cannot ask it. So a gateway that finds one notes
it in Redis, beside the shard's other keys. Only what is known to have been there is noted, so strangers cannot fill it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import names
from shared.redis_layout.keys import item_key, lost_key

logger = logging.getLogger(__name__)

NOTED_MAX: Final = 1_000
"""The most notes per shard. Further lost items get the same answer, after the archive was asked."""
_TOLD_MAX: Final = 1_000


class LostItems:
    """The notes. They only save questions: where a note cannot be written, the archive is asked again."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self._told: set[str] = set()

    async def note(self, *item_ids: str) -> None:
        """Note items that are known and whose hash is gone. Never raises."""
        for item_id in item_ids:
            if item_id not in self._told and len(self._told) < _TOLD_MAX:
                self._told.add(item_id)
                logger.critical("item %s is known, but Redis has lost it: no bids until it is rebuilt", item_id)
        shards = sorted({names.shard_of(item_id) for item_id in item_ids})
        try:
            pipeline = self._redis.pipeline(transaction=False)
            for shard in shards:
                pipeline.scard(lost_key(shard))
            room = {shard for shard, noted in zip(shards, await pipeline.execute(), strict=True) if noted < NOTED_MAX}
            pipeline = self._redis.pipeline(transaction=False)
            for item_id in item_ids:
                if names.shard_of(item_id) in room:
                    pipeline.sadd(lost_key(names.shard_of(item_id)), item_id)
            await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            logger.debug("lost items cannot be noted: %s: %s", type(error).__name__, error)

    async def review(self, shards: Iterable[str]) -> int:
        """How many of these shards' noted items are still lost; those that are back are struck off.

        Raises:
            RedisError, OSError, TimeoutError: Redis cannot be asked.
        """
        lost = 0
        for shard in shards:
            noted = [item_id.decode() for item_id in await self._redis.smembers(lost_key(shard))]
            pipeline = self._redis.pipeline(transaction=False)
            for item_id in noted:
                pipeline.exists(item_key(item_id))
            there = await pipeline.execute()
            back = [item_id for item_id, is_there in zip(noted, there, strict=True) if is_there]
            if back:
                await self._redis.srem(lost_key(shard), *back)
                self._told.difference_update(back)
            lost += len(noted) - len(back)
        return lost
