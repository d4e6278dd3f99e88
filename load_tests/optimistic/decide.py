"""Two ways to decide a bid in Redis without this project's engine, so that only the way differs.

Both do less than the engine: they compare, store the price and count. No increments, no idempotency, no outbox.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.exceptions import WatchError

ATTEMPTS_MAX: Final = 50
"""Tries of one bid, which is then given up. Without a bound, a bidder on a hot item might never be answered."""
_PAUSE_MAX_S: Final = 0.02

_SCRIPT: Final = """
local price = tonumber(redis.call('HGET', KEYS[1], 'price') or '0')
local amount = tonumber(ARGV[2])
if amount <= price then return {0, price, 0} end
local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
redis.call('HSET', KEYS[1], 'price', ARGV[2], 'leader', ARGV[1])
return {1, amount, seq}
"""


@dataclass(frozen=True, slots=True)
class Decision:
    """``price`` in minor units is that after the decision; ``retries`` how often the bid was tried again; ``given_up``
    where it lost every race."""

    accepted: bool
    price: int
    seq: int
    retries: int = 0
    given_up: bool = False


class Decider(Protocol):
    """Decides bids on items, each atomically."""

    async def decide(self, item_id: str, user_id: str, amount: int) -> Decision:
        """Decide one bid of ``amount`` minor units."""


def key_of(item_id: str) -> str:
    """The hash of an item of this gateway; the engine's are elsewhere."""
    return f"optimistic:{item_id}"


class OptimisticDecider:
    """Read under WATCH, then write in MULTI/EXEC; begin anew where somebody else wrote in between."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def decide(self, item_id: str, user_id: str, amount: int) -> Decision:
        """Decide one bid, in as many attempts as that takes, at most 50."""
        key, price = key_of(item_id), 0
        pipe: Any
        async with self._redis.pipeline(transaction=True) as pipe:
            for attempt in range(ATTEMPTS_MAX):
                try:
                    await pipe.watch(key)
                    stored_price, stored_seq = await pipe.hmget(key, ["price", "seq"])
                    price, seq = int(stored_price or 0), int(stored_seq or 0)
                    if amount <= price:
                        await pipe.unwatch()
                        return Decision(False, price, 0, attempt)
                    pipe.multi()
                    pipe.hset(key, mapping={"price": amount, "seq": seq + 1, "leader": user_id})
                    await pipe.execute()
                    return Decision(True, amount, seq + 1, attempt)
                except WatchError:
                    await asyncio.sleep(random.random() * _PAUSE_MAX_S * attempt / ATTEMPTS_MAX)
        return Decision(False, price, 0, ATTEMPTS_MAX, given_up=True)


class ScriptDecider:
    """One script call per bid, as tutorials have it."""

    def __init__(self, redis: Redis) -> None:
        self._script = redis.register_script(_SCRIPT)

    async def decide(self, item_id: str, user_id: str, amount: int) -> Decision:
        """Decide one bid."""
        accepted, price, seq = await self._script(keys=[key_of(item_id)], args=[user_id, amount])
        return Decision(bool(accepted), int(price), int(seq))
