"""Answers about what belongs to the caller."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from api_gateway.contract.schemas import Count, Instant, ItemId


class WatchedItem(msgspec.Struct):
    """An item on a watch list."""

    item_id: ItemId
    since: Annotated[Instant, Meta(description="When it was put on the list.")]


class WatchListAnswer(msgspec.Struct):
    """The whole list, what was added last first. An item leaves it 30 days after it is over."""

    items: list[WatchedItem]
    items_max: Annotated[Count, Meta(description="How many a list may have.")]


class WatchedAnswer(msgspec.Struct):
    """Whether an item is on the list now."""

    item_id: ItemId
    watched: bool


class BidOnItem(msgspec.Struct):
    """An item on which the caller has bid."""

    item_id: ItemId
    first_bid_at: Annotated[Instant, Meta(description="When the caller's first bid on it was accepted.")]


class OwnBidsPage(msgspec.Struct):
    """Items on which the caller has bid, the newest first; `next_cursor` is null on the last page."""

    items: list[BidOnItem]
    next_cursor: str | None
