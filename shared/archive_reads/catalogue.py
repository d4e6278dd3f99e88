"""Pages of the catalogue: ids of items in an order, by keyset cursors."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final, Literal, NamedTuple, Protocol

import asyncpg
import msgspec

from shared.archive_reads.history import PAGE_DEFAULT, PAGE_MAX
from shared.domain.errors import InvalidInput

Sort = Literal["newest", "ending", "price"]


class _Order(NamedTuple):
    """An order of the items: the columns that it needs, and an item's place in it, as cursors say it."""

    columns: str
    by: str
    place: str


# Keyset paging: each sort has its order, and what comes after a cursor: one or several ranges of its index. An item
# without an end sorts last by end, so its place in the cursor is null. Minor units of different currencies cannot be
# compared, so prices are in the order of their currencies first.
_ORDERS: Final = {
    "newest": _Order("created_at", "created_at DESC, item_id DESC", "created_at::text"),
    "ending": _Order("end_at", "end_at, item_id", "end_at::text"),
    "price": _Order(
        "currency, current_bid",
        'currency COLLATE "C", current_bid DESC, item_id DESC',
        "currency || ':' || current_bid",
    ),
}
_WITHOUT_END: Final = "end_at IS NULL"


def _beyond(sort: str, place: str | None, item_id: str, *, first: int) -> tuple[list[str], list[str]]:
    """The ranges behind a cursor, and their parameters, which are numbered from ``first`` on."""
    one, two, three = f"${first}", f"${first + 1}", f"${first + 2}"
    if place is None:
        return [f"{_WITHOUT_END} AND item_id > {one}"], [item_id]
    match sort:
        case "newest":
            return [f"(created_at, item_id) < ({one}::text::timestamptz, {two})"], [place, item_id]
        case "ending":
            return [f"(end_at, item_id) > ({one}::text::timestamptz, {two})", _WITHOUT_END], [place, item_id]
    currency, _, price = place.partition(":")
    # One range, because no index would serve two: each would read all items.
    cheaper = f"currency = {one} AND (current_bid, item_id) < ({two}::text::bigint, {three})"
    return [f'(currency COLLATE "C" > {one} OR ({cheaper}))'], [currency, price, item_id]


_LENGTHS: Final = (PAGE_DEFAULT, PAGE_MAX)


class Asks(Protocol):
    """:class:`shared.archive_reads.asking.Asking`, whose errors it shares."""

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]: ...


class CataloguePage(NamedTuple):
    """Ids of items in order, and the cursor of the next page; None where there is none."""

    ids: list[str]
    next_cursor: str | None


async def catalogue_page(
    asking: Asks, *, status: str | None, sort: Sort, cursor: str | None, limit: int, seller: str | None = None
) -> CataloguePage:
    """One page. ``seller``: only whose items; ``newest`` alone finds them by an index.

    Raises:
        InvalidInput: the cursor is not one that this list gave out.
        Unavailable: PostgreSQL cannot be asked.
    """
    columns, order, place = _ORDERS[sort]
    # Only what is asked for is in the statement, so that it can be planned without the values, and pages of few lengths
    # are asked for, so that there are few statements. Rows without created_at are items whose `created` event is still
    # on its way.
    rows_max = next((most for most in _LENGTHS if limit <= most), limit) + 1
    conditions, arguments, ranges = ["created_at IS NOT NULL"], list[str](), ["TRUE"]
    if status is not None:
        arguments.append(status)
        conditions.append(f"status = ${len(arguments)}")
    if seller is not None:
        arguments.append(seller)
        conditions.append(f"seller_id = ${len(arguments)}")
    if cursor:
        ranges, parameters = _beyond(sort, *cursor_in(cursor, sort), first=len(arguments) + 1)
        arguments += parameters
    parts = [
        f"(SELECT item_id, {columns} FROM items WHERE {' AND '.join([*conditions, each])}"
        f" ORDER BY {order} LIMIT {rows_max})"
        for each in ranges
    ]
    try:
        rows = await asking.fetch(
            f"""
            SELECT item_id, {place} AS place FROM ({" UNION ALL ".join(parts)}) AS ranges
            ORDER BY {order} LIMIT {rows_max}
            """,
            *arguments,
        )
    except asyncpg.DataError:
        # It has the form of a place and is none, like the 32nd of a month.
        raise InvalidInput("cursor: use the next_cursor of the page before, unchanged") from None
    page = rows[:limit]
    more = len(rows) > limit
    next_cursor = cursor_of(sort, page[-1]["place"], page[-1]["item_id"]) if more else None
    return CataloguePage([row["item_id"] for row in page], next_cursor)


def check_cursor(cursor: str, sort: Sort) -> None:
    """Raises :class:`InvalidInput` where it is not one that this list gave out, as far as can be told of it alone."""
    cursor_in(cursor, sort)


def cursor_of(sort: str, place: str | None, item_id: str) -> str:
    """The cursor of what comes after a place in a list, as clients are given it."""
    return base64.urlsafe_b64encode(msgspec.json.encode((sort, place, item_id))).decode().rstrip("=")


# Base64 would pass over anything else.
_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]{1,512}")
_PRICE: Final = re.compile(r"[A-Z]{3}:[0-9]{1,19}\Z")
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?[+-]\d\d(:\d\d)?\Z")
_cursor_decoder = msgspec.json.Decoder(tuple[str, str | None, str])


def cursor_in(cursor: str, sort: str) -> tuple[str | None, str]:
    """The place, and the id there.

    Raises:
        InvalidInput: the cursor is of another list, or of none.
    """
    try:
        if _CURSOR.fullmatch(cursor) is None:
            raise ValueError
        padded = cursor + "=" * (-len(cursor) % 4)
        for_sort, place, item_id = _cursor_decoder.decode(base64.urlsafe_b64decode(padded))
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise InvalidInput("cursor: use the next_cursor of the page before, unchanged") from None
    pattern = _PRICE if sort == "price" else _INSTANT
    well_formed = sort == "ending" if place is None else pattern.match(place) is not None
    if for_sort != sort or not well_formed:
        raise InvalidInput("cursor: it belongs to another sort order; start again without it")
    return place, item_id
