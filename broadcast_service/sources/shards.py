"""Whether a shard was rebuilt: its items have another epoch then, and nothing of the former one counts any more.

Messages tell it too, but only once somebody bids. Until then a relay that slept while its shard was rebuilt may publish
what nobody else will ever know of, with a number above all that the viewers of the item have seen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Final, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import names
from shared.redis_layout.cursors import ask_epoch

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0


class Listener(Protocol):
    """Who is told. Calls are synchronous."""

    def shards_watched(self) -> set[str]:
        """Of which shards it is to be told."""

    def shards_seen(self, epochs: Mapping[str, int], rebuilt: Collection[str]) -> None:
        """What was found: the epoch of each shard that lives, and the shards at which somebody is at work."""


class ShardWatch:
    """``run`` looks until it is cancelled, at most at all 64 shards, in one round trip."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def run(self, listener: Listener) -> None:
        """Look every second; what cannot be seen now is seen later."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.look(listener)
            except (RedisError, OSError, TimeoutError) as error:
                logger.debug("the shards cannot be looked at: %s: %s", type(error).__name__, error)

    async def look(self, listener: Listener) -> None:
        """One look.

        Raises:
            redis.RedisError, OSError, TimeoutError: Redis could not be asked.
        """
        shards = sorted(listener.shards_watched())
        if not shards:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for shard in shards:
            ask_epoch(pipeline, shard)
            pipeline.exists(names.rebuilding_key(shard))
        answers = await pipeline.execute()
        epochs = {shard: int(epoch) for shard, epoch in zip(shards, answers[::2], strict=True) if epoch is not None}
        marked = zip(shards, answers[1::2], strict=True)
        listener.shards_seen(epochs, [shard for shard, is_marked in marked if is_marked and shard not in epochs])
