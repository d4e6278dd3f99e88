"""Whose turn it is at a bidder's account: that of a void, before bids.

Before a bid is refused for lack of credit, all shards give back the credit that they do not use. That includes the
credit that a void has just moved to its shard. With several gateways this could go on for as long as the bidder bids.
So a void whose credit was taken once takes a turn, which all gateways see. Until the turn is over, no bid of that
bidder seeks credit.
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
"""The longest turn. If a gateway dies, its turn ends after this time."""
WAIT_S: Final = 12.0
"""How long a void waits while another one has its turn. No turn lasts as long."""
_LOOK_AGAIN_S: Final = 0.05
_SURE: Final = 0.5
"""A turn is given back only in this part of its time; later it ends by itself. Otherwise the command could reach Redis
when the next void has its turn."""


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
