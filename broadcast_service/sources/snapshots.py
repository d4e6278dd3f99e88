"""Reads items, with the recent events that led to their state: from Redis, and from the archive where closed ones have
left Redis."""

from __future__ import annotations

import itertools
import logging
from types import MappingProxyType
from typing import Final, cast

from redis.asyncio import Redis

from broadcast_service.core.feed import Recovery, Wanted
from broadcast_service.sources.left_items import LeftItems
from broadcast_service.sources.losses import Losses
from shared import names
from shared.messages import DecodeError, Event, UnknownEvent, decode_event
from shared.redis_layout.cursors import ask_epoch, read_epoch
from shared.redis_layout.item_hash import ItemState, decode_item
from shared.redis_layout.keys import item_key, recent_key

logger = logging.getLogger(__name__)

NOTHING_WANTED: Final[Wanted] = MappingProxyType({})
_SLACK_EVENTS: Final = 64
"""Events that may be decided between the two reads below without pushing a wanted event out of the range."""


class SnapshotReader:
    """``read`` asks Redis. ``read_left`` asks the archive for what Redis does not have; it is a call of its own because
    the archive may be slow.

    Args:
    events_max: most events of one recovery.
    losses: tells lost items from those that never existed.
    left: tells of closed items that have left Redis.
    """

    def __init__(self, redis: Redis, losses: Losses, left: LeftItems, *, events_max: int) -> None:
        self._redis = redis
        self._losses = losses
        self._left = left
        self._events_max = events_max

    async def read(self, item_id: str, wanted: Wanted = NOTHING_WANTED) -> Recovery | None:
        """The item as Redis has it, and the wanted events of its epoch, at most the last ``events_max``.

        Two reads, not one transaction: mostly the item says that there is nothing to replay, and the list is long.
        Events decided between the two reads are newer than the item and come from the stream.

        Returns:
            None where Redis does not have the item, or its shard is closed.

        Raises:
            redis.RedisError, OSError, TimeoutError: Redis could not be asked.
            KeyError, ValueError: the hash was not written by this platform.
        """
        pipeline = self._redis.pipeline()
        pipeline.hgetall(item_key(item_id))
        ask_epoch(pipeline, names.shard_of(item_id))
        fields, epoch = await pipeline.execute()
        if epoch is None:
            # A closed shard is an older copy, or half rebuilt: viewers may have seen newer states.
            return None
        if not fields:
            return None
        item = decode_item(fields)
        behind = self._behind(wanted, item)
        if behind <= 0:
            return Recovery(item)
        pipeline = self._redis.pipeline()
        pipeline.lrange(recent_key(item_id), 0, behind + _SLACK_EVENTS - 1)
        pipeline.exists(item_key(item_id))
        newest_first, is_there = await pipeline.execute()
        if not is_there:
            # 1. The item is read. 2. It leaves Redis, and its events with it.
            return None
        return Recovery(item, tuple(_decode(item, newest_first)))

    def _behind(self, wanted: Wanted, item: ItemState) -> int:
        return min(_events_wanted(wanted, item), self._events_max)

    async def read_left(self, item_id: str, wanted: Wanted = NOTHING_WANTED) -> Recovery | None:
        """The same, for a closed item that has left Redis.

        Returns:
            None if there is no such item, or its shard is closed; then ask :meth:`is_lost`.

        Raises:
            ArchiveAway: nobody can tell now what became of it.
            redis.RedisError, OSError, TimeoutError: Redis could not be asked.
        """
        epoch = await read_epoch(self._redis, names.shard_of(item_id))
        if epoch is None:
            return None
        item = await self._left.find(item_id, epoch)
        if item is None:
            return None
        behind = self._behind(wanted, item)
        newest_first = await self._left.newest_events(item_id, behind) if behind > 0 else []
        known = itertools.takewhile(lambda event: not isinstance(event, UnknownEvent), newest_first)
        return Recovery(item, tuple(cast("list[Event]", list(known)))[::-1])

    async def is_lost(self, item_id: str) -> bool:
        """Whether an item that neither Redis nor the archive has is lost (:class:`Losses`).

        Raises:
            redis.RedisError, OSError, TimeoutError: Redis could not be asked.
        """
        return await self._losses.is_lost(item_id)

    async def is_up(self) -> bool:
        """Whether Redis answers.

        Raises:
            redis.RedisError, OSError, TimeoutError: it does not.
        """
        return bool(await self._redis.ping())


def _events_wanted(wanted: Wanted, item: ItemState) -> int:
    """How many of the item's events are wanted; those of other epochs could not be replayed anyway."""
    known = [wanted[epoch] for epoch in (0, item.state.epoch) if epoch in wanted]
    return item.state.seq - min(known, default=item.state.seq)


def _decode(item: ItemState, newest_first: list[bytes]) -> list[Event]:
    """The events, oldest first, up to the item's own version; only those after the last one that cannot be read."""
    events: list[Event] = []
    for raw in newest_first:
        try:
            event = decode_event(raw)
        except DecodeError as error:
            logger.error("item %s: an event in the recent list cannot be read: %s", item.terms.item_id, error)
            break
        if event.version <= item.version:
            events.append(event)
    events.reverse()
    return events
