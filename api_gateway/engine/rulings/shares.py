"""Bounds the rulings of one seller for all of their items: otherwise one seller could use up the room of all.

Redis keeps no number of rulings per seller. So they are counted, and the count is remembered for a minute. Nothing is
counted while there are fewer rulings in all than one seller may have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from shared.domain.errors import TooManyRulings
from shared.redis_layout.keys import rulings_key
from shared.redis_layout.rulings import RULED_BY_SELLER_MAX

_REMEMBERED_S: Final = 60.0
_SELLERS_MAX: Final = 1_000
_FIELDS_PER_SCAN: Final = 1_000


class SellersShares:
    """Each gateway counts for itself, so two gateways together may let a few more pass."""

    def __init__(
        self, redis: Any, *, seller_max: int = RULED_BY_SELLER_MAX, clock: Callable[[], float] = monotonic
    ) -> None:
        self._redis = redis
        self._seller_max = seller_max
        self._clock = clock
        # By seller: how many rulings there are, and when they were counted.
        self._counted: dict[str, tuple[int, float]] = {}
        self._turn = asyncio.Lock()

    async def check(self, shard: str, field: str, seller_id: str) -> None:
        """
        Raises:
            TooManyRulings: the seller has as many as one may have, and this would be another one.
            RedisError, OSError, TimeoutError: Redis cannot be asked.
        """
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.hlen(rulings_key(shard))
        pipeline.hexists(rulings_key(shard), field)
        rulings, is_there = await pipeline.execute()
        if is_there or rulings < self._seller_max:
            return
        # One count at a time, because a count may read all rulings.
        async with self._turn:
            known = self._counted.pop(seller_id, None)
            if known is None or self._clock() - known[1] > _REMEMBERED_S:
                known = await self._count(shard, seller_id), self._clock()
            self._counted[seller_id] = known
            if len(self._counted) > _SELLERS_MAX:
                del self._counted[next(iter(self._counted))]
        if known[0] >= self._seller_max:
            raise TooManyRulings(self._seller_max)

    def note(self, seller_id: str) -> None:
        """The seller has made another ruling."""
        if (known := self._counted.get(seller_id)) is not None:
            self._counted[seller_id] = known[0] + 1, known[1]

    async def _count(self, shard: str, seller_id: str) -> int:
        # Ids have no character with a special meaning in a pattern of Redis.
        key, pattern, cursor = rulings_key(shard), f"*|{seller_id}", 0
        fields: set[bytes] = set()
        while True:
            cursor, found = await self._redis.hscan(key, cursor, match=pattern, count=_FIELDS_PER_SCAN)
            fields.update(found)
            if not int(cursor):
                return len(fields)
