"""Whether an item that Redis does not have was there once: then it is lost, and comes back, and is no stranger.

The broadcaster cannot ask the archive. It asks Redis for what else there would be of the item: its shard's cursors, its
other keys, and the note that a gateway leaves which has asked the archive. Then it asks the stream, which remembers the
items of the last days.

Whoever asks for what never was must not keep the stream busy: a few questions at a time, each answer kept for a while,
and none while the stream is slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from nats.errors import Error as NatsError
from redis.asyncio import Redis

from shared import names
from shared.redis_layout.cursors import ask_epoch

ASKING_MAX: Final = 4
KEPT_S: Final = 5.0
"""How long a "no" of the stream is kept, and how long a stream that did not answer is left alone."""
KEPT_MAX: Final = 10_000


class Losses:
    """Args:
    has_message: whether the newest message under a subject in the stream is of this epoch of its shard or a later
        one; raises an error of NATS, OSError or TimeoutError. One of a former epoch, of an item that is not there
        now, came most likely too late for the rebuilding of its shard, and is of nothing that was ever there.
    """

    def __init__(self, redis: Redis, has_message: Callable[[str, int], Awaitable[bool]]) -> None:
        self._redis = redis
        self._has_message = has_message
        self._asking = asyncio.Semaphore(ASKING_MAX)
        # Item id to when its "no" is too old. A dict keeps the order in which they came, which is that of their ages.
        self._strangers: dict[str, float] = {}
        self._silent_until_s = 0.0

    async def is_lost(self, item_id: str) -> bool:
        """Whether the item, which Redis does not have, is known; False where nobody can tell.

        Raises:
            redis.RedisError, OSError, TimeoutError: Redis could not be asked.
        """
        shard = names.shard_of(item_id)
        pipeline = self._redis.pipeline(transaction=False)
        ask_epoch(pipeline, shard)
        pipeline.sismember(names.lost_key(shard), item_id)
        pipeline.exists(names.recent_key(item_id), names.bidders_key(item_id), names.proxies_key(item_id))
        pipeline.exists(names.item_key(item_id))
        epoch, is_noted, other_keys, is_there = await pipeline.execute()
        if epoch is None:
            return True
        if is_there:
            return False  # opened in between
        return bool(is_noted or other_keys) or await self._is_in_stream(item_id, int(epoch))

    async def _is_in_stream(self, item_id: str, epoch: int) -> bool:
        clock = asyncio.get_running_loop().time
        if self._strangers.get(item_id, 0.0) > clock() or self._silent_until_s > clock():
            return False
        async with self._asking:
            if self._silent_until_s > clock():
                return False
            try:
                found = await self._has_message(names.subject_of(item_id), epoch)
            except (NatsError, OSError, TimeoutError):
                self._silent_until_s = clock() + KEPT_S
                return False
        self._strangers.pop(item_id, None)
        if not found:
            self._strangers[item_id] = clock() + KEPT_S
            if len(self._strangers) > KEPT_MAX:
                del self._strangers[next(iter(self._strangers))]
        return found
