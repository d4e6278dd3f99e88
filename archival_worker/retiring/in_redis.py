"""Asks Redis whether an item may retire."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from archival_worker.retiring.options import Stays
from shared import names
from shared.redis_layout.cursors import ask_epoch
from shared.redis_layout.keys import closed_key, cursors_key, item_key, lost_key
from shared.redis_layout.scripts import Script

LET_RETIRE: Final = Script.read(Path(__file__).parent / "lua" / "let_retire.lua")

_MAY, _IS_THERE, _CLOSED, _LAGS = 1, 0, 2, 3
_LOOK_AGAIN_S: Final = 0.05


class InRedis:
    """What Redis says of old items."""

    def __init__(self, redis: Redis, *, lag_s: float) -> None:
        """``lag_s``: how long to wait for the archive to catch up with a shard."""
        self._redis: Any = redis
        self._lag_s = lag_s

    async def let_retire(self, item_id: str) -> int | Stays:
        """The epoch of the item's shard, if the item may retire; else why it stays. It may retire if Redis has nothing
        of it, and no gateway that read the archive before this call can write it there any more.

        Raises:
            RedisError, OSError, TimeoutError: Redis cannot be asked.
        """
        shard = names.shard_of(item_id)
        keys = [cursors_key(shard), item_key(item_id), closed_key(shard), lost_key(shard)]
        give_up_s = asyncio.get_running_loop().time() + self._lag_s
        wanted: list[str | int] = ["", ""]
        while True:
            reply, epoch, entry = await LET_RETIRE.run(self._redis, keys, [item_id, *wanted])
            if reply == _MAY:
                return int(epoch)
            if reply == _IS_THERE:
                return Stays.IN_REDIS
            if reply == _CLOSED:
                return Stays.SHARD_CLOSED
            if asyncio.get_running_loop().time() > give_up_s:
                return Stays.LAGS
            wanted = [int(entry), int(epoch)]
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def stays(self, item_ids: Sequence[str]) -> dict[str, Stays]:
        """The items among these that must stay, each with the reason: Redis has them, or cannot say. Changes nothing.

        Raises:
            RedisError, OSError, TimeoutError: Redis cannot be asked.
        """
        pipeline = self._redis.pipeline(transaction=False)
        for item_id in item_ids:
            ask_epoch(pipeline, names.shard_of(item_id))
            pipeline.exists(item_key(item_id))
            pipeline.sismember(lost_key(names.shard_of(item_id)), item_id)
        answers = await pipeline.execute()
        found: dict[str, Stays] = {}
        for item_id, epoch, is_there, is_lost in zip(item_ids, answers[::3], answers[1::3], answers[2::3], strict=True):
            if epoch is None:
                found[item_id] = Stays.SHARD_CLOSED
            elif is_there or is_lost:
                found[item_id] = Stays.IN_REDIS
        return found
