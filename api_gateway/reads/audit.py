"""What was done to an item, and ruled on its bidders: the archive joined with what is not archived yet.

So whoever has just done something finds it here, also while the archive lags.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from api_gateway.reads.archive import Archive
from shared import names
from shared.archive_reads.retired import Retired
from shared.domain.errors import Unavailable
from shared.messages import (
    AnyEvent,
    AuctionCancelled,
    AuctionPaused,
    AuctionResumed,
    BidVoided,
    EndMoved,
    decode_any_event,
)
from shared.redis_layout.keys import item_key
from shared.redis_layout.outbox import Entry, read_pages_back

Row = Mapping[str, Any]
"""An operation or a ruling, with the columns of the archive (:class:`Archive`)."""

ENTRIES_MAX: Final = 8_192
"""The most entries of the outbox that one reading looks at. It has more only if the archive lags far behind, and then
every reading would cost Redis megabytes, and the gateway the time of hundreds of bids."""

_DONE: Final = (AuctionPaused, AuctionResumed, EndMoved, AuctionCancelled, BidVoided)


class _Ruling(msgspec.Struct):
    """What an entry tells of a ruling on an item, as far as it is shown; a limit in minor units."""

    ts_us: int
    user_id: str
    ruling: str
    limit: int | None
    reason: str
    by: str
    seller_id: str | None = None


_events: Final = msgspec.json.Decoder(list[msgspec.Raw])
_rulings: Final = msgspec.json.Decoder(list[_Ruling])


@dataclass(frozen=True, slots=True)
class Page:
    """Newest first. ``partial`` says that something may be missing: Redis or the archive could not be asked, too much
    waits for the archive, or what waits cannot be read. ``retired``: where the log of the item is, if not in the
    archive."""

    operations: list[Row]
    rulings: list[Row]
    partial: bool
    retired: Retired | None


class Audit:
    """Reads audits; never tells anything twice."""

    def __init__(self, redis: Redis, archive: Archive) -> None:
        self._redis = redis
        self._archive = archive

    async def page(self, item_id: str, limit: int) -> Page:
        """At most ``limit`` operations and ``limit`` rulings.

        Raises:
            Unavailable: neither Redis nor the archive can tell.
        """
        # Redis comes first: an entry leaves the outbox when the archive has it. In the other order, what is archived in
        # between would be in neither.
        done: list[Row] = []
        ruled: list[Row] = []
        retired: Retired | None = None
        lacks_redis = partial = False
        try:
            done, ruled, partial = await self._unarchived(item_id, limit)
        except (RedisError, OSError, TimeoutError):
            lacks_redis = partial = True
        try:
            done = _merged(done, await self._archive.operations(item_id, limit), "epoch", "seq")
            retired = await self._archive.retired(item_id)
            ruled = _merged(ruled, await self._archive.rulings_on_item(item_id, limit), "user_id", "ruling", "at_us")
        except Unavailable:
            if lacks_redis:
                raise
            partial = True
        done.sort(key=lambda row: (row["epoch"], row["seq"]), reverse=True)
        return Page(done[:limit], ruled[:limit], partial, retired)

    async def _unarchived(self, item_id: str, limit: int) -> tuple[list[Row], list[Row], bool]:
        """What the outbox of the item's shard has, newest first, and whether it may have more than this."""
        done: list[Row] = []
        ruled: list[_Ruling] = []
        read, is_partial = 0, False
        async for entries in read_pages_back(self._redis, names.shard_of(item_id)):
            if read >= ENTRIES_MAX:
                is_partial = True
                break
            read += len(entries)
            for entry in entries:
                try:
                    if entry is not None and entry.item_id == item_id:
                        operations = list(_operations_in(entry))
                        ruled.extend(reversed(_rulings.decode(entry.rulings or b"[]")))
                        done.extend(reversed(operations))
                    is_partial |= entry is None
                except msgspec.DecodeError:
                    is_partial = True
            if min(len(done), len(ruled)) >= limit:
                break
        currency = await self._currency(item_id) if ruled else None
        return done, [_ruling_row(ruling, currency) for ruling in ruled], is_partial

    async def _currency(self, item_id: str) -> str | None:
        told = await cast("Awaitable[bytes | None]", self._redis.hget(item_key(item_id), "currency"))
        return None if told is None else told.decode()


def _operations_in(entry: Entry) -> Iterable[Row]:
    for raw in _events.decode(entry.events):
        event: AnyEvent = decode_any_event(bytes(raw))
        if isinstance(event, _DONE):
            yield {
                "epoch": event.epoch,
                "seq": event.seq,
                "type": str(event.__struct_config__.tag),
                "by": event.by,
                "reason": event.reason,
                "bid_id": event.bid_id if isinstance(event, BidVoided) else None,
                "end_us": event.end_us if isinstance(event, EndMoved) else None,
                "at_us": event.ts_us,
            }


def _ruling_row(ruling: _Ruling, currency: str | None) -> Row:
    return {
        "user_id": ruling.user_id,
        "seller_id": ruling.seller_id,
        "ruling": ruling.ruling,
        "reason": ruling.reason,
        "by": ruling.by,
        "currency": currency,
        "amount": ruling.limit if ruling.ruling == "limit" else None,
        "at_us": ruling.ts_us,
    }


def _merged(unarchived: list[Row], archived: Iterable[Any], *key: str) -> list[Row]:
    """Both, each row once: what is still in the outbox is newer than what only the archive has."""
    known = {tuple(row[name] for name in key) for row in unarchived}
    return [*unarchived, *(row for row in archived if tuple(row[name] for name in key) not in known)]
