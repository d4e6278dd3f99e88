"""On which items somebody has bid, out of the archive: seconds behind the bids, and for good."""

from __future__ import annotations

from typing import Final, NamedTuple

import asyncpg

from api_gateway.own.watch_lists import SQL
from shared.archive_reads.asking import Asking
from shared.archive_reads.catalogue import cursor_in, cursor_of
from shared.domain.errors import InvalidInput

_ORDER: Final = "first bid"
"""What cursors of these pages say that they belong to."""


class BidOn(NamedTuple):
    """An item on which somebody has bid, and when for the first time (microseconds since 1970)."""

    item_id: str
    at_us: int


class BidOnPage(NamedTuple):
    """Items by the first bid, the newest first, and the cursor of the next page; None where there is none."""

    items: list[BidOn]
    next_cursor: str | None


async def bid_on(asking: Asking, user_id: str, *, cursor: str | None, limit: int) -> BidOnPage:
    """One page.

    Raises:
        InvalidInput: the cursor is not one that this list gave out.
        Unavailable: PostgreSQL cannot be asked.
    """
    try:
        if cursor is None:
            rows = await asking.fetch(SQL["read_bid_on"], user_id, limit + 1)
        else:
            place, item_id = cursor_in(cursor, _ORDER)
            rows = await asking.fetch(SQL["read_bid_on_after"], user_id, limit + 1, place, item_id)
    except asyncpg.DataError:
        raise InvalidInput("cursor: use the next_cursor of the page before, unchanged") from None
    page = rows[:limit]
    next_cursor = cursor_of(_ORDER, page[-1]["place"], page[-1]["item_id"]) if len(rows) > limit else None
    return BidOnPage([BidOn(row["item_id"], row["at_us"]) for row in page], next_cursor)
