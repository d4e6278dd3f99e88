"""What is known of single bidders: whether a bid of theirs stands on an item, their own standing maximum, and which of
their bids were struck. This comes from Redis, or from the archive, without the maximum, for closed items that have left
Redis."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Final, cast

import msgspec
from redis.asyncio import Redis

from broadcast_service.core.standings import Facts, Struck
from broadcast_service.sources.left_items import LeftItems
from shared import names
from shared.messages import BidVoided, DecodeError, decode_event
from shared.redis_layout.cursors import ask_is_open
from shared.redis_layout.keys import bidders_key, item_key, lost_key, proxies_key, recent_key


class _Bid(msgspec.Struct):
    """The only field of an event that is needed here: who bid."""

    type: str
    user_id: str = ""


_decoder: Final = msgspec.json.Decoder(_Bid)
_VOIDED: Final = b'{"type":"voided"'

STRUCK_MAX: Final = 16
"""How many struck bids of one bidder on one item are told at most: the newest ones."""

ITEMS_MAX: Final = 1_000
"""Items whose struck bids are remembered."""


class ShardClosed(OSError):
    """What Redis has of the item is an older copy, half rebuilt, or nothing: how bidders stand cannot be read now."""

    def __init__(self, shard: str) -> None:
        super().__init__(f"shard {shard} is being rebuilt")


class ItemLost(OSError):
    """Redis has lost the item: how bidders stand on it cannot be read before it is rebuilt."""


class _HasLeft(Exception):
    """The item has left Redis since it was read."""


class BidderReader:
    """Reads only; may be repeated at will."""

    def __init__(self, redis: Redis, left: LeftItems) -> None:
        self._redis = redis
        self._left = left
        # By item: the epoch and the number of voids at which its events were searched, and what was found. Bounded.
        self._struck: dict[str, tuple[tuple[bytes | None, bytes], dict[str, tuple[Struck, ...]]]] = {}

    async def read(self, item_id: str, users: Collection[str]) -> dict[str, Facts]:
        """The facts of each of these users at one moment; struck bids as far as the item's recent events tell them.

        Older versions did not count bids by bidder. On an item with such bids, a bidder who is not in the count is
        looked up among the recent events: older bids are not found then, and struck ones count.

        Raises:
            ShardClosed, ItemLost: the item's shard is lost or closed, or Redis has lost the item.
            ArchiveAway: Redis does not have the item, and the archive cannot be asked.
            redis.RedisError, OSError, TimeoutError: Redis could not be asked.
        """
        asked = sorted(users)
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hmget(proxies_key(item_id), asked)
        pipeline.hmget(bidders_key(item_id), asked)
        pipeline.hmget(item_key(item_id), ["bids_counted", "accepted", "voids", "bid_count", "epoch"])
        ask_is_open(pipeline, names.shard_of(item_id))
        pipeline.sismember(lost_key(names.shard_of(item_id)), item_id)
        maxima, bids, (bids_counted, accepted, voids, bid_count, epoch), is_open, is_lost = await pipeline.execute()
        if not is_open:
            raise ShardClosed(names.shard_of(item_id))
        if epoch is None:
            return await self._read_left(item_id, asked, is_lost=is_lost)
        try:
            struck = await self._struck_bids(item_id, epoch, voids)
        except _HasLeft:
            return await self._read_left(item_id, asked)
        facts = {
            user_id: Facts(maximum is not None or count is not None, _minor(maximum), struck.get(user_id, ()))
            for user_id, maximum, count in zip(asked, maxima, bids, strict=True)
        }
        rest = {user_id for user_id, known in facts.items() if not known.has_bid}
        standing = int(bid_count or 0) if accepted is None else int(accepted) - int(voids or 0)
        if rest and standing != int(bids_counted or 0):
            try:
                found = await self._recent_bidders(item_id)
            except _HasLeft:
                return await self._read_left(item_id, asked)
            for user_id in rest & found:
                facts[user_id] = replace(facts[user_id], has_bid=True, maximum=None)
        return facts

    async def _struck_bids(
        self, item_id: str, epoch: bytes | None, voids: bytes | None
    ) -> dict[str, tuple[Struck, ...]]:
        """Struck bids by bidder. The events are searched once after each void, not for each read."""
        if not voids or voids == b"0":
            return {}
        known = self._struck.get(item_id)
        if known is not None and known[0] == (epoch, voids):
            return known[1]
        events = await self._recent(item_id)
        found = _struck_by(event for raw in reversed(events) if (event := _void_of(raw)) is not None)
        while len(self._struck) >= ITEMS_MAX:
            self._struck.pop(next(iter(self._struck)))
        self._struck[item_id] = ((epoch, voids), found)
        return found

    async def _read_left(self, item_id: str, users: list[str], *, is_lost: bool = False) -> dict[str, Facts]:
        """The facts of an item that Redis does not have; ``is_lost``: somebody has found that it is lost."""
        found = await self._left.standings(item_id, users)
        if found is None and is_lost:
            raise ItemLost(f"item {item_id} is being rebuilt")
        if found is None:
            return dict.fromkeys(users, Facts(False, None, ()))  # it never was
        struck = _struck_by(found.voids)
        return {user_id: Facts(user_id in found.bidders, None, struck.get(user_id, ())) for user_id in users}

    async def _recent(self, item_id: str) -> list[bytes]:
        """The item's recent events.

        Raises:
            ShardClosed, _HasLeft: the events have gone since the item was read, or may have. An empty list would be
                remembered as "no struck bids", even after the rebuilding.
        """
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.lrange(recent_key(item_id), 0, -1)
        ask_is_open(pipeline, names.shard_of(item_id))
        pipeline.exists(item_key(item_id))
        events, is_open, is_there = await pipeline.execute()
        if not is_open:
            raise ShardClosed(names.shard_of(item_id))
        if not is_there:
            raise _HasLeft
        return cast("list[bytes]", events)

    async def _recent_bidders(self, item_id: str) -> set[str]:
        found: set[str] = set()
        for raw in await self._recent(item_id):
            try:
                event = _decoder.decode(raw)
            except msgspec.DecodeError:
                continue
            if event.type == "bid":
                found.add(event.user_id)
        return found


def _struck_by(voids: Iterable[BidVoided]) -> dict[str, tuple[Struck, ...]]:
    """The newest struck bids by bidder, out of voids that come oldest first."""
    found: dict[str, tuple[Struck, ...]] = {}
    for event in voids:
        if event.bidder_id is not None:
            struck = Struck(event.version, event.bid_id, event.amount, event.reason, event.ts_us, event.currency)
            found[event.bidder_id] = (*found.get(event.bidder_id, ()), struck)[-STRUCK_MAX:]
    return found


def _void_of(raw: bytes) -> BidVoided | None:
    if not raw.startswith(_VOIDED):
        return None
    try:
        event = decode_event(raw)
    except DecodeError:
        return None
    return event if isinstance(event, BidVoided) else None


def _minor(text: bytes | None) -> int | None:
    return None if text is None else int(text)
