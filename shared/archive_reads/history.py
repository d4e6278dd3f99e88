"""Histories of bids out of the archive, and a bid as the public history shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from shared.aliases import alias_of
from shared.archive_reads.asking import Fetch
from shared.domain.errors import InvalidInput
from shared.redis_layout.item_hash import ItemState, amount_json
from shared.timefmt import to_rfc3339

PAGE_MAX: Final = 200
PAGE_DEFAULT: Final = 50
"""Bids of a page, unless the reader asks for another number."""

_BIDS: Final = """
    SELECT epoch, seq, bid_id, user_id, amount, kind, (extract(epoch FROM placed_at) * 1000000)::bigint AS ts_us,
           coalesce(leader_id, user_id) AS leader, status = 'voided' AS voided, status = 'repriced' AS repriced
    FROM bids
    WHERE item_id = $1 AND (epoch, seq) < ($2, $3) ORDER BY epoch DESC, seq DESC LIMIT $4"""


@dataclass(frozen=True, slots=True)
class ArchivedBid:
    """A row of the history; ``amount`` in minor units, ``ts_us`` in microseconds.

    ``leader`` led right after it: its own bidder, unless a standing maximum beat the bid. ``repriced``: the bid stands,
    and the price that it set does not, because another one was struck.
    """

    epoch: int
    seq: int
    bid_id: str
    user_id: str
    amount: int
    kind: Literal["bid", "proxy", "buy_now"]
    ts_us: int
    leader: str
    voided: bool
    repriced: bool = False


async def archived_bids(fetch: Fetch, item_id: str, *, before: tuple[int, int] | None, limit: int) -> list[ArchivedBid]:
    """Archived bids of an item with ``(epoch, seq)`` below ``before``, newest first.

    Raises:
        Unavailable: PostgreSQL cannot be asked.
    """
    epoch, seq = before or (2**31 - 1, 2**63 - 1)
    return [ArchivedBid(**dict(row)) for row in await fetch(_BIDS, item_id, epoch, seq, limit)]


def parse_cursor(cursor: str) -> tuple[int, int]:
    """``<epoch>:<seq>`` of the last bid of the page before.

    Raises:
        InvalidInput: not such a cursor.
    """
    epoch, colon, seq = cursor.partition(":")
    if not colon or not epoch.isascii() or not epoch.isdigit() or not seq.isascii() or not seq.isdigit():
        raise InvalidInput("cursor: use the next_cursor of the page before, unchanged")
    if len(epoch) > 10 or len(seq) > 19 or int(epoch) >= 2**31 or int(seq) >= 2**63:
        raise InvalidInput("cursor: out of range")
    return int(epoch), int(seq)


def cut(newest_first: list[ArchivedBid], limit: int) -> tuple[list[ArchivedBid], str | None]:
    """The first ``limit`` of these bids, and the cursor of the next page where there are more."""
    shown = newest_first[:limit]
    return shown, f"{shown[-1].epoch}:{shown[-1].seq}" if len(newest_first) > limit else None


def public_history(
    item: ItemState, bids: list[ArchivedBid], next_cursor: str | None, *, partial: bool
) -> dict[str, Any]:
    """A page as anybody may see it: bidders appear under an alias that is stable within the item."""
    shown = [_public_bid(item, bid) for bid in bids]
    return {"bids": shown, "next_cursor": next_cursor, "partial": partial}


def named_history(
    item: ItemState, bids: list[ArchivedBid], next_cursor: str | None, *, partial: bool
) -> dict[str, Any]:
    """The same page for those who may know who is behind an alias. No cache keeps it."""
    shown = [_public_bid(item, bid) | {"user_id": bid.user_id} for bid in bids]
    return {"bids": shown, "next_cursor": next_cursor, "partial": partial}


def _public_bid(item: ItemState, bid: ArchivedBid) -> dict[str, Any]:
    return {
        "seq": bid.seq,
        "bid_id": bid.bid_id,
        "bidder": alias_of(item.terms.item_id, bid.user_id, item.created_us),
        "amount": amount_json(bid.amount, item.terms.currency),
        "kind": bid.kind,
        "status": "voided" if bid.voided else "repriced" if bid.repriced else "valid",
        "timestamp": to_rfc3339(bid.ts_us),
    }
