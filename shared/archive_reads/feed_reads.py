"""What the live feed needs of a closed item beside its state: its newest events, and how its bidders stand."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from shared.archive_reads.asking import Asking
from shared.archive_reads.events import recent_events
from shared.archive_reads.origin import closed_items
from shared.archive_reads.statements import statements
from shared.messages import AnyEvent, BidVoided, decode_any_event
from shared.redis_layout.limits import RECENT_EVENTS

_SQL: Final = statements("feed")
_READ_LOG: Final = statements("rebuild")["read_log"]


class FeedReads:
    """Reads only; may be repeated at will. The bounds are those of ``asking``."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    async def newest_events(self, item_id: str, count: int) -> list[AnyEvent]:
        """The newest events of a closed item as they were on the wire, newest first, at most as many as Redis keeps.
        None of an item that is not closed.

        Raises:
            Unavailable: PostgreSQL cannot be asked.
        """
        # With the reserve, which other copies of the item lack: events say whether it was met.
        item = (await closed_items(self._asking.fetch, [item_id])).get(item_id)
        if item is None:
            return []
        rows: list[Any] = await self._asking.fetch(_READ_LOG, [item_id], min(count, RECENT_EVENTS))
        return recent_events(item.terms, item.state.bid_count, item.state.end_us, rows)

    async def bidders(self, item_id: str, users: Collection[str]) -> set[str]:
        """Those of these users who have an accepted bid that stands.

        Raises:
            Unavailable: PostgreSQL cannot be asked.
        """
        rows = await self._asking.fetch(_SQL["read_standing_bidders"], item_id, list(users))
        return {row["user_id"] for row in rows}

    async def voids(self, item_id: str) -> list[BidVoided]:
        """The item's newest voids, oldest first, at most as many as Redis keeps events.

        Raises:
            Unavailable: PostgreSQL cannot be asked.
        """
        rows = await self._asking.fetch(_SQL["read_voids"], item_id, RECENT_EVENTS)
        events = [decode_any_event(row["body"].encode()) for row in rows]
        return [event for event in events if isinstance(event, BidVoided)]
