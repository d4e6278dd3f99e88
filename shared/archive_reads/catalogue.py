"""Pages of the catalogue: ids of items in an order, by keyset cursors."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final, Literal, NamedTuple, Protocol

import asyncpg
import msgspec

from shared.domain.errors import InvalidInput

Sort = Literal["newest", "ending", "price"]

# Keyset paging: each sort has its order, the value that goes into the cursor, and what comes after a cursor ($2, $3).
# An item without an end sorts last by end, so its place in the cursor is null.
_SORTS: Final[dict[str, tuple[str, str, str]]] = {
    "newest": ("created_at DESC, item_id DESC", "created_at", "(created_at, item_id) < ($2::timestamptz, $3)"),
    "ending": (
        "end_at, item_id",
        "end_at",
        "(end_at, item_id) > ($2::timestamptz, $3) OR end_at IS NULL AND ($2 IS NOT NULL OR item_id > $3)",
    ),
    "price": ("current_bid DESC, item_id DESC", "current_bid", "(current_bid, item_id) < ($2::bigint, $3)"),
}


class Asks(Protocol):
    """:class:`shared.archive_reads.asking.Asking`, whose errors it shares."""

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]: ...


class CataloguePage(NamedTuple):
    """Ids of items in order, and the cursor of the next page; None where there is none."""

    ids: list[str]
    next_cursor: str | None


async def catalogue_page(
    asking: Asks, *, status: str | None, sort: Sort, cursor: str | None, limit: int
) -> CataloguePage:
    """One page.

    Raises:
        InvalidInput: the cursor is not one that this list gave out.
        Unavailable: PostgreSQL cannot be asked.
    """
    order, place, beyond = _SORTS[sort]
    after_place, after_id = _decode_cursor(cursor, sort) if cursor else (None, None)
    # Rows without created_at are items whose `created` event is still on its way.
    try:
        rows = await asking.fetch(
            f"""
            SELECT item_id, {place}::text AS place FROM items
            WHERE created_at IS NOT NULL AND ($1::text IS NULL OR status = $1)
              AND ($3::text IS NULL OR {beyond.replace("$2", "$2::text")})
            ORDER BY {order}
            LIMIT $4
            """,
            status,
            after_place,
            after_id,
            limit + 1,
        )
    except asyncpg.DataError:
        # It looks like a place, but is none: the 32nd of a month, say.
        raise InvalidInput("cursor: use the next_cursor of the page before, unchanged") from None
    page = rows[:limit]
    more = len(rows) > limit
    next_cursor = _encode_cursor(sort, page[-1]["place"], page[-1]["item_id"]) if more else None
    return CataloguePage([row["item_id"] for row in page], next_cursor)


def _encode_cursor(sort: str, place: str | None, item_id: str) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode((sort, place, item_id))).decode().rstrip("=")


_NUMBER: Final = re.compile(r"\d{1,19}\Z")
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?[+-]\d\d(:\d\d)?\Z")
_cursor_decoder = msgspec.json.Decoder(tuple[str, str | None, str])


def _decode_cursor(cursor: str, sort: str) -> tuple[str | None, str]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        for_sort, place, item_id = _cursor_decoder.decode(base64.urlsafe_b64decode(padded))
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise InvalidInput("cursor: use the next_cursor of the page before, unchanged") from None
    pattern = _NUMBER if sort == "price" else _INSTANT
    well_formed = sort == "ending" if place is None else pattern.match(place) is not None
    if for_sort != sort or not well_formed:
        raise InvalidInput("cursor: it belongs to another sort order; start again without it")
    return place, item_id
