"""What Redis knows of single bidders: whether a bid of theirs stands on an item, and their own standing maximum."""

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

    async def read(self, item_id: str, users: Collection[str]) -> dict[str, Facts]:
        """The facts of each of these users, of one moment.

        On an item that was bid on before there was a count of bids by bidder, who is not in it is looked for among the
        recent events: bids that are longer ago than those are not found, and those that were struck are.

        Raises:
            redis.RedisError, OSError, TimeoutError: Redis could not be asked.
        """
        asked = sorted(users)
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hmget(names.proxies_key(item_id), asked)
        pipeline.hmget(names.bidders_key(item_id), asked)
        pipeline.hmget(names.item_key(item_id), ["bid_count", "bids_counted"])
        maxima, bids, (bid_count, bids_counted) = await pipeline.execute()
        facts = {
            user_id: Facts(maximum is not None or count is not None, _minor(maximum))
            for user_id, maximum, count in zip(asked, maxima, bids, strict=True)
        }
        rest = {user_id for user_id, known in facts.items() if not known.has_bid}
        if rest and bid_count != bids_counted:
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
