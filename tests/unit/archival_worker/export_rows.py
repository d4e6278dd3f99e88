"""Rows as the statement ``read_rows`` gives them, without a database."""

from __future__ import annotations

from typing import Any

from shared.messages import BidAccepted, Event, encode_event, type_of
from tests.unit.archival_worker.events import bid, closed, created


def row_of(event: Event) -> dict[str, Any]:
    """The stored row of an event; without a hash."""
    row: dict[str, Any] = {
        "item_id": event.item_id,
        "epoch": event.epoch,
        "seq": event.seq,
        "type": type_of(event),
        "body": None,
        "at_us": event.ts_us,
        **dict.fromkeys(("bid_id", "user_id", "amount", "previous_bid", "kind", "leader_id", "hash")),
    }
    if not isinstance(event, BidAccepted):
        return row | {"body": encode_event(event).decode()}
    row |= {key: getattr(event, key) for key in ("bid_id", "user_id", "amount", "previous_bid", "kind")}
    return row | {"leader_id": None if event.highest_bidder_id == event.user_id else event.highest_bidder_id}


def history(item_id: str = "lot-1") -> list[dict[str, Any]]:
    """An item from its creation to its sale: two bids in between."""
    events = [created(item_id), bid(item_id, 1), bid(item_id, 2, user_id="bob"), closed(item_id, 3)]
    return [row_of(event) for event in events]
