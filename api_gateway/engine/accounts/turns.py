"""Whose turn it is at a bidder's account: that of a void, before bids.

A bid that is refused for want of credit has had all shards give back what they do not use, and with it what a void has
just got into its shard. With several gateways that could go on for as long as the bidder bids. So a void whose credit
was taken once takes its turn, which all gateways see, and bids of that bidder seek no credit until it is over.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.clients.redis import told_of
from shared.domain.errors import Unavailable
from shared.redis_layout.keys import turn_key

TURN_S: Final = 10.0
"""How long a turn lasts at most: that of a gateway that dies ends so."""
WAIT_S: Final = 12.0
"""How long a void waits for the turn of another one: longer than that can last."""
_LOOK_AGAIN_S: Final = 0.05
_SURE: Final = 0.5
"""Of a turn: who gives it back later than that lets it end by itself. It may be the turn of the next one when Redis
gets that."""


class VoidTurns:
    """The turns of this gateway's voids."""

    def __init__(self, redis: Redis, *, turn_s: float = TURN_S, wait_s: float = WAIT_S) -> None:
        self._redis: Any = redis
        self._turn_s = turn_s
        self._wait_s = wait_s

    @asynccontextmanager
    async def turn_of(self, user_id: str, currency: str) -> AsyncIterator[float]:
        """Take the turn, once no other void has it. Gives the time of the event loop until which it surely lasts.

        Raises:
            Unavailable: another one has it for too long, or Redis cannot be asked.
        """
        clock = asyncio.get_running_loop().time
        key, began_s = turn_key(user_id, currency), clock()
        while not await self._take(key):
            if clock() - began_s >= self._wait_s:
                raise Unavailable("another bid is being struck that needs the credit of the same bidder; try again")
            await asyncio.sleep(_LOOK_AGAIN_S)
        sure_until_s = clock() + _SURE * self._turn_s
        try:
            yield sure_until_s
        finally:
            if clock() < sure_until_s:
                # It ends by itself where that is lost.
                with suppress(RedisError, OSError, TimeoutError):
                    await self._redis.delete(key)

    async def _take(self, key: str) -> bool:
        try:
            return bool(await self._redis.set(key, secrets.token_hex(8), nx=True, px=max(1, int(self._turn_s * 1000))))
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(f"Redis cannot be asked: {told_of(error)}") from error
