"""What Redis knows of single bidders: whether they bid on an item, and their own standing maximum."""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from typing import Final, cast

import msgspec
from redis.asyncio import Redis

from broadcast_service.standings import Facts
from shared import names


class _Bid(msgspec.Struct):
    """Of an event no more than this: who bid."""

    type: str
    user_id: str = ""


_decoder: Final = msgspec.json.Decoder(_Bid)


class BidderReader:
    """Reads only; may be repeated at will."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def read(self, item_id: str, users: Collection[str], settled: Collection[str]) -> dict[str, Facts]:
        """The facts of each of these users.

        A maximum tells by itself that its owner bid. Who bid without one is looked for among the item's recent events:
        bids that are longer ago than those are not found.

        Args:
            settled: users of whom it is known whether they bid; for them the maximum is enough, and a False says
                nothing.

        Raises:
            redis.RedisError, OSError, TimeoutError: Redis could not be asked.
        """
        asked = sorted(users)
        maxima = await cast(Awaitable[list[bytes | None]], self._redis.hmget(names.proxies_key(item_id), asked))
        facts = {user_id: Facts(text is not None, _minor(text)) for user_id, text in zip(asked, maxima, strict=True)}
        rest = {user_id for user_id, known in facts.items() if not known.has_bid and user_id not in settled}
        if rest:
            for user_id in rest & await self._recent_bidders(item_id):
                facts[user_id] = Facts(True)
        return facts

    async def _recent_bidders(self, item_id: str) -> set[str]:
        events = await cast(Awaitable[list[bytes]], self._redis.lrange(names.recent_key(item_id), 0, -1))
        found: set[str] = set()
        for raw in events:
            try:
                event = _decoder.decode(raw)
            except msgspec.DecodeError:
                continue
            if event.type == "bid":
                found.add(event.user_id)
        return found


def _minor(text: bytes | None) -> int | None:
    return None if text is None else int(text)
