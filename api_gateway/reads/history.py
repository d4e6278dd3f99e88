"""An item's bids, newest first: the archive joined with what is not archived yet.

The archive lags by milliseconds, or by hours where PostgreSQL is away. The latest events stand next to the item in
Redis (bounded), and everything that is not archived stands in the shard's outbox; so the three together have no hole.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import cast

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from api_gateway.reads.archive import Archive
from shared import names
from shared.archive_reads.history import ArchivedBid, cut, parse_cursor
from shared.domain.errors import Unavailable
from shared.domain.voiding import Row, fate_of
from shared.messages import AnyEvent, BidAccepted, BidVoided, decode_any_event
from shared.redis_layout.keys import recent_key
from shared.redis_layout.outbox import read_pages

logger = logging.getLogger(__name__)

_events_decoder = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Page:
    """``partial`` says that the archive could not be asked, so older bids may exist that are not shown."""

    bids: list[ArchivedBid]
    next_cursor: str | None
    partial: bool


class History:
    """Reads histories; never shows a bid twice, never leaves one out between two that it shows."""

    def __init__(self, redis: Redis, archive: Archive) -> None:
        self._redis = redis
        self._archive = archive

    async def page(self, item_id: str, *, cursor: str | None, limit: int) -> Page:
        """One page of at most ``limit`` bids.

        Raises:
            InvalidInput: the cursor is malformed.
            Unavailable: neither Redis nor the archive can tell.
        """
        before = parse_cursor(cursor) if cursor else None
        partial = False
        try:
            # The version comes first: then the bids are at least as new, and Redis is asked for what follows the
            # version. In the other order, what is archived in between would be in neither.
            version = await self._archive.version(item_id)
            archived = await self._archive.bids(item_id, before=before, limit=limit + 1)
        except Unavailable:
            archived, version, partial = [], None, True
        try:
            unarchived = await self._unarchived(item_id, version)
        except (RedisError, OSError, TimeoutError) as error:
            if partial:
                raise Unavailable("neither Redis nor the archive can be asked") from error
            unarchived, partial = [], True
        newest_first = [bid for bid in _merged(archived, unarchived) if before is None or (bid.epoch, bid.seq) < before]
        return Page(*cut(newest_first, limit), partial)

    async def _unarchived(self, item_id: str, version: tuple[int, int] | None) -> list[AnyEvent]:
        """The item's events from the last archived one on, and maybe some before it."""
        raw = await cast("Awaitable[list[bytes]]", self._redis.lrange(recent_key(item_id), 0, -1))
        events = [decode_any_event(event) for event in raw]
        if events and version is not None:
            oldest = events[-1]
            # Also where it is of an earlier epoch: a rebuilt item keeps its seq, so the list has no hole.
            if oldest.version <= (version[0], version[1] + 1):
                return events
        elif not events or events[-1].seq == 0:
            return events
        return [*events, *await self._outbox(item_id)]

    async def _outbox(self, item_id: str) -> list[AnyEvent]:
        """The item's events in its shard's outbox; read only while the archive lags far behind."""
        found: list[AnyEvent] = []
        async for entries in read_pages(self._redis, names.shard_of(item_id)):
            for entry in entries:
                if entry.item_id == item_id:
                    found.extend(decode_any_event(bytes(raw)) for raw in _events_decoder.decode(entry.events))
        return found


def _merged(archived: list[ArchivedBid], events: list[AnyEvent]) -> list[ArchivedBid]:
    """Archive and events as one list, newest first, each bid once; struck where either of them says so."""
    merged = {(bid.epoch, bid.seq): bid for bid in archived}
    voids: list[BidVoided] = []
    for event in events:
        if isinstance(event, BidAccepted):
            merged.setdefault(
                event.version,
                ArchivedBid(
                    event.epoch,
                    event.seq,
                    event.bid_id,
                    event.user_id,
                    event.amount,
                    event.kind,
                    event.ts_us,
                    event.highest_bidder_id or event.user_id,
                    False,
                ),
            )
        elif isinstance(event, BidVoided):
            voids.append(event)
    return [_as_struck(bid, voids) for _, bid in sorted(merged.items(), reverse=True)]


def _as_struck(bid: ArchivedBid, voids: list[BidVoided]) -> ArchivedBid:
    row = Row(bid.bid_id, bid.user_id, bid.seq, bid.amount, is_automatic=bid.kind == "proxy")
    fates = {fate_of(void, row) for void in voids if bid.epoch <= void.epoch}
    voided = bid.voided or "voided" in fates
    return replace(bid, voided=voided, repriced=not voided and (bid.repriced or "repriced" in fates))
