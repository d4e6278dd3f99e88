"""Items as Redis has them now, with the recent events that lead there."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import Final, cast

from redis.asyncio import Redis

from broadcast_service.feed import Recovery
from broadcast_service.frames import Version
from shared import names
from shared.item_state import ItemState, decode_item
from shared.messages import DecodeError, Event, decode_event

logger = logging.getLogger(__name__)

_SLACK_EVENTS: Final = 64
"""Events that may be decided between the two reads below without pushing a wanted one out of the range."""


class SnapshotReader:
    """Reads only; may be repeated at will.

    Args:
        events_max: how many events a recovery may carry.
    """

    def __init__(self, redis: Redis, *, events_max: int) -> None:
        self._redis = redis
        self._events_max = events_max

    async def read(self, item_id: str, since: Version | None) -> Recovery | None:
        """The item, and the events of its epoch after ``since``, at most the last ``events_max``.

        Two reads, not one transaction: most of the time the item says that there is nothing to replay, and the list is
        long. Events that were decided between the two are newer than the item and left to the stream.

        Returns:
            None where the item does not exist.

        Raises:
            redis.RedisError, OSError, TimeoutError: Redis could not be asked.
            KeyError, ValueError: the hash was not written by this platform.
        """
        fields = await cast(Awaitable[dict[bytes, bytes]], self._redis.hgetall(names.item_key(item_id)))
        if not fields:
            return None
        item = decode_item(fields)
        behind = min(_events_between(since, item), self._events_max)
        if behind <= 0:
            return Recovery(item)
        newest_first = await cast(
            Awaitable[list[bytes]],
            self._redis.lrange(names.recent_key(item_id), 0, behind + _SLACK_EVENTS - 1),
        )
        return Recovery(item, tuple(_decode(item, newest_first)))

    async def is_up(self) -> bool:
        """Whether Redis answers."""
        return bool(await self._redis.ping())


def _events_between(since: Version | None, item: ItemState) -> int:
    """How many events a viewer at ``since`` has not seen; 0 where they could not be replayed anyway.

    Epoch 0 stands for an item that did not exist: everything is missing, from ``created`` on.
    """
    if since is None or since[0] not in (0, item.state.epoch):
        return 0
    return item.state.seq - since[1]


def _decode(item: ItemState, newest_first: list[bytes]) -> list[Event]:
    """Oldest first, up to the item's own version.

    Ends before an event that cannot be read: what follows it has a gap.
    """
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
