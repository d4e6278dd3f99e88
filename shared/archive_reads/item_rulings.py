"""Rulings on the bidders of a closed item, as Redis had them while it had the item."""

from __future__ import annotations

from typing import Final

from shared.archive_reads.asking import Fetch
from shared.archive_reads.statements import statements
from shared.redis_layout.rulings import ARCHIVED_CURSORS, RULED_PER_ITEM_MAX, ItemRuling

_SQL: Final = statements("rulings")


async def item_ruling(fetch: Fetch, item_id: str, user_id: str) -> ItemRuling:
    """What was ruled on one bidder. Raises Unavailable: PostgreSQL cannot be asked."""
    rulings, _ = await _read(fetch, item_id, user_id, 0, 1)
    return rulings.get(user_id, ItemRuling())


async def item_rulings(fetch: Fetch, item_id: str, cursor: int, count: int) -> tuple[dict[str, ItemRuling], int]:
    """Up to ``count`` rulings of an item after a cursor (0: from the first), and the next cursor, 0 after the last.

    Raises:
        Unavailable: PostgreSQL cannot be asked.
    """
    at = cursor - ARCHIVED_CURSORS
    if not 0 <= at < RULED_PER_ITEM_MAX:
        # Redis gave out this cursor before the item left; it means nothing in the order here, so begin from the first.
        at = 0
    found, following = await _read(fetch, item_id, None, at, count)
    return found, following and following + ARCHIVED_CURSORS


async def _read(
    fetch: Fetch, item_id: str, user_id: str | None, cursor: int, count: int
) -> tuple[dict[str, ItemRuling], int]:
    rows = await fetch(_SQL["read_item_rulings"], item_id, user_id, cursor, count)
    found = {row["user_id"]: ItemRuling(row["approved"], row["blocked"], row["max_amount"]) for row in rows}
    return found, cursor + len(found) if len(found) == count else 0
