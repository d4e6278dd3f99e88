"""Watches whether shards are rebuilt: their items then have a new epoch, and nothing of the former one counts.

Messages tell it too, but only once somebody bids. Until then a relay that was suspended while its shard was rebuilt may
publish events that are in no archive, with a seq above all that the viewers of the item have seen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Final, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.redis_layout.cursors import ask_epoch
from shared.redis_layout.keys import rebuilding_key

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0


class Listener(Protocol):
    """Is told the state of the shards. Calls are synchronous."""

    def shards_watched(self) -> set[str]:
        """The shards to look at."""

    def shards_seen(self, epochs: Mapping[str, int], rebuilt: Collection[str]) -> None:
        """The epoch of each shard that takes bids, and the shards that are being rebuilt."""


class ShardWatch:
    """Reads the state of up to 64 shards in one round trip."""

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
        """Look once.

        Raises:
            redis.RedisError, OSError, TimeoutError: Redis could not be asked.
        """
        shards = sorted(listener.shards_watched())
        if not shards:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for shard in shards:
            ask_epoch(pipeline, shard)
            pipeline.exists(rebuilding_key(shard))
        answers = await pipeline.execute()
        epochs = {shard: int(epoch) for shard, epoch in zip(shards, answers[::2], strict=True) if epoch is not None}
        marked = zip(shards, answers[1::2], strict=True)
        listener.shards_seen(epochs, [shard for shard, is_marked in marked if is_marked and shard not in epochs])
