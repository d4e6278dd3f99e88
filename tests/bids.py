"""Bids that follow each other, for tests of how they are read."""

from __future__ import annotations

from shared.messages import BidAccepted


def nth_bid(item_id: str, seq: int) -> BidAccepted:
    """Ada's ``seq``-th bid: it sets the price ``seq``."""
    return BidAccepted(
        item_id=item_id,
        epoch=1,
        seq=seq,
        ts_us=seq,
        current_bid=seq,
        highest_bidder_id="ada",
        bid_count=seq,
        min_next_bid=seq + 1,
        status="open",
        end_us=None,
        reserve_met=True,
        currency="USD",
        bid_id=f"b-{seq}",
        user_id="ada",
        amount=seq,
        previous_bid=seq - 1,
        kind="bid",
    )
