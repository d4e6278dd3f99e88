"""Tells whether an item that Redis does not have is lost, and so will come back, or never existed.

It is asked about items that are not closed ones of the archive either. A broadcaster asks the archive about no other
items. So this looks for other traces of the item in Redis: its shard's cursors, its other keys, and the note of a
gateway that has found it lost. Then it asks the stream, which has the items of the last days.

Requests for items that never existed must not overload the stream: it is asked a few questions at a time, negative
answers are kept for a while, and a slow stream is not asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from nats.errors import Error as NatsError
from redis.asyncio import Redis

from shared import names
from shared.redis_layout.cursors import ask_epoch
from shared.redis_layout.keys import bidders_key, item_key, lost_key, proxies_key, recent_key

ASKING_MAX: Final = 4
KEPT_S: Final = 5.0
"""How long a "no" of the stream is kept, and how long a stream that did not answer is not asked."""
KEPT_MAX: Final = 10_000


class Losses:
    """Args:
    has_message: whether the newest message of a subject in the stream is of this epoch of its shard or a later one;
        raises an error of NATS, OSError or TimeoutError. A message of a former epoch does not count: most likely it
        was published after its shard was rebuilt, so its item does not exist.
    """

    def __init__(self, redis: Redis, has_message: Callable[[str, int], Awaitable[bool]]) -> None:
        self._redis = redis
        self._has_message = has_message
        self._asking = asyncio.Semaphore(ASKING_MAX)
        # Item id to when its "no" expires. In order of insertion, so the oldest is first.
        self._unknown: dict[str, float] = {}
        self._silent_until_s = 0.0

    async def is_lost(self, item_id: str) -> bool:
        """Whether the item, which Redis does not have, is lost; False if that is unknown.

        Raises:
            redis.RedisError, OSError, TimeoutError: Redis could not be asked.
        """
        shard = names.shard_of(item_id)
        pipeline = self._redis.pipeline(transaction=False)
        ask_epoch(pipeline, shard)
        pipeline.sismember(lost_key(shard), item_id)
        pipeline.exists(recent_key(item_id), bidders_key(item_id), proxies_key(item_id))
        pipeline.exists(item_key(item_id))
        epoch, is_noted, other_keys, is_there = await pipeline.execute()
        if epoch is None:
            return True
        if is_there:
            return False  # opened in between
        return bool(is_noted or other_keys) or await self._is_in_stream(item_id, int(epoch))

    async def _is_in_stream(self, item_id: str, epoch: int) -> bool:
        clock = asyncio.get_running_loop().time
        if self._unknown.get(item_id, 0.0) > clock() or self._silent_until_s > clock():
            return False
        async with self._asking:
            if self._silent_until_s > clock():
                return False
            try:
                found = await self._has_message(names.subject_of(item_id), epoch)
            except (NatsError, OSError, TimeoutError):
                self._silent_until_s = clock() + KEPT_S
                return False
        self._unknown.pop(item_id, None)
        if not found:
            self._unknown[item_id] = clock() + KEPT_S
            if len(self._unknown) > KEPT_MAX:
                del self._unknown[next(iter(self._unknown))]
        return found
